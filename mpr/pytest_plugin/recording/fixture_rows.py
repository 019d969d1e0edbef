"""Writes the rows that a fixture has logged in its setup also into the recordings of later tests that use it.

A fixture of a wider scope than a test (class, module, package or session) is set up only in the first test that uses
it. Without this module, only the recording of this first test would have the rows, and golden recordings would depend
on the order of the tests.

Covers: the rows that a setup, also a method such as `setUpClass`, logs while a test is recorded.
Does not cover: rows that a fixture logs later, and rows above the limits in `mpr/sdk/kept_calls.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from mpr.sdk.kept_calls import MOST_BYTES, MOST_CALLS, KeptCalls

if TYPE_CHECKING:
    from mpr.pytest_plugin.recording.running_test import RunningTest

_NO_PARAMETER = object()


@dataclass(frozen=True, kw_only=True)
class _Setup:
    """Holds the calls by which one setup of a fixture has logged rows, and the fixture's parameter.

    `parameter` is `_NO_PARAMETER` if the fixture has none. `nodeid` is the node id of the test that ran the setup.
    """

    calls: KeptCalls
    parameter: object
    nodeid: str


class FixtureRows:
    """Keeps the rows of fixtures in one process, and repeats them for later tests. This object is a plugin of pytest.

    Parameters
    ----------
    running:
        A function that returns the test that runs in this process, or None.
    """

    def __init__(self, running: Callable[[], RunningTest | None]) -> None:
        self._running = running
        self._setups: dict[object, _Setup] = {}
        # The fixtures whose rows are in the recording of the running test already.
        self._of_test: set[object] = set()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Generator[None, object, object]:
        running = None if fixturedef.scope == "function" else self._running()
        if running is None:
            return (yield)
        calls = KeptCalls()
        try:
            return (yield)
        finally:
            calls.close()
            if calls.is_too_large or len(calls):
                parameter = getattr(request, "param", _NO_PARAMETER)
                self._of_test.add(fixturedef)
                self._setups[fixturedef] = _Setup(calls=calls, parameter=parameter, nodeid=running.item.nodeid)

    def pytest_fixture_post_finalizer(self, fixturedef: object) -> None:
        self._setups.pop(fixturedef, None)

    def begin(self, running: RunningTest) -> None:
        """Write the rows of fixtures into the recording of the test `running`.

        This is done for each fixture that the test uses, and that an earlier test has set up with the same parameter.
        If a fixture has logged too many rows to keep, add a note to `running.notes` instead.
        """
        self._of_test.clear()
        self._repeat(running, _fixtures_of(running.item))

    def phase_has_ended(self, running: RunningTest) -> None:
        """Do the same as `begin` for fixtures that the test has requested by `request.getfixturevalue` until now."""
        request = getattr(running.item, "_request", None)
        self._repeat(running, tuple(getattr(request, "_fixture_defs", {}).values()))

    def _repeat(self, running: RunningTest, fixtures: Iterable[Any]) -> None:
        for fixture in fixtures if self._setups else ():
            setup = self._setups.get(fixture)
            if setup is None or fixture in self._of_test or setup.parameter is not _parameter(running.item, fixture):
                continue
            self._of_test.add(fixture)
            if setup.calls.is_too_large:
                running.notes.append(
                    f"what the fixture {fixture.argname!r} has logged is only in the recording of {setup.nodeid} "
                    f"(kept with --mpr=on). It is more than {MOST_BYTES // 1_000_000} MB or {MOST_CALLS:,} calls, "
                    "and is not repeated. A fixture of scope 'function' logs for each of its tests"
                )
            else:
                setup.calls.repeat(running.stream.handle)
                running.note_rows()


def _fixtures_of(item: pytest.Item) -> Iterator[Any]:
    """Yield the fixtures that pytest has found for the test `item` when it collected the test."""
    found: dict[str, Any] = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for name, definitions in found.items():
        # A fixture that overrides another one of the same name may also use that one.
        for fixture in reversed(definitions):
            yield fixture
            if name not in fixture.argnames:
                break


def _parameter(item: pytest.Item, fixture: Any) -> object:
    """Return the parameter that `fixture` has in the test `item`; `_NO_PARAMETER` if `fixture` has none."""
    parameters: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
    return parameters.get(fixture.argname, _NO_PARAMETER)

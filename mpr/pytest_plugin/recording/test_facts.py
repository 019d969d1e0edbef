"""Reads facts about a test from pytest's objects: its parameters, and why it has failed.

Covers: texts for the journal, from which the page of the run is made.
Does not cover: the rows about the test in its recording (`test_rows.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import pytest

from mpr.pytest_plugin.results import FailedPhase

# The largest numbers of characters of a parameter, of a line, and of the begin and the end of a traceback.
_PARAMETER, _LINE = 80, 400
_BEGIN, _END = 4_000, 12_000
# The types whose texts can be made without calling code of the test.
_PLAIN = frozenset({str, int, float, bool, type(None)})
# The line of pytest that says where an error was raised, such as "tests/test_a.py:12: AssertionError".
_PLACE = re.compile(r"(\S.*?:\d+): .*")
# The package of the plugin's hooks that run around a phase or a fixture.
_HOOKS = __name__.rpartition(".")[0]
# The class of an error may be the test's own, and may do something else for `error.__traceback__`.
_traceback_of, _context_of = (vars(BaseException)[name].__get__ for name in ("__traceback__", "__context__"))


def parameters_of(item: pytest.Item) -> dict[str, str]:
    """Return the parameters of the test `item` as texts, by their names. Empty if it has none.

    If a parameter is not a `str`, `int`, `float`, `bool` or None, its text is its part of the test's id, such as `b` in
    `test_x[1-b]`. If the id does not have one part for each parameter, the text is its type, such as `<Box>`.
    The `repr` of such a parameter is not used, because it may be code of the test. A text has at most 80 characters.
    """
    spec: Any = getattr(item, "callspec", None)
    if spec is None:
        return {}
    parts = spec.id.split("-")
    found = {}
    for number, (name, value) in enumerate(spec.params.items()):
        if type(value) is str:
            text = value
        elif type(value) in _PLAIN:
            text = f"{value!r}"
        else:
            text = parts[number] if len(parts) == len(spec.params) else f"<{type(value).__name__}>"
        found[name] = text[:_PARAMETER]
    return found


def failures_of(failed: Sequence[tuple[str, pytest.TestReport | str]], root: str) -> tuple[FailedPhase, ...]:
    """Return why each phase in `failed` has failed. If several phases have the same text, only the first is returned.

    Each element of `failed` has the name of a phase, and pytest's report of it or text about it. `root` is the path of
    the rootdir, to which the paths of files are relative.
    """
    found: dict[str, FailedPhase] = {}
    for phase, report in failed:
        text = report if isinstance(report, str) else report.longreprtext
        if text not in found:
            found[text] = _failure(phase, text, getattr(getattr(report, "longrepr", None), "reprcrash", None), root)
    return tuple(found.values())


def remove_own_frames(error: BaseException | None) -> None:
    """Remove the frames of the plugin's hooks from the tracebacks of `error` and of the errors before it.

    A hook that runs around a phase or a fixture is a frame in the traceback of each error that comes out of it. pytest
    would show this frame in reports.
    """
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback: TracebackType | None = _traceback_of(error)
        while traceback is not None:
            below = traceback.tb_next
            if below is not None and below.tb_frame.f_globals.get("__name__", "").startswith(_HOOKS):
                traceback.tb_next = below.tb_next
            else:
                traceback = below
        error = _context_of(error)


def _failure(phase: str, text: str, crash: Any, root: str) -> FailedPhase:
    """Return the failure of `phase` that pytest describes by `text`.

    `crash` is pytest's object with the message and the place of the error. If `crash` is None, both are read from
    `text`. `root` is the path of the rootdir, to which the place is relative.
    """
    lines = text.splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("E  ")]
    message = str(crash.message).strip() if crash is not None else ""
    if not message:
        message = "\n".join(line[1:].strip() for line in lines[errors[0] :] if line[:1] == "E") if errors else text
    where = f"{crash.path}:{crash.lineno}" if crash is not None else _place(lines)
    return FailedPhase(
        phase=phase,
        message=_first_line(message),
        where=where.removeprefix(f"{root}/"),
        source=_source(lines, errors)[:_LINE],
        text=_shortened(text),
    )


def _first_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["(no text)"]
    # A line that ends with a colon only introduces the next one.
    first = f"{lines[0]} {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    return first[:_LINE]


def _place(lines: Sequence[str]) -> str:
    places = (_PLACE.fullmatch(line) for line in reversed(lines))
    return next((place[1] for place in places if place is not None), "")


def _source(lines: Sequence[str], errors: Sequence[int]) -> str:
    """Return the source line at which the last error in `lines` was raised; empty if pytest does not show it.

    `errors` are the numbers of the lines that pytest marks with "E".
    """
    last = errors[-1] if errors else len(lines)
    marked = [line[1:].strip() for line in lines[:last] if line.startswith("> ")]
    if marked:
        return marked[-1]
    # With `--tb=short`, the source line stands before the error, without a mark.
    before = [number - 1 for number in errors if number and number - 1 not in errors]
    return lines[before[-1]].strip() if before and lines[before[-1]].startswith("    ") else ""


def _shortened(text: str) -> str:
    if len(text) <= _BEGIN + _END:
        return text
    return f"{text[:_BEGIN]}\n[... {len(text) - _BEGIN - _END} characters ...]\n{text[-_END:]}"

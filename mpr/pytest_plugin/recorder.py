"""Records the tests of one process: a file per test and attempt, from before its fixtures to after their teardown.

How a test is recorded: `begin` (name, file, journal) -> phases (output, failure) -> `end` (outcome, kept or removed).

Covers: what happens when, and that nothing of it reaches the test: what goes wrong here is noted, and no more.
Does not cover: the file (`stream.py`), names (`names.py`), who survives a crash (`controller.py`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mpr.pytest_plugin import names, retention
from mpr.pytest_plugin.journal import Ended, Journal, Started
from mpr.pytest_plugin.options import RECORDED_FIXTURES, Settings, Wish, wish_of

#: The property by which reports name a test's recording, relative to where pytest was started.
PROPERTY = "mpr_recording"
#: The worker of a process that is none of pytest-xdist's.
MAIN = "main"

SETUP, CALL, TEARDOWN = "setup", "call", "teardown"


@dataclass(kw_only=True)
class Running:
    """The test that runs.

    Attributes
    ----------
    item, wish, attempt:
        Which test, how it is recorded, and the how-manieth time it runs (from 0).
    path, key:
        Its file, and that relative to the run's folder, as the journal has it.
    stream:
        What it is logged with.
    started, clock:
        When it began: seconds since the epoch, and of `time.perf_counter`.
    phases:
        Each phase, with the time when it began.
    outcomes:
        The outcome of each phase that has ended.
    failures:
        Each phase that failed, with what pytest says of it.
    notes:
        What a reader of the recording must know.
    logged:
        Whether there are rows that may not be on the disk.
    """

    item: pytest.Item
    wish: Wish
    attempt: int
    path: Path
    key: str
    stream: Any
    started: float
    clock: float
    phases: list[tuple[str, float]] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    logged: bool = False
    sections: int = 0


class Recorder:
    """A plugin object of pytest, in each process that runs tests."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.settings = settings
        self.worker: str = getattr(config, "workerinput", {}).get("workerid", MAIN)
        self.current: Running | None = None
        self._invocation_dir = config.invocation_params.dir
        self._attempts: dict[str, int] = {}
        self._journal: Journal | None = None
        self._streams: Any = None
        self._children: Any = None
        self._logs: Any = None
        self._told: set[str] = set()
        #: Of the last test, for a teardown that shall fail with it.
        self.errors: list[str] = []

    # --- hooks ----------------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._attempt("begin to record", self._begin, item)
        return (yield from self._phase(SETUP))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        return (yield from self._phase(CALL))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        try:
            result = yield from self._phase(TEARDOWN)
        finally:
            self._attempt("finish the recording", self._end)
        if self.settings.strict and self.errors:
            pytest.fail("mpr: " + "; ".join(self.errors), pytrace=False)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self._attempt("note an outcome", self._reported, item, report)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Of subtests there is no other word, with some plugins.
        running = self.current
        if running is not None and report.nodeid == running.item.nodeid and report.failed and report.when == CALL:
            running.outcomes[CALL] = "failed"

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """After Ctrl-C and `pytest.exit` the test's teardown was never called."""
        if self.current is not None:
            self.current.outcomes.setdefault("interrupted", "interrupted")
            self._attempt("finish the recording", self._end)

    def pytest_unconfigure(self) -> None:
        if self._logs is not None:
            self._logs.end()
            self._attempt("end the recording of child processes", self._children.close)
        if self._journal is not None and self._journal.pid == os.getpid():
            with contextlib.suppress(OSError):
                self._journal.close()

    # --- for fixtures -----------------------------------------------------------------------------------------------

    def snapshot(self, target: Path) -> None:
        """Write what the running test has logged until now to `target`, as a valid file.

        Raises `RuntimeError` where no test is recorded now, or where the disk refuses, as `SinkError` and `OSError` do.
        """
        from mpr.recover import recover

        if self.current is None:
            raise RuntimeError("no test is recorded at this moment")
        self.current.stream.flush(self.settings.flush_timeout_secs)
        shutil.copyfile(self.current.path, target)
        recover(target)

    def artifacts(self) -> Path:
        """The folder for files of the running test, beside its recording; made now. Raises `OSError`."""
        assert self.current is not None
        folder = self.current.path.with_suffix("")
        folder.mkdir(exist_ok=True)
        return folder

    # --- a test ---------------------------------------------------------------------------------------------------

    def _begin(self, item: pytest.Item) -> None:
        if self.current is not None:
            self._end()
        self.errors = []
        wish = wish_of(item, self.settings)
        first = max(self._attempts.get(item.nodeid, 0), getattr(item, "execution_count", 1) - 1)
        self._attempts[item.nodeid] = first + 1
        needed = not RECORDED_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
        if not (needed or retention.is_recorded(wish.mode, first)) or self._is_full():
            return
        folder = self.settings.folder
        folder.mkdir(parents=True, exist_ok=True)
        path, attempt = names.reserve(folder, self._name(item, wish, first), first)
        self._attempts[item.nodeid] = attempt + 1
        now = time.time()
        key = path.name
        self._open_journal().write(
            Started(
                nodeid=item.nodeid,
                attempt=attempt,
                worker=self.worker,
                pid=os.getpid(),
                path=key,
                application_id=wish.application_id,
                time=now,
            )  # fmt: skip
        )
        stream = self._stream(wish.application_id)
        stream.open(path)
        running = self.current = Running(
            item=item, wish=wish, attempt=attempt, path=path, key=key, stream=stream, started=now,
            clock=time.perf_counter(), sections=len(getattr(item, "_report_sections", ())),
        )  # fmt: skip
        self._set_property(item, os.path.relpath(path, self._invocation_dir))
        self._make_current(running)
        self._children.welcome(stream)

    def _end(self) -> None:
        running, self.current = self.current, None
        if running is None or running.stream.pid != os.getpid():
            return
        from mpr.pytest_plugin import content

        self._leave_current(running)
        note = self._children.dismiss()
        if note is not None:
            running.notes.append(note)
        outcome = retention.outcome_of(running.outcomes.values())
        mode = running.wish.mode
        kept = retention.is_recorded(mode, running.attempt) and retention.is_kept(mode, running.attempt, outcome)
        taken = running.stream.is_taken()
        if taken:
            running.notes.append(
                "the test gave this recording another sink (rr.save, rr.disconnect or the like): rows after that are "
                "not here"
            )
        elif kept:
            content.log_end(running, outcome, self.worker)
        whole = running.stream.close()
        if not whole:
            running.notes.append("the disk did not take all rows")
            self._tell(f"the recording of {running.item.nodeid} is not whole: {running.notes[-1]}")
        if not kept:
            running.path.unlink(missing_ok=True)
            self._set_property(running.item, None)
        duration = time.perf_counter() - running.clock
        self._open_journal().write(
            Ended(path=running.key, outcome=outcome, kept=kept, duration_secs=duration, notes=tuple(running.notes))
        )
        if kept:
            running.item.ihook.pytest_mpr_recording_finished(
                item=running.item, path=running.path, outcome=outcome, complete=whole and not taken
            )

    def _phase(self, name: str) -> Generator[None, Any, Any]:
        running = self.current
        if running is not None:
            running.phases.append((name, time.time()))
            self._attempt("note a phase", self._open_journal().phase, running.key, *running.phases[-1])
        try:
            return (yield)
        except BaseException as error:
            self._attempt("note an exception", self._raised, name, error)
            raise
        finally:
            self._attempt("record a phase", self._phase_ended, name)

    def _phase_ended(self, name: str) -> None:
        running = self.current
        if running is None or running.stream.pid != os.getpid():
            return
        from mpr.pytest_plugin import content

        content.log_output(running)
        running.outcomes.setdefault(name, "passed")
        if name == SETUP:
            # Fixtures may have brought the first function that logs from other processes.
            self._children.welcome(running.stream)
        if running.logged and name != TEARDOWN:
            running.logged = False
            running.stream.flush(self.settings.flush_timeout_secs)

    def _raised(self, name: str, error: BaseException) -> None:
        """For what `makereport` does not tell, or too late."""
        running = self.current
        if running is None:
            return
        if isinstance(error, pytest.skip.Exception):
            running.outcomes[name] = "skipped"
        elif isinstance(error, KeyboardInterrupt | pytest.exit.Exception):
            running.outcomes[name] = "interrupted"
        else:
            running.outcomes[name] = "failed"
            if name == TEARDOWN:
                text = running.item.repr_failure(pytest.ExceptionInfo.from_exception(error))
                running.failures.append((name, str(text)))

    def _reported(self, item: pytest.Item, report: pytest.TestReport) -> None:
        running = self.current
        if running is None or running.item is not item:
            return
        running.outcomes[report.when or CALL] = report.outcome
        if report.failed:
            running.failures.append((report.when or CALL, report.longreprtext))

    # --- parts of it ----------------------------------------------------------------------------------------------

    def _name(self, item: pytest.Item, wish: Wish, attempt: int) -> str:
        given = wish.name or item.ihook.pytest_mpr_recording_name(item=item, attempt=attempt)
        name = names.clean(given)[:100] if given else names.stem(item.nodeid, self.settings.folder)
        return f"{name}-{self.worker}" if self.settings.names_worker else name

    def _set_property(self, item: pytest.Item, value: str | None) -> None:
        item.user_properties[:] = [each for each in item.user_properties if each[0] != PROPERTY]
        if value is not None:
            item.user_properties.append((PROPERTY, value))

    def _stream(self, application_id: str) -> Any:
        if self._streams is not None and self._streams.knows(application_id):
            return self._streams.get(application_id)
        with warnings.catch_warnings():
            # Importing the SDK is not the test's doing, which may take warnings for errors.
            warnings.simplefilter("ignore")
            from mpr.pytest_plugin.stream import TestStreams

            if self._streams is None:
                from mpr.pytest_plugin import content
                from mpr.pytest_plugin.children import Children
                from mpr.pytest_plugin.logs import LogCapture

                self._streams = TestStreams(self._logged)
                self._children = Children()
                self._logs = LogCapture(self._native, content.LOGS)
            return self._streams.get(application_id)

    def _native(self) -> Any:
        """The stream of the test that runs in this very process; None where none does."""
        running = self.current
        return running.stream.native if running is not None and running.stream.pid == os.getpid() else None

    def _logged(self) -> None:
        if self.current is not None:
            self.current.logged = True

    def _make_current(self, running: Running) -> None:
        from mpr import entries

        native = running.stream.native.inner
        if running.wish.capture == "thread":
            entries.exchange_thread_recording(native)
            return
        before = entries.exchange_global_recording(native)
        if before is not None and not self._streams.has(before):
            entries.exchange_global_recording(before)
            running.notes.append(
                "an earlier test or fixture made another recording current (rr.init): plain rr.log goes there"
            )

    def _leave_current(self, running: Running) -> None:
        from mpr import entries

        exchange = (
            entries.exchange_thread_recording if running.wish.capture == "thread" else entries.exchange_global_recording
        )
        now = exchange(None)
        if now is not None and not self._streams.has(now):
            # What the test has made current stays so, as it would without us.
            exchange(now)

    def _open_journal(self) -> Journal:
        if self._journal is None or self._journal.pid != os.getpid():
            self._journal = Journal(self.settings.folder, self.worker)
        return self._journal

    def _is_full(self) -> bool:
        existing = next(each for each in (self.settings.folder, *self.settings.folder.parents) if each.exists())
        free = shutil.disk_usage(existing).free
        if free >= self.settings.min_free_bytes:
            return False
        self._tell(f"nothing is recorded: {free / 1e6:.0f} MB are free, less than mpr_min_free_space")
        return True

    # --- what goes wrong --------------------------------------------------------------------------------------------

    def _attempt(self, what: str, step: Callable[..., object], *args: Any) -> None:
        """Call `step`; what it raises is noted, and never the test's."""
        try:
            step(*args)
        except Exception as error:  # noqa: BLE001  # whatever it is, the test has nothing to do with it
            self._tell(f"cannot {what}: {type(error).__name__}: {error}")

    def _tell(self, text: str) -> None:
        self.errors.append(text)
        if text not in self._told:
            self._told.add(text)
            with contextlib.suppress(OSError):
                self.settings.folder.mkdir(parents=True, exist_ok=True)
                self._open_journal().error(text)

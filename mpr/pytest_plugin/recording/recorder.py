"""Records the tests of one process: one file for each recorded attempt, from the setup to the end of the teardown.

The steps of one attempt: `_begin` chooses a name, opens the file and writes to the journal (`journal.py`). `_phase`
runs around the setup, the call and the teardown, and records output and failures. `_end` writes the outcome, and keeps
or removes the file.

If a step raises an error, the test goes on, and the summary of the run names the error (`internal_errors.py`). With
`--mpr-strict`, the error fails the teardown of the test. An error that a signal handler raises in a step is raised
again.

Covers: the order of these steps.
Does not cover: the file (`test_stream.py`), how rows get into the recording (`log_sources.py`), and the repair after a
crash (`report/repair.py`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import pytest

from mpr.pytest_plugin.journal import Ended, Journal, Started
from mpr.pytest_plugin.options import RECORDED_FIXTURES, Settings, TestOptions, test_options
from mpr.pytest_plugin.recording import file_names, report_links, retention, system, test_facts
from mpr.pytest_plugin.recording.internal_errors import InternalErrors
from mpr.pytest_plugin.recording.running_test import CALL, SETUP, TEARDOWN, RunningTest
from mpr.pytest_plugin.recording.system import System
from mpr.pytest_plugin.run_folder import make_run_folder
from mpr.rrd import framing

if TYPE_CHECKING:
    from mpr.pytest_plugin.recording.log_sources import LogSources


#: The property of pytest's reports with the path of a test's recording, relative to the folder in which pytest was
#: started.
PROPERTY = "mpr_recording"
#: The worker's name in a process without pytest-xdist.
MAIN = "main"
#: The key in `workeroutput` (the data that a worker of pytest-xdist sends at its end) for errors of mpr itself.
WORKER_OUTPUT = "mpr_troubles"


# A note for the recording of a test whose file the test has ended.
_TAKEN = (
    "the test gave its recording another sink (rr.save or the like), or has ended it (rr.rerun_shutdown): what came "
    "then is not here. A recording of its own (rr.RecordingStream) can be saved and ended"
)


class Recorder:
    """Records the tests of one process. This object is a plugin of pytest, one in each process that may record tests.

    Parameters
    ----------
    config:
        The configuration of pytest.
    settings:
        The options of the run.

    Attributes
    ----------
    worker:
        The name of this worker of pytest-xdist; "main" without pytest-xdist.
    current:
        The test that is recorded now, or None.
    errors:
        The errors that have happened in mpr itself.
    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.settings = settings
        self.worker: str = getattr(config, "workerinput", {}).get("workerid", MAIN)
        self.current: RunningTest | None = None
        #: The recording of the test that has ended last; None if the recording was not kept.
        self.last: str | None = None
        self.errors: InternalErrors = InternalErrors(lambda text: self._open_journal().error(text))
        self._config = config
        # Texts, because the methods of `Path` are Python code, which calls functions that a test may replace.
        self._folder, self._output = str(settings.folder), str(settings.output)
        self._shown_folder = os.path.relpath(self._folder, config.invocation_params.dir)
        self._is_switched_off = os.environ.get("RERUN", "").lower() in ("off", "0", "false")
        self._attempts: dict[str, int] = {}
        self._journal: Journal | None = None
        self._log_sources: LogSources | None = None

    # --- hooks ----------------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Import the SDK and make streams, so that the first test does not last some tenths of a second longer."""
        if session.items:
            self.errors.attempt("begin to record", self._prepare, session.items)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self.errors.attempt("begin to record", self._begin, item)
        return (yield from self._phase(SETUP))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        return (yield from self._phase(CALL))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        result = yield from self._phase(TEARDOWN)
        # A recording whose teardown has failed needs pytest's report of the teardown. So it ends with this report.
        self.errors.attempt("finish a recording", self._end)
        if self.settings.strict and self.errors.of_test:
            pytest.fail("mpr: " + "; ".join(self.errors.of_test), pytrace=False)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        if call.excinfo is not None:
            self.errors.attempt("hide frames", test_facts.remove_own_frames, call.excinfo.value)
        report = yield
        self.errors.attempt("note an outcome", self._reported, item, report)
        if report.when == TEARDOWN:
            self.errors.attempt("finish a recording", self._end)
            if self.last is not None:
                self._name_in(report, self.last)
                self.errors.attempt("link a recording", report_links.add_link, item, report, self.last)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        running = self.current
        # For a subtest that fails, pytest may call only this hook.
        if running is not None and report.failed and report.nodeid == running.item.nodeid:
            self.errors.attempt("note an outcome", running.failed_in_part, report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Finish the recording of a test that Ctrl-C or `pytest.exit` has interrupted before the end of its teardown.

        If a worker of pytest-xdist has no journal, give the errors of mpr to pytest-xdist, which sends them to the
        `Controller`.
        """
        if self.current is not None:
            self.current.outcomes.setdefault("interrupted", "interrupted")
            self.errors.attempt("finish a recording", self._end)
        self.errors.close()
        if self._journal is None or self._journal.pid != System.getpid():
            # If nothing could be written, there is no journal. So pytest-xdist sends the errors.
            output = getattr(self._config, "workeroutput", None)
            if output is not None:
                output[WORKER_OUTPUT] = list(self.errors.texts)

    def pytest_unconfigure(self) -> None:
        if self._log_sources is not None:
            self.errors.attempt("end what tests were recorded with", self._log_sources.close)
        if self._journal is not None and self._journal.pid == System.getpid():
            with suppress(OSError):
                self._journal.close()

    # --- for fixtures -----------------------------------------------------------------------------------------------

    def snapshot(self, target: Path) -> None:
        """Copy the recording of the running test, as it is now, to the file `target`.

        The copy has no footer, which is the index at the end of an `.rrd` file. Raises `RuntimeError` if no test is
        recorded now, or if the SDK cannot write the rows to the disk in `flush_timeout_secs`. Raises `OSError` if a
        file cannot be read or written. If an earlier flush of the recording has failed, the copy may lack rows.
        """
        if self.current is None:
            raise RuntimeError("no test is recorded at this moment")
        self.current.stream.flush(self.settings.flush_timeout_secs)
        # Only whole messages are written. Other threads may log meanwhile, so the file may end within a message.
        target.write_bytes(framing.whole(system.read_all(self.current.path)))

    def artifacts(self) -> Path:
        """Return the path of the folder for files of the running test. It lies beside the test's recording.

        If the folder is missing, this method makes it. Call this method only while a test is recorded. Raises `OSError`
        if the folder cannot be made.
        """
        assert self.current is not None
        folder = self.current.path.removesuffix(".rrd")
        system.make_folder(folder)
        return Path(folder)

    # --- a test ---------------------------------------------------------------------------------------------------

    def _prepare(self, items: list[pytest.Item]) -> None:
        used = {self.settings.application_id}
        for item in items:
            if item.get_closest_marker("mpr") is not None:
                used.add(test_options(item, self.settings).application_id)
        self._sources().make_streams(used)

    def _begin(self, item: pytest.Item) -> None:
        if self.current is not None:
            self._end()
        self.errors.begin_test()
        self.last = None
        options = test_options(item, self.settings)
        first = max(self._attempts.get(item.nodeid, 0), getattr(item, "execution_count", 1) - 1)
        self._attempts[item.nodeid] = first + 1
        needed = not RECORDED_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
        if not (needed or retention.is_recorded(options.mode, first)) or not self._can_record():
            return
        clock, now = System.clock(), System.now()
        make_run_folder(self.settings, self._folder, self._output)
        key, attempt = file_names.reserve(self._folder, self._name(item, options, first), first)
        path = f"{self._folder}/{key}"
        self._attempts[item.nodeid] = attempt + 1
        try:
            sources = self._sources()
            stream = sources.stream(options.application_id)
            stream.open(path)
            started = Started(
                nodeid=item.nodeid, attempt=attempt, worker=self.worker, pid=System.getpid(), path=key,
                application_id=options.application_id, time=now, parameters=test_facts.parameters_of(item),
            )  # fmt: skip
            self._open_journal().write(started)
        except BaseException:
            # The file is removed, because it would look like the recording of a test that has crashed.
            system.remove(path)
            raise
        running = self.current = RunningTest(
            item=item, options=options, attempt=attempt, path=path, key=key, stream=stream, started=now,
            clock=clock, sections=len(getattr(item, "_report_sections", ())),
        )  # fmt: skip
        sources.attach(running)

    def _phase(self, name: str) -> Generator[None, Any, Any]:
        running = self._running()
        if running is not None:
            running.phases.append((name, System.now()))
            self.errors.attempt("note a phase", self._open_journal().phase, running.key, *running.phases[-1])
        try:
            return (yield)
        except BaseException as error:
            if running is not None:
                self.errors.attempt("note an exception", running.raised, name, error)
            raise
        finally:
            self.errors.attempt("record a phase", self._phase_ended, name)

    def _phase_ended(self, name: str) -> None:
        running = self._running()
        if running is None:
            return
        self._sources().log_output(running)
        running.outcomes.setdefault(name, "passed")
        if name != TEARDOWN:
            self._sources().phase_has_ended(running, name)
            self._flush(running)

    def _flush(self, running: RunningTest) -> None:
        """Wait until the rows that the test `running` has logged since the last flush are in its file.

        If this fails, for example because the disk is full, add a note to `running.notes` and raise `RuntimeError`.
        """
        if running.take_logged():
            try:
                running.stream.flush(self.settings.flush_timeout_secs)
            except RuntimeError as error:
                running.notes.append(f"not all rows are here: {error}")
                raise

    def _reported(self, item: pytest.Item, report: pytest.TestReport) -> None:
        running = self._running()
        if running is not None and running.item is item:
            running.reported(report)
            if report.when != TEARDOWN:
                self._name_in(report, running.path)

    def _end(self) -> None:
        running, self.current = self._running(), None
        if running is None:
            return
        self.errors.attempt("leave a recording", self._sources().detach, running)
        outcome = retention.outcome_of(running.outcomes.values())
        mode = running.options.mode
        self.errors.attempt("say why a test has failed", running.explain)
        kept = retention.is_recorded(mode, running.attempt) and retention.is_kept(mode, running.attempt, outcome)
        taken = running.stream.is_taken()
        if taken:
            running.notes.append(_TAKEN)
        elif kept:
            self.errors.attempt("bring all rows to the disk", self._flush, running)
            self.errors.attempt("note an outcome", self._sources().log_end, running, outcome, self.worker)
        if not kept:
            running.stream.finish(has_rows=running.take_logged())
            system.remove(running.path)
        elif not running.stream.close():
            running.notes.append(f"the file has no end: mpr recover {quote(running.path)}")
            self.errors.report("recordings without an end", f"{running.key}: {running.notes[-1]}")
        if taken:
            self.errors.attempt("drop later rows", running.stream.drop_rows)
        ended = Ended(
            path=running.key, outcome=outcome, kept=kept, duration_secs=System.clock() - running.clock,
            complete=not running.notes, notes=tuple(running.notes), outcomes=running.outcomes,
            failures=running.explained, goldens=tuple(running.goldens),
        )  # fmt: skip
        self._open_journal().write(ended)
        if kept:
            self.last = running.path
            report_links.attach(running.item, running.path)
            finished = running.item.ihook.pytest_mpr_recording_finished
            if finished.get_hookimpls():
                finished(item=running.item, path=Path(running.path), outcome=outcome, complete=not running.notes)

    # --- parts of these steps -------------------------------------------------------------------------------------

    def _running(self) -> RunningTest | None:
        """Return the test that is recorded now; None if there is none, or if a test has forked this process."""
        return self.current if self.current is not None and self.current.is_here else None

    def _sources(self) -> LogSources:
        if self._log_sources is None:
            # No test was recorded in this process until now.
            with warnings.catch_warnings():
                # Warnings of imported modules must not fail a test that turns warnings into errors.
                warnings.simplefilter("ignore")
                # Some modules that the SDK imports start threads.
                self._log_sources = system.without_signals(lambda: _new_sources(self._config, self._running))
        return self._log_sources

    def _name(self, item: pytest.Item, options: TestOptions, attempt: int) -> str:
        given = options.name or item.ihook.pytest_mpr_recording_name(item=item, attempt=attempt)
        name = file_names.clean(given)[:100] if given else file_names.stem(item.nodeid, self._folder)
        return f"{name}-{self.worker}" if self.settings.names_worker else name

    def _name_in(self, report: pytest.TestReport, path: str) -> None:
        """Name the recording `path` in `report`, and not in the properties of the item, which the test can see."""
        report.user_properties.append((PROPERTY, f"{self._shown_folder}{path.removeprefix(self._folder)}"))

    def _open_journal(self) -> Journal:
        if self._journal is None or self._journal.pid != System.getpid():
            make_run_folder(self.settings, self._folder, self._output)
            self._journal = Journal(self._folder, self.worker)
        return self._journal

    def _can_record(self) -> bool:
        if self._is_switched_off:
            self.errors.report("tests that are not recorded: RERUN=off", "nothing is recorded: RERUN=off is set")
            return False
        free = system.free_bytes(self._folder)
        if free < self.settings.min_free_bytes:
            self.errors.report(
                "tests that are not recorded: the disk is full",
                f"not recorded: {free / 1e6:.0f} MB are free for {self._output}, less than mpr_min_free_space",
            )
            return False
        return True


def _new_sources(config: pytest.Config, running: Callable[[], RunningTest | None]) -> LogSources:
    from mpr.pytest_plugin.recording.log_sources import LogSources

    return LogSources(config, running)

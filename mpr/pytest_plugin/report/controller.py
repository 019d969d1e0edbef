"""Finishes a run when all tests have ended, in the process in which pytest was started.

Covers: making the list of results, the order of the steps, and errors in the steps. Also, while tests run: if a worker
of pytest-xdist has crashed in a test, pytest's report of the crash gets the path of the test's recording.
Does not cover: the steps themselves, which are in the other modules of this package and in `run_folder.py`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mpr.pytest_plugin.golden import write_golden_summary
from mpr.pytest_plugin.journal import JournaledTest, read_journals
from mpr.pytest_plugin.options import Settings
from mpr.pytest_plugin.recording.internal_errors import InternalErrors
from mpr.pytest_plugin.recording.recorder import WORKER_OUTPUT, Recorder
from mpr.pytest_plugin.report import html_page, layout, pictures, repair, server, terminal_summary
from mpr.pytest_plugin.results import RecordedTest
from mpr.pytest_plugin.run_folder import finish_run_folder

if TYPE_CHECKING:
    import rerun.blueprint as rrb


class Controller:
    """Finishes the run after the last test. Only the process in which pytest was started has a controller.

    This object is a plugin of pytest.

    Parameters
    ----------
    config:
        The configuration of pytest.
    settings:
        The options of the run.
    recorder:
        The recorder of the same process; None if there is none. Its errors are shown if the run has no folder.

    Attributes
    ----------
    results:
        The result of each attempt of a recorded test. Empty until all tests have ended.
    """

    def __init__(self, config: pytest.Config, settings: Settings, recorder: Recorder | None) -> None:
        self.config = config
        self.settings = settings
        #: The result of each attempt of a recorded test. Empty until all tests have ended.
        self.results: list[RecordedTest] = []
        self._recorder = recorder
        self._page: Path | None = None
        self._problems: list[str] = []
        self._errors = InternalErrors(self._problems.append)

    def crashed(self, nodeid: str, report: pytest.TestReport) -> None:
        """Add the path of the test's recording to `report`, which says that a worker has crashed in the test `nodeid`.

        Adds nothing if the test was not recorded. An error is shown in the summary, and not raised.
        """
        self._errors.attempt("find the recording of a crashed test", self._name_recording, nodeid, report)

    def _name_recording(self, nodeid: str, report: pytest.TestReport) -> None:
        node: Any = getattr(report, "node", None)
        for test in read_journals(self.settings.folder).tests.values():
            start = test.start
            if test.end is None and start.nodeid == nodeid and node is not None and start.worker == node.gateway.id:
                report.longrepr = f"{report.longrepr}\nmpr recording: {self._shown(self.settings.folder / start.path)}"

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._problems += getattr(node, "workeroutput", {}).get(WORKER_OUTPUT, ())

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Finish the run. pytest calls this hook when all tests and all workers of pytest-xdist have ended.

        In a job of GitHub Actions, also write the summary of the job, if there are recordings or errors to name. If
        `exitstatus` says that the user has pressed Ctrl-C, no pictures are drawn. Errors are shown in the summary, and
        not raised.
        """
        if self.settings.folder.exists():
            # A user who presses Ctrl-C does not want to wait for pictures.
            draw = exitstatus != pytest.ExitCode.INTERRUPTED
            self._errors.attempt("finish the run's folder", self.finish, draw)
        elif self._recorder is not None:
            self._problems += self._recorder.errors.texts
        results = terminal_summary.named(self.settings.summary, self.results)
        page = os.environ.get("GITHUB_STEP_SUMMARY")
        if page and (results or self._problems):
            self._errors.attempt("write the summary of the CI job", self._write_page, page, results)

    def finish(self, draw: bool) -> None:
        """Make the results of the run, repair recordings of crashed tests, write the page, and remove old runs.

        If `draw` is true, also draw the pictures for which the settings ask. Raises `OSError` if a journal cannot be
        read, or if the folder of the run cannot be finished. Other errors are shown in the summary.
        """
        found = read_journals(self.settings.folder)
        self._problems += found.errors
        for test in found.tests.values():
            if test.end is None:
                self.results.append(repair.repaired(self.settings.folder, test, self._problems))
            else:
                self.results.append(self._ended(test))
        if any(each.path is not None or each.goldens for each in self.results):
            self._errors.attempt("show the run", self._show, draw)
        finish_run_folder(self.settings, self.results)

    def _show(self, draw: bool) -> None:
        layouts: dict[Path, rrb.Blueprint] = {}
        for number, each in enumerate(self.results):
            if each.failed and each.path is not None:
                self._errors.attempt("lay out a recording", self._lay_out, each.path, layouts)
                self.results[number] = replace(each, size_bytes=each.path.stat().st_size)
        if draw:
            self.results = pictures.drawn(self.settings, self.results, layouts, self._problems)
        self._page = html_page.write(self.settings.folder, self.results, html_page.artifact_viewer(self.settings))

    def _lay_out(self, path: Path, layouts: dict[Path, rrb.Blueprint]) -> None:
        of_picture = layout.add_layout(path)
        if of_picture is not None:
            layouts[path] = of_picture

    def _ended(self, test: JournaledTest) -> RecordedTest:
        assert test.end is not None
        path = self.settings.folder / test.start.path
        kept = test.end.kept and path.exists()
        return RecordedTest(
            nodeid=test.start.nodeid,
            attempt=test.start.attempt,
            worker=test.start.worker,
            outcome=test.end.outcome,
            started=test.start.time,
            duration_secs=test.end.duration_secs,
            path=path if kept else None,
            size_bytes=path.stat().st_size if kept else 0,
            complete=test.end.complete,
            notes=test.end.notes,
            parameters=test.start.parameters,
            failures=test.end.failures,
            steps=test.steps(),
            goldens=test.end.goldens,
        )

    def _write_page(self, page: str, results: list[RecordedTest]) -> None:
        with open(page, "a") as file:
            file.write(terminal_summary.step_summary(results, self._problems, self._shown, self._link))

    def _link(self, path: Path) -> str | None:
        """Return the URL that opens the recording at `path` in a web viewer; None without `--mpr-artifact-url`."""
        viewer = html_page.artifact_viewer(self.settings)
        return viewer.link(os.path.relpath(path, self.settings.folder)) if viewer is not None else None

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        results = terminal_summary.named(self.settings.summary, self.results)
        terminal_summary.write(terminalreporter, results, self._problems, self._shown, self._page)
        changed = self._page is not None and any(each.written for test in self.results for each in test.goldens)
        write_golden_summary(terminalreporter, self._shown(self._page) if self._page and changed else None)
        if self._page is not None and self.settings.serve_port is not None:
            self._errors.attempt("serve the page", server.serve, self.settings, self.results, terminalreporter.line)

    def _shown(self, path: Path) -> str:
        """Return `path` relative to the folder in which pytest was started, because the user types the path there."""
        return os.path.relpath(path, self.config.invocation_params.dir)

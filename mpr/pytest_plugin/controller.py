"""What is left to do when all tests are done, in the process that pytest was started in.

Covers: which recordings there are, repair of those whose process has died, telling people of it.
Does not cover: how that is told (`summary.py`), and old runs (`run_folder.py`).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from mpr.pytest_plugin import journal, run_folder, summary
from mpr.pytest_plugin.journal import Told
from mpr.pytest_plugin.options import Settings
from mpr.pytest_plugin.results import RecordedTest


class Controller:
    """A plugin object of pytest."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.results: list[RecordedTest] = []
        self.errors: list[str] = []

    def crashed(self, nodeid: str, report: pytest.TestReport) -> None:
        """A worker has crashed at the test `nodeid`: its report says where the recording is."""
        with contextlib.suppress(OSError):
            for told in journal.read(self.settings.folder).tests.values():
                if told.end is None and told.start.nodeid == nodeid and told.start.worker == _worker(report):
                    path = self.settings.folder / told.start.path
                    report.longrepr = f"{report.longrepr}\nmpr recording: {self._shown(path)}"

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        if self.settings.folder.exists():
            try:
                self.finish()
            except Exception as error:  # noqa: BLE001  # never the run's failure
                self.errors.append(f"cannot finish the run's folder: {type(error).__name__}: {error}")

    def finish(self) -> None:
        """Every process has ended its tests, or has died."""
        from mpr.pytest_plugin import repair

        found = journal.read(self.settings.folder)
        self.errors += found.errors
        for told in found.tests.values():
            if told.end is None:
                self.results.append(repair.repaired(self.settings.folder, told, self.errors))
            else:
                self.results.append(self._ended(told))
        run_folder.finish(self.settings, self.results)

    def _ended(self, told: Told) -> RecordedTest:
        assert told.end is not None
        path = self.settings.folder / told.start.path
        kept = told.end.kept and path.exists()
        return RecordedTest(
            nodeid=told.start.nodeid,
            attempt=told.start.attempt,
            worker=told.start.worker,
            outcome=told.end.outcome,
            started=told.start.time,
            duration_secs=told.end.duration_secs,
            path=path if kept else None,
            size_bytes=path.stat().st_size if kept else 0,
            notes=told.end.notes,
        )

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        summary.write(terminalreporter, self.settings, self.results, self.errors, self._shown)

    def _shown(self, path: Path) -> str:
        """`path` as a person who has started pytest types it."""
        return os.path.relpath(path, self.config.invocation_params.dir)


def _worker(report: pytest.TestReport) -> str:
    node: Any = getattr(report, "node", None)
    return str(node.gateway.id) if node is not None else "main"

"""Defines the state of the test that runs in this process. The recorder and the modules that it calls share it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mpr.pytest_plugin.options import TestOptions

if TYPE_CHECKING:
    from mpr.pytest_plugin.recording.test_stream import TestStream


SETUP, CALL, TEARDOWN = "setup", "call", "teardown"


@dataclass(kw_only=True)
class RunningTest:
    """The state of the running test.

    Attributes
    ----------
    item, options, attempt:
        The test, the options of its recording, and its attempt (from 0).
    path, key:
        The path of the recording, and the same path relative to the run's folder, which the journal needs.
    stream:
        The stream that writes the recording.
    started, clock:
        The begin of the test, in seconds since the Unix epoch, and in seconds of `time.perf_counter`.
    phases:
        The name of each phase that has begun (setup, call, teardown), and its begin in seconds since the Unix epoch.
    outcomes:
        The outcome of each phase that has ended, by the name of the phase.
    failures:
        The name of each phase that failed, with pytest's text about the failure.
    notes:
        Notes for readers of the recording: which rows are not in it, and why.
    last_report:
        The last report of pytest about a phase.
    logged:
        Whether rows were logged since the last flush, which may not be on the disk yet.
    sections:
        The number of pieces of output, captured by pytest, that are in the recording already.
    """

    item: pytest.Item
    options: TestOptions
    attempt: int
    path: Path
    key: str
    stream: TestStream
    started: float
    clock: float
    phases: list[tuple[str, float]] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    last_report: pytest.TestReport | None = None
    logged: bool = False
    sections: int = 0

    @property
    def is_here(self) -> bool:
        """Whether the test runs in this process. False in a process that the test has forked."""
        return self.stream.pid == os.getpid()

    def note_rows(self) -> None:
        """Note that rows were logged, so that the end of the phase flushes them to the disk."""
        self.logged = True

    def take_logged(self) -> bool:
        """Return whether rows were logged since the last call, and set `logged` to False."""
        logged, self.logged = self.logged, False
        return logged

    def new_output(self) -> list[tuple[str, str, str]]:
        """Return the pieces of output that pytest has captured since the last call, each as (phase, kind, text)."""
        sections: list[tuple[str, str, str]] = getattr(self.item, "_report_sections", [])
        before, self.sections = self.sections, len(sections)
        return sections[before:]

    def raised(self, phase: str, error: BaseException) -> None:
        """Set the outcome of `phase`, which the exception `error` has ended.

        pytest's report also has the outcome. But for some errors it comes too late, or never comes.
        """
        if isinstance(error, pytest.skip.Exception):
            self.outcomes[phase] = "skipped"
        elif isinstance(error, KeyboardInterrupt | pytest.exit.Exception):
            self.outcomes[phase] = "interrupted"
        else:
            self.outcomes[phase] = "failed"
            if phase == TEARDOWN:
                text = self.item.repr_failure(pytest.ExceptionInfo.from_exception(error))
                self.failures.append((phase, str(text)))

    def failed_in_part(self, report: pytest.TestReport) -> None:
        """Count the test as failed, because `report` says that a part of it has failed: a subtest.

        Does nothing if `report` is the last report about the test itself.
        """
        if report is self.last_report:
            return
        self.outcomes["subtests"] = "failed"
        if all(text != report.longreprtext for _, text in self.failures):
            self.failures.append(("subtest", report.longreprtext))

    def reported(self, report: pytest.TestReport) -> None:
        """Take the outcome of a phase from pytest's report.

        The report overrides the outcome that `raised` has set. For example, an expected failure has not failed there.
        """
        phase = report.when or CALL
        self.last_report = report
        self.outcomes[phase] = report.outcome
        if report.failed:
            self.failures.append((phase, report.longreprtext))

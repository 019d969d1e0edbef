"""Defines the state of the test that runs in this process.

Covers: the phases, outcomes, failures and captured output of the test.
Does not cover: writing them into the recording (`test_rows.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from mpr.pytest_plugin.options import TestOptions
from mpr.pytest_plugin.recording import test_facts
from mpr.pytest_plugin.recording.system import System
from mpr.pytest_plugin.results import FailedPhase, GoldenChange

if TYPE_CHECKING:
    from mpr.pytest_plugin.recording.test_stream import TestStream


SETUP, CALL, TEARDOWN = "setup", "call", "teardown"


@dataclass(kw_only=True)
class RunningTest:
    """Holds the state of the running test.

    Attributes
    ----------
    item, options, attempt:
        The test, the options of its recording, and its attempt (from 0).
    path, key:
        The path of the recording, and the same path relative to the run's folder, which the journal needs.
    stream:
        The stream that writes the recording.
    started, clock:
        The time when the test began: in seconds since the Unix epoch, and as a value of `time.perf_counter`.
    phases:
        The name of each phase that has begun (setup, call, teardown), and its start in seconds since the Unix epoch.
    outcomes:
        The outcome of each phase that has ended: "passed", "failed", "skipped" or "interrupted". A failed subtest and
        an interruption of the test have the keys "subtests" and "interrupted".
    failed:
        The name of each phase that failed (or "subtest"), with pytest's report of it.
    explained:
        Why each phase has failed. Empty until `explain` is called, and if nothing has failed.
    goldens:
        The golden recordings that differed from the rows of the test.
    notes:
        Notes for readers of the recording: which rows are missing, and why.
    last_report:
        The last report of pytest about a phase.
    logged:
        True if rows were logged since the last flush, and may not be on the disk yet.
    sections:
        The number of pieces of output, captured by pytest, that are in the recording already.
    """

    item: pytest.Item
    options: TestOptions
    attempt: int
    path: str
    key: str
    stream: TestStream
    started: float
    clock: float
    phases: list[tuple[str, float]] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)
    failed: list[tuple[str, pytest.TestReport]] = field(default_factory=list)
    explained: tuple[FailedPhase, ...] = ()
    goldens: list[GoldenChange] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    last_report: pytest.TestReport | None = None
    logged: bool = False
    sections: int = 0

    @property
    def is_here(self) -> bool:
        """True if the test runs in this process. False in a process that the test has forked."""
        return self.stream.pid == System.getpid()

    def note_rows(self) -> None:
        """Set `logged`, so that the end of the phase flushes the logged rows to the disk."""
        self.logged = True

    def take_logged(self) -> bool:
        """Return True if rows were logged since the last call of this method, and set `logged` to False."""
        logged, self.logged = self.logged, False
        return logged

    def new_output(self) -> list[tuple[str, str, str]]:
        """Return the pieces of output that pytest has captured since this method was last called; empty if none.

        Each piece is (phase, kind, text). The kind is for example "stdout", "stderr" or "log".
        """
        sections: list[tuple[str, str, str]] = getattr(self.item, "_report_sections", [])
        before, self.sections = self.sections, len(sections)
        return sections[before:]

    def raised(self, phase: str, error: BaseException) -> None:
        """Set the outcome of `phase`, which the exception `error` has ended.

        If pytest reports this phase later, its report overrides the outcome (`reported`). pytest usually does not
        report an interruption.
        """
        if isinstance(error, pytest.skip.Exception):
            self.outcomes[phase] = "skipped"
        elif isinstance(error, KeyboardInterrupt | pytest.exit.Exception):
            self.outcomes[phase] = "interrupted"
        else:
            self.outcomes[phase] = "failed"

    def failed_in_part(self, report: pytest.TestReport) -> None:
        """Note that a subtest of the test has failed. `report` is pytest's report about the subtest.

        Does nothing if `report` is `last_report`, because that report is about a whole phase.
        """
        if report is self.last_report:
            return
        self.outcomes["subtests"] = "failed"
        self.failed.append(("subtest", report))

    def reported(self, report: pytest.TestReport) -> None:
        """Set the outcome of a phase to that of `report`, which is pytest's report about this phase.

        The report overrides the outcome that `raised` has set. For example, the report of an expected failure (`xfail`)
        says "skipped". A failed phase is added to `failed`.
        """
        phase = report.when or CALL
        self.last_report = report
        self.outcomes[phase] = report.outcome
        if report.failed:
            self.failed.append((phase, report))

    def failures(self) -> list[tuple[str, str]]:
        """Return pairs of the name of a phase that failed, and pytest's text about the failure. Each text occurs once.

        Call this method only at the end of the test, because until then the test may have replaced functions of pytest.
        """
        found: dict[str, str] = {}
        for phase, failure in self.failed:
            found.setdefault(failure.longreprtext, phase)
        return [(phase, text) for text, phase in found.items()]

    def explain(self) -> None:
        """Set `explained` from `failed`. Call this method only at the end of the test, like `failures`."""
        if self.failed:
            self.explained = test_facts.failures_of(self.failed, str(self.item.config.rootpath))

"""The test that runs: what is known of it until now."""

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
    """The test that runs.

    Attributes
    ----------
    item, options, attempt:
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
    last_report:
        What pytest has said last of a phase.
    logged:
        Whether there are rows that may not be on the disk.
    sections:
        How many pieces of captured output the recording has.
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
        """Whether it runs in this very process; not so in one that it has forked."""
        return self.stream.pid == os.getpid()

    def raised(self, phase: str, error: BaseException) -> None:
        """`phase` has ended with `error`: for what pytest reports too late, or not at all."""
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
        """`report` is that of a subtest, unless it is the test's own."""
        if report is self.last_report:
            return
        self.outcomes["subtests"] = "failed"
        if all(text != report.longreprtext for _, text in self.failures):
            self.failures.append(("subtest", report.longreprtext))

    def reported(self, report: pytest.TestReport) -> None:
        """What pytest says of a phase, which knows of expected failures."""
        phase = report.when or CALL
        self.last_report = report
        self.outcomes[phase] = report.outcome
        if report.failed:
            self.failures.append((phase, report.longreprtext))

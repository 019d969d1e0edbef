"""Defines the result of a recorded test.

Covers: the result of one attempt (one execution) of a test, with its phases, failures and golden recordings.
Does not cover: the events in a journal, from which a result is made (`journal.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPhase:
    """Says why one phase of a test, or a subtest, has failed.

    Attributes
    ----------
    phase:
        "setup", "call", "teardown", or "subtest".
    message:
        The error in one line, such as "AssertionError: assert 1 == 2".
    where:
        The file and the line of the error, such as "tests/test_a.py:12"; empty if pytest does not say.
    source:
        The line of source code at which the error was raised; empty if pytest does not show it.
    text:
        The text of pytest about the failure, with the traceback. The middle of a very long text is left out.
    """

    phase: str
    message: str
    where: str = ""
    source: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Holds one phase of a test: its name, its outcome, and its duration in seconds (None if it has not ended).

    The outcome is "passed", "failed", "skipped", "interrupted" or "crashed".
    """

    name: str
    outcome: str
    duration_secs: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenChange:
    """Says that the rows of a test differ from its golden recording.

    Attributes
    ----------
    name:
        The path of the golden recording, relative to the folder in which pytest was started.
    before, after:
        The path of a copy of the golden recording before any change, and the path of a file with the new rows. These
        paths are relative to the run's folder.
    written:
        True if the new rows have replaced the golden recording.
    first:
        A text that describes the first difference.
    timeline, time:
        The first difference that has a time: the name of its timeline, and its time as the SDK's integer (nanoseconds,
        or a sequence number). None if no difference has a time.
    before_picture, after_picture:
        The paths of pictures of `before` and `after`; None if there is no picture.
    """

    name: str
    before: str
    after: str
    written: bool
    first: str = ""
    timeline: str | None = None
    time: int | None = None
    before_picture: Path | None = None
    after_picture: Path | None = None


@dataclass(frozen=True, kw_only=True)
class RecordedTest:
    """Holds the result of one attempt (one execution) of a recorded test.

    Attributes
    ----------
    nodeid, attempt, worker:
        The node id of the test, the attempt (from 0), and the worker of pytest-xdist that ran the test ("main" without
        pytest-xdist).
    outcome:
        "passed", "failed", "skipped", "interrupted", or "crashed" if the process of the test has died.
    started, duration_secs:
        The start of the test in seconds since the Unix epoch, and its duration in seconds (None if the test crashed).
    path:
        The path of the recording; None if the recording was not kept.
    size_bytes:
        The size of the recording in bytes; 0 if the recording was not kept.
    complete:
        True if all rows that were logged are in the recording, as far as mpr knows.
    notes:
        Notes for readers of the report: which rows are missing, and why, or why there is no picture.
    picture:
        The path of a picture of the recording; None if there is none.
    parameters:
        The values of the test's parameters as texts, by their names.
    failures:
        Why the test has failed. Empty if it has not failed.
    steps:
        The phases of the test that have begun, in their order.
    goldens:
        The golden recordings that differed from the rows of the test.
    """

    nodeid: str
    attempt: int
    worker: str
    outcome: str
    started: float
    duration_secs: float | None
    path: Path | None
    size_bytes: int = 0
    complete: bool = True
    notes: tuple[str, ...] = ()
    picture: Path | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    failures: tuple[FailedPhase, ...] = ()
    steps: tuple[Step, ...] = ()
    goldens: tuple[GoldenChange, ...] = ()

    @property
    def failed(self) -> bool:
        """True if `outcome` is "failed", "crashed" or "interrupted"."""
        return self.outcome in ("failed", "crashed", "interrupted")

"""Defines the result of a recorded test.

The `Controller` makes the results from the journals when all tests have ended. Other modules make the summary, the page
and the pictures from the results.

Covers: the result of one attempt (one execution) of a test, with its phases, failures and golden recordings.
Does not cover: the events in a journal, from which a result is made (`journal.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPhase:
    """Says why one phase of a test has failed.

    Attributes
    ----------
    phase:
        "setup", "call", "teardown", or "subtest".
    message:
        The first line of the error, such as "AssertionError: assert 1 == 2".
    where:
        The file and the line of the error, such as "tests/test_a.py:12"; empty if pytest does not say.
    source:
        The source code of this line; empty if pytest does not show it.
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
    """Holds one phase of a test: its name, its outcome, and its duration in seconds (None if it has not ended)."""

    name: str
    outcome: str
    duration_secs: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenChange:
    """Says that a golden recording was written again, or that the rows of a test differ from it.

    Attributes
    ----------
    name:
        The path of the golden recording, relative to the folder in which pytest was started.
    before, after:
        The paths of copies of the golden recording and of the new rows. In a journal, relative to the run's folder.
    written:
        True if the new rows have replaced the golden recording.
    first:
        A sentence that describes the first difference.
    timeline, time:
        The time of the first difference that has a time; None if there is none.
    before_picture, after_picture:
        The paths of pictures of both; None if there is none.
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
        Notes for readers of the recording: which rows are missing, and why.
    picture:
        The path of a picture of the recording; None if there is none.
    parameters:
        The values of the test's parameters as texts, by their names.
    failures:
        Why the test has failed. Empty if it has not failed.
    steps:
        The phases of the test that have begun, in their order.
    goldens:
        The golden recordings that were written again or differ.
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
        """True if the test has failed, has crashed or was interrupted."""
        return self.outcome in ("failed", "crashed", "interrupted")

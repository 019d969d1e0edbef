"""Defines the result of a recorded test.

The `Controller` makes the results from the journals when all tests have ended. Other modules make the summary, the page
and the pictures from the results.

Covers: the result of one attempt (one execution) of a test.
Does not cover: the events in a journal, from which a result is made (`journal.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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

    @property
    def failed(self) -> bool:
        """True if the test has failed, has crashed or was interrupted."""
        return self.outcome in ("failed", "crashed", "interrupted")

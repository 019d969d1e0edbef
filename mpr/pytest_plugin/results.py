"""Defines the result of a recorded test.

`Controller` makes the results from the journals when all tests have ended. The summary, the page and the pictures are
made from the results.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RecordedTest:
    """The result of one attempt of a recorded test.

    Attributes
    ----------
    nodeid, attempt, worker:
        The node id of the test, the attempt (from 0), and the worker of pytest-xdist that ran the test ("main" without
        pytest-xdist).
    outcome:
        "passed", "failed", "skipped", "interrupted", or "crashed" if the process of the test has died.
    started, duration_secs:
        The begin of the test in seconds since the Unix epoch, and its duration in seconds (None if the test crashed).
    path:
        The path of the recording; None if the recording was not kept.
    size_bytes:
        The size of the recording in bytes.
    complete:
        Whether all rows that were logged are in the recording, as far as mpr knows.
    notes:
        Notes for readers of the recording: which rows are not in it, and why.
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
        """Whether the test has failed, has crashed or was interrupted."""
        return self.outcome in ("failed", "crashed", "interrupted")

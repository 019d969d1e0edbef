"""Defines the result of a recorded test: a plain value, made from the journals, for summary, page and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RecordedTest:
    """One attempt of a test that was recorded.

    Attributes
    ----------
    nodeid, attempt, worker:
        The test, its attempt (from 0), and the worker of pytest-xdist in which it ran ("main" without xdist).
    outcome:
        "passed", "failed", "skipped", "interrupted", or "crashed" if its process has died.
    started, duration_secs:
        The time of its begin in seconds since the epoch, and its duration in seconds, None if it crashed.
    path:
        The path of its recording; None if that was not kept.
    size_bytes:
        The size of the recording.
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
        """Whether the test has not ended as it should."""
        return self.outcome in ("failed", "crashed", "interrupted")

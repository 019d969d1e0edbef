"""What became of the tests of a run: plain values, out of the journals, for whoever tells people of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RecordedTest:
    """One attempt of a test that was recorded.

    Attributes
    ----------
    nodeid, attempt, worker:
        Which test, the how-manieth attempt (from 0), and the worker of pytest-xdist it ran in ("main": none).
    outcome:
        "passed", "failed", "skipped", "interrupted", or "crashed" where its process has died.
    started, duration_secs:
        When it began, in seconds since the epoch, and how long it took; None for one that crashed.
    path:
        Its recording; None where that was not kept.
    size_bytes:
        Of the recording.
    complete:
        Whether all that was logged is in the recording, as far as mpr knows.
    notes:
        What a reader of the recording must know: what is not in it, and why.
    picture:
        A picture of the recording, where one was made.
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
        return self.outcome in ("failed", "crashed", "interrupted")

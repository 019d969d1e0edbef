"""The statistics of a live sink in `SharedRecording.stats()`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LiveSinkStatistics:
    """The progress of one live sink.

    Attributes
    ----------
    sink:
        Its kind and URL.
    state:
        'connected', 'waiting for a viewer', 'starting', 'not running' (a new attempt follows), 'finishing' or 'done'.
    sent_chunks:
        Chunks that the viewer or server of the present or last connection has been sent. What it has read of them, is
        known at the end only, when the state is 'done'.
    missing_chunks:
        Chunks of the recording that it has not: still to come, while the recording is open; missed, when it is closed.
    connections:
        How often a viewer was found, or a server started.
    """

    sink: str
    state: str
    sent_chunks: int
    missing_chunks: int
    connections: int

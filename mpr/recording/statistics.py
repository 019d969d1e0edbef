"""What `SharedRecording.stats()` returns."""

from __future__ import annotations

from dataclasses import dataclass

from mpr.live.statistics import LiveSinkStatistics


@dataclass(frozen=True, kw_only=True)
class RecordingStatistics:
    """What a recording has taken until now.

    Attributes
    ----------
    accepted_chunks, accepted_bytes:
        Chunks and encoded bytes that every durable sink has.
    rejected_messages:
        Messages from somebody who did not know the recording's secret, or that were no messages at all.
    processes:
        Processes that have joined, with this one where it has used `stream`, and those that have ended.
    torn_processes:
        Those of them that were killed, or left when the recording was closed, in the middle of logging: of what they
        logged at the very end, some may be missing.
    live_sinks:
        What each live sink has got, in the order of the sinks.
    """

    accepted_chunks: int
    accepted_bytes: int
    rejected_messages: int
    processes: int = 0
    torn_processes: int = 0
    live_sinks: tuple[LiveSinkStatistics, ...] = ()

"""The counts that `SharedRecording.stats()` returns."""

from __future__ import annotations

from dataclasses import dataclass

from mpr.live.statistics import LiveSinkStatistics


@dataclass(frozen=True, kw_only=True)
class RecordingStatistics:
    """Counts of a recording until now.

    Attributes
    ----------
    accepted_chunks, accepted_bytes:
        The chunks, and their encoded bytes, that every durable sink has.
    rejected_messages:
        The messages without the recording's secret, or that could not be decoded.
    processes:
        The processes that have joined, including those that have ended, and this one if it has used `stream`.
    torn_processes:
        The processes that ended while they logged, because they were killed or the recording was closed. Some of the
        last rows of such a process may be missing.
    live_sinks:
        Statistics of each live sink, in the order of the sinks.
    """

    accepted_chunks: int
    accepted_bytes: int
    rejected_messages: int
    processes: int = 0
    torn_processes: int = 0
    live_sinks: tuple[LiveSinkStatistics, ...] = ()

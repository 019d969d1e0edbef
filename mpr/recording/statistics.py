"""Defines the counts that `SharedRecording.stats()` returns."""

from __future__ import annotations

from dataclasses import dataclass

from mpr.live.statistics import LiveSinkStatistics


@dataclass(frozen=True, kw_only=True)
class RecordingStatistics:
    """The counts of a recording until now.

    Attributes
    ----------
    accepted_chunks, accepted_bytes:
        The number of chunks that every durable sink has, and the encoded bytes of these chunks.
    rejected_messages:
        The number of messages that did not have the recording's secret, or that could not be decoded.
    processes:
        The number of processes that have joined, including those that have ended. The parent process counts if it has
        used `stream`, or has logged from a function that is a task.
    torn_processes:
        The number of processes that ended while they logged, because they were killed or the recording was closed. Some
        of the last rows of such a process may be missing.
    live_sinks:
        The statistics of each live sink, in the order of the sinks.
    """

    accepted_chunks: int
    accepted_bytes: int
    rejected_messages: int
    processes: int = 0
    torn_processes: int = 0
    live_sinks: tuple[LiveSinkStatistics, ...] = ()

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
    counted_rows, accepted_rows:
        The number of rows that processes have counted when they logged, and the number of rows that came. Both numbers
        are known when a process has finished a memory file, and at its end. The second number may be higher, because
        rows of importers and properties are not counted when they are logged.
    lost_rows:
        The number of counted rows that did not come. If it is not 0, `close` raises `DeliveryError`.
    live_sinks:
        The statistics of each live sink, in the order of the sinks.
    """

    accepted_chunks: int
    accepted_bytes: int
    rejected_messages: int
    processes: int = 0
    torn_processes: int = 0
    counted_rows: int = 0
    accepted_rows: int = 0
    lost_rows: int = 0
    live_sinks: tuple[LiveSinkStatistics, ...] = ()

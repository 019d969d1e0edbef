"""Defines `RecordingStatistics`, the counts that `SharedRecording.stats()` returns.

Covers: the meaning of each count.
Does not cover: counting (`aggregator`), and the counts of a live sink (`live/statistics.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from mpr.live.statistics import LiveSinkStatistics


@dataclass(frozen=True, kw_only=True)
class RecordingStatistics:
    """The counts of a recording until now.

    Attributes
    ----------
    accepted_chunks, accepted_bytes:
        The number of chunks that every durable sink (such as a file) has, and the encoded bytes of these chunks.
    rejected_messages:
        The number of messages that mpr has dropped, because they did not have the recording's secret or could not be
        decoded.
    processes:
        The number of processes that have joined, including those that have ended. The parent process counts if it has
        used `stream`, or has run a function with `@mpr.task`.
    torn_processes:
        The number of processes that ended while they logged, because they were killed or the recording was closed. Some
        of the last rows of such a process may be missing.
    counted_rows, accepted_rows:
        The number of rows that processes have counted when they logged, and the number of rows that have arrived. The
        two numbers are updated when a process ends, and after about 256 MiB or 65,536 rows of a process.
        `accepted_rows` may be higher, because processes do not count the rows of importers and properties.
    lost_rows:
        The number of counted rows that have not arrived. If it is not 0, `close` raises `DeliveryError`, unless the
        `with` block has raised, or another error comes first.
    repeated_tasks:
        The number of times that another engine, such as Ray or Dask, has repeated a task whose rows were all in the
        recording. The rows of these repetitions were left out. With `Pool(engine=...)`, each chunk of tasks counts as
        one task.
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
    repeated_tasks: int = 0
    live_sinks: tuple[LiveSinkStatistics, ...] = ()

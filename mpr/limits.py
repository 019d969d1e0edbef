"""Holds the numbers that tune mpr: limits of memory and sizes in bytes, and of waits in seconds."""

from __future__ import annotations

MIB = 1024 * 1024

#: Encoded bytes that may wait in all outboxes of a recording together, divided among the workers. A larger number only
#: delays back-pressure: a disk that takes 1 GB/s writes 32 MiB in 30 ms.
OUTBOX_TOTAL_BYTES = 256 * MIB
#: The largest and smallest limit of one worker's outbox. Measured: with 8 MiB workers are as fast as with more. With
#: 32 MiB, a task that logs a few large images ends without waiting for the disk.
OUTBOX_MAX_BYTES = 32 * MIB
OUTBOX_MIN_BYTES = 4 * MIB
#: Raw bytes that `rr.log` may hand to the SDK before the worker flushes. Without this, the SDK would queue about 100
#: MiB in its batcher and 1024 messages before its file writer. These bytes come on top of a full outbox, raw and
#: encoded. Measured with a slow sink: with 8 MiB a worker takes at most 115 MB, with 32 MiB 195 MB, and is no faster.
UNFLUSHED_MAX_BYTES = 8 * MIB
#: Bytes that a worker logs before it checks its outbox and announces new bytes to the parent.
CHECK_EVERY_BYTES = 1 * MIB
#: A worker announces the bytes in its outbox this often. So rows of a task that still runs reach the sinks within the
#: time of the SDK's own flush tick (0.2 s) and this.
ANNOUNCE_EVERY_SECS = 0.05
#: After this many bytes an outbox is closed and replaced. Closing makes the SDK write the manifest of its chunks. If a
#: worker is killed, the parent has to read an outbox without a manifest once more, at about 300 MB/s.
OUTBOX_ROLL_BYTES = 256 * MIB
#: After this many rows it is replaced too, because the SDK keeps the manifest's entry for each chunk in memory.
OUTBOX_ROLL_ROWS = 65_536
#: Bytes of the manifests of one file that are kept in memory until it is closed; the others wait on its disk.
MANIFEST_STORE_MAX_BYTES = 16 * MIB
#: The largest number of work items that a worker has at a time.
WORK_ITEMS_MAX = 32
#: The largest message on a socket. Results may be large; a peer that announces more is disconnected.
MESSAGE_MAX_BYTES = 8 * 1024 * MIB
#: Bytes of a binary stream that are kept in memory; a larger stream moves to a temporary file.
STREAM_MEMORY_BYTES = 64 * MIB
#: A durable sink has failed if it takes no data for this time.
SINK_TIMEOUT_SECS = 60.0
#: Bytes that are kept in memory for late or slow live sinks, if no file has them; the oldest are dropped first.
REPLAY_MAX_BYTES = 256 * MIB
#: Bytes that are sent to a live sink at a time.
SLICE_BYTES = 4 * MIB
#: With `route="direct"`, the time that a worker waits for the SDK to write a task's rows to its sinks, and at its start
#: for a viewer to listen.
DIRECT_FLUSH_SECS = 10.0
DIRECT_CONNECT_SECS = 10.0
#: The time between two samples of a pool's processes.
TELEMETRY_EVERY_SECS = 1.0
#: The time that the end of a recording waits for live sinks that still take data.
LIVE_FAREWELL_SECS = 3.0


def outbox_limit(workers: int) -> int:
    """Return the bytes that each of `workers` outboxes may hold."""
    return max(OUTBOX_MIN_BYTES, min(OUTBOX_MAX_BYTES, OUTBOX_TOTAL_BYTES // workers))

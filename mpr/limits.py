"""Holds the numbers that tune mpr: limits of memory and of sizes in bytes, and limits of waits in seconds.

An outbox is a file in memory. A worker writes its encoded rows into the outbox, and the parent copies the rows to the
sinks. A caller gets the result of a task only after all durable sinks (such as files) have the rows of the task. No
result waits for a live sink (such as a viewer).
"""

from __future__ import annotations

MIB = 1024 * 1024

#: Encoded bytes that may wait in all outboxes of a recording together, divided among the workers. If an outbox is full,
#: `rr.log` waits (back-pressure). With a larger number, `rr.log` would only wait later. For comparison: a disk that
#: takes 1 GB/s writes 32 MiB in 30 ms.
OUTBOX_TOTAL_BYTES = 256 * MIB
#: The largest and the smallest limit of one worker's outbox. Measured: workers with 8 MiB are as fast as with more. If
#: the outbox has 32 MiB, a task that logs a few large images ends without waiting for the disk.
OUTBOX_MAX_BYTES = 32 * MIB
OUTBOX_MIN_BYTES = 4 * MIB
#: Raw bytes that `rr.log` may hand to the SDK before the worker flushes. Without this limit, the SDK would queue about
#: 100 MiB in its batcher and 1024 messages before its file writer. A worker needs memory for these bytes, raw and
#: encoded, in addition to a full outbox. Measured with a slow sink: a worker takes at most 115 MB with 8 MiB. It takes
#: 195 MB with 32 MiB, and is no faster.
UNFLUSHED_MAX_BYTES = 8 * MIB
#: Bytes that a worker logs before it checks its outbox and announces new bytes to the parent.
CHECK_EVERY_BYTES = 1 * MIB
#: The time between two announcements of the bytes in an outbox by its worker. So the rows of a task that still runs
#: reach the sinks within this time plus the flush tick of the SDK (0.2 s).
ANNOUNCE_EVERY_SECS = 0.05
#: After this many bytes an outbox is closed and replaced. Closing makes the SDK write the manifest of the outbox, which
#: is a table of its chunks. If a worker is killed, its outbox has no manifest. To make the manifest, the parent then
#: reads the rows once more, at about 300 MB/s.
OUTBOX_ROLL_BYTES = 256 * MIB
#: After this many rows an outbox is replaced too, because the SDK keeps a manifest entry for each chunk in memory.
OUTBOX_ROLL_ROWS = 65_536
#: Bytes of manifests that are kept in memory for one file until the file is closed. Further manifests wait on the disk,
#: in the folder of the file.
MANIFEST_STORE_MAX_BYTES = 16 * MIB
#: The largest number of work items that a worker has at a time. A work item is one or several tasks in one message.
WORK_ITEMS_MAX = 32
#: The largest message on a socket. The limit is high, because results may be large. A peer that announces a larger
#: message is disconnected.
MESSAGE_MAX_BYTES = 8 * 1024 * MIB
#: The largest frame of a stream. A frame that claims more is damage, because no message could carry it.
FRAME_MAX_BYTES = MESSAGE_MAX_BYTES
#: Bytes of a binary stream that are kept in memory. A larger stream is moved to a temporary file.
STREAM_MEMORY_BYTES = 64 * MIB
#: If a durable sink takes no data for this time, the sink has failed.
SINK_TIMEOUT_SECS = 60.0
#: Bytes that are kept in memory for late or slow live sinks, if no file has these bytes. The oldest bytes are dropped
#: first.
REPLAY_MAX_BYTES = 256 * MIB
#: Bytes that are sent to a live sink at a time.
SLICE_BYTES = 4 * MIB
#: Two limits for `route="direct"`, in which workers write to the sinks themselves. The first is the longest time that a
#: worker waits until the SDK has written a task's rows. The second is the longest time that a worker waits at its start
#: until a viewer listens.
DIRECT_FLUSH_SECS = 10.0
DIRECT_CONNECT_SECS = 10.0
#: The longest time that a process waits for the answer of the recording that it joins by itself. A process that is
#: stopped, or whose native code keeps the GIL, answers later.
JOIN_PATIENCE_SECS = 120.0
#: The longest time that the end of a recording waits for the last rows of processes that have joined.
JOINED_FAREWELL_SECS = 5.0
#: The longest time that `os._exit` waits for the rows of a process that has joined. Rows that are flushed by then
#: survive the end of the process.
LEAVE_SECS = 10.0
#: The time between two samples of a pool's processes.
TELEMETRY_EVERY_SECS = 1.0
#: The longest time that the end of a recording waits for live sinks that still take data.
LIVE_FAREWELL_SECS = 3.0


def outbox_limit(workers: int) -> int:
    """Return how many bytes each of `workers` outboxes may hold."""
    return max(OUTBOX_MIN_BYTES, min(OUTBOX_MAX_BYTES, OUTBOX_TOTAL_BYTES // workers))

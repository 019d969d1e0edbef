"""Holds the numbers that tune mpr: sizes in bytes, times in seconds, and numbers of rows and of work items.

Covers: the numbers that several packages use, or that a developer may want to change.
Does not cover: other numbers that only one module uses.

A worker writes its encoded rows into an outbox, which is a file in memory. It announces new rows by a message that says
up to which byte the outbox is written. The parent then copies these bytes to the sinks, which are the destinations of
the rows. A durable sink is a file, a folder or a stream: it has the rows of a task before the caller gets the result. A
live sink is a viewer or a server: no result waits for it.
"""

from __future__ import annotations

MIB = 1024 * 1024

#: Encoded bytes that may wait in all outboxes of a recording together. Each worker gets a part. If the outbox of a
#: worker is full, its `rr.log` waits (back-pressure). With a larger number, `rr.log` would only begin to wait later.
#: For comparison: a disk that takes 1 GB/s writes 32 MiB in about 30 ms.
OUTBOX_TOTAL_BYTES = 256 * MIB
#: The largest and the smallest number of bytes that may wait in the outbox of one worker. Measured: workers with 8 MiB
#: are as fast as with more. With 32 MiB, a task that logs a few large images ends without waiting for the disk. With
#: more than 64 workers, each still has the smallest limit, so together they may have more than `OUTBOX_TOTAL_BYTES`.
OUTBOX_MAX_BYTES = 32 * MIB
OUTBOX_MIN_BYTES = 4 * MIB
#: Bytes of arguments that `rr.log` may hand to the SDK before the worker flushes the SDK. Without this limit, the SDK
#: would queue about 100 MiB in its batcher, and 1024 messages before its file writer. A worker needs memory for these
#: bytes in addition to a full outbox, once as they are and once encoded. Measured with a slow sink: with this limit at
#: 8 MiB, a worker takes at most 115 MB of memory. With 32 MiB it takes 195 MB and is no faster.
UNFLUSHED_MAX_BYTES = 8 * MIB
#: Bytes that a worker logs before it checks its outbox and announces new bytes to the parent.
CHECK_EVERY_BYTES = 1 * MIB
#: The time between two announcements of a worker. The SDK flushes by itself every 0.2 s. So rows of a task that still
#: runs reach the sinks within about 0.25 s.
ANNOUNCE_EVERY_SECS = 0.05
#: The same if somebody may watch the rows come: if a sink is a viewer, a server or a stream. Rows of a task that still
#: runs reach such a sink within about 0.05 s if a CPU is free. The price: the SDK makes more and smaller chunks.
WATCHED_FLUSH_TICK_SECS = 0.01
WATCHED_ANNOUNCE_EVERY_SECS = 0.02
#: After this many bytes, a worker closes its outbox and begins another one. When an outbox is closed, the SDK writes
#: its manifest, which is a table of its chunks. If a worker is killed, its last outbox has no manifest. To make one,
#: the parent must read the rows of this outbox once more, at about 300 MB/s. The limit keeps this time below 1 s.
OUTBOX_ROLL_BYTES = 256 * MIB
#: After this many rows, a worker begins another outbox too, because the SDK keeps a manifest entry in memory for each
#: chunk of an outbox.
OUTBOX_ROLL_ROWS = 65_536
#: Bytes of manifests that are kept in memory for one file until the file is closed. Further manifests wait on the disk,
#: in the folder of the file.
MANIFEST_STORE_MAX_BYTES = 16 * MIB
#: The largest number of work items that a worker has at a time. A work item is one or several tasks in one message.
WORK_ITEMS_MAX = 32
#: The largest message on a socket. The limit is high, because results may be large. If a process begins a larger
#: message, its connection is closed.
MESSAGE_MAX_BYTES = 8 * 1024 * MIB
#: The largest frame of a stream. A frame is one message of the `.rrd` format with its header. If a header names a
#: larger size, the stream is damaged, because no message on a socket could have carried such a frame.
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
#: Two limits for `route="direct"`, with which workers write to the sinks themselves. The first is the longest time that
#: a worker waits until the SDK has written the rows of a task. The second is the longest time that a worker waits at
#: its start until a viewer listens.
DIRECT_FLUSH_SECS = 10.0
DIRECT_CONNECT_SECS = 10.0
#: The longest time that a process waits for the answer of a recording when a decorated or wrapped function joins it.
#: The answer comes late if the process of the recording is stopped, or if its native code keeps the GIL.
JOIN_PATIENCE_SECS = 120.0
#: The longest time that the end of a recording waits for the last rows of processes that have joined.
JOINED_FAREWELL_SECS = 5.0
#: The longest time that `os._exit` waits until the sinks have the rows of a process that has joined. Rows that the SDK
#: has written to the outbox by then survive the end of the process.
LEAVE_SECS = 10.0
#: The time between two measurements of a pool's processes for its telemetry.
TELEMETRY_EVERY_SECS = 1.0
#: The longest time that the end of a recording waits for live sinks that still take data.
LIVE_FAREWELL_SECS = 3.0


def outbox_limit(workers: int) -> int:
    """Return the number of bytes that may wait in the outbox of each of `workers` workers (1 or more).

    The result lies between `OUTBOX_MIN_BYTES` and `OUTBOX_MAX_BYTES`.
    """
    return max(OUTBOX_MIN_BYTES, min(OUTBOX_MAX_BYTES, OUTBOX_TOTAL_BYTES // workers))

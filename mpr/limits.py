"""Limits of memory, sizes and waits, in bytes and seconds: the numbers that tune mpr, in one place."""

from __future__ import annotations

MIB = 1024 * 1024

#: Encoded bytes that may wait in all outboxes of a recording together, divided among the workers. More only delays
#: back-pressure: 32 MiB are 30 ms of a disk that takes 1 GB/s.
OUTBOX_TOTAL_BYTES = 256 * MIB
#: The most and the least that one worker's outbox may hold. Measured: 8 MiB already costs no speed; 32 MiB lets a task
#: of a few large images end without waiting for the disk.
OUTBOX_MAX_BYTES = 32 * MIB
OUTBOX_MIN_BYTES = 4 * MIB
#: Raw bytes that `rr.log` may hand to the SDK before the worker flushes. The SDK itself would queue about 100 MiB in
#: its batcher and 1024 messages before its file writer. What waits there comes on top of a full outbox, raw and
#: encoded: measured with a slow sink, 8 MiB are 115 MB per worker at most, 32 MiB are 195 MB, and no faster.
UNFLUSHED_MAX_BYTES = 8 * MIB
#: How much a worker logs between two looks at its outbox, and how often it announces what it wrote.
CHECK_EVERY_BYTES = 1 * MIB
#: Rows of a task that is still running reach the sinks within about the SDK's own flush tick (0.2 s) and this.
ANNOUNCE_EVERY_SECS = 0.05
#: An outbox is closed for a new one after this many bytes: closing makes the SDK write the manifest of its chunks, and
#: what a killed worker leaves without one has to be read again (about 300 MB/s).
OUTBOX_ROLL_BYTES = 256 * MIB
#: And after so many rows: until then the SDK in the worker keeps what the manifest says of each chunk.
OUTBOX_ROLL_ROWS = 65_536
#: Manifests of one file that are kept in memory until it is closed; the others wait on its disk.
MANIFEST_STORE_MAX_BYTES = 16 * MIB
#: The most work items that a worker has at a time.
WORK_ITEMS_MAX = 32
#: The largest message on the wire. A result may be large; a peer that announces more is cut off.
MESSAGE_MAX_BYTES = 8 * 1024 * MIB
#: Bytes of a binary stream that are kept in memory before all of it goes to a temporary file.
STREAM_MEMORY_BYTES = 64 * MIB
#: A durable sink that takes nothing for so long has failed.
SINK_TIMEOUT_SECS = 60.0
#: What is kept for live sinks that are late or slow, where no file has it: in memory, the oldest is dropped first.
REPLAY_MAX_BYTES = 256 * MIB
#: How much of it goes to a live sink at a time.
SLICE_BYTES = 4 * MIB
#: With `route="direct"`, how long a worker waits for the SDK to bring a task's rows to its sinks, and for a viewer to
#: listen when it starts.
DIRECT_FLUSH_SECS = 10.0
DIRECT_CONNECT_SECS = 10.0
#: How often the processes of a pool are looked at.
TELEMETRY_EVERY_SECS = 1.0
#: How long the end of a recording waits for live sinks that still take data.
LIVE_FAREWELL_SECS = 3.0


def outbox_limit(workers: int) -> int:
    """Bytes that each of `workers` outboxes may hold."""
    return max(OUTBOX_MIN_BYTES, min(OUTBOX_MAX_BYTES, OUTBOX_TOTAL_BYTES // workers))

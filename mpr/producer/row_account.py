"""Counts the rows that the SDK has accepted for the shared recording, so that the parent notices if rows are missing.

Covers: which rows are counted, and the numbers at a flush and at the end of an outbox.
Does not cover: the comparison with the rows that the parent has read (`aggregator/row_balance.py`).

A row is counted after the SDK's call has returned, and only if it is certain that the row belongs to the shared
recording. So the outboxes must have at least as many rows as were counted. If they have fewer rows, rows are lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpr.transport.status_page import COUNTED_ROWS, FLUSHED_COUNTED_ROWS

if TYPE_CHECKING:
    import rerun as rr


class RowAccount:
    """Counts the rows of one process for the shared recording.

    Any thread may call the methods, because CPython with a GIL does not switch threads within the `+=` of a number.

    Parameters
    ----------
    counters:
        The numbers in the status page. The parent reads the counts there if this process has died.
    stream:
        The stream of the shared recording.
    is_on:
        True if the rows of this process reach the parent through outboxes. If it is false, no row is counted.

    Attributes
    ----------
    counters:
        The numbers in the status page. `router` adds the counted rows to `counters[COUNTED_ROWS]`.
    handle:
        `router` counts the rows of each call to the recording with this handle. It is the SDK's handle of the shared
        recording, or another object if no row is to be counted.
    """

    __slots__ = ("_kept", "counters", "handle")

    def __init__(self, counters: memoryview, stream: rr.RecordingStream, *, is_on: bool) -> None:
        import rerun as rr

        # If nothing is to be counted, the handle is a new object, which is the recording of no call. The SDK drops rows
        # of a recording that is not enabled (`RERUN=off`), so these rows are not counted.
        self.handle: Any = stream.to_native() if is_on and rr.is_enabled(stream) else object()
        self.counters: memoryview = counters
        # The count at the moment when a task gave the stream another sink; None if the SDK writes into the outbox.
        self._kept: int | None = None

    def stop(self) -> None:
        """Count no more rows, because mpr can no longer be certain to which recording a logging call belongs."""
        self.handle = object()

    def settled(self) -> int:
        """Return how many of the counted rows will be in the outboxes after the next flush of the SDK."""
        return self.counters[COUNTED_ROWS] if self._kept is None else self._kept

    def flushed(self, rows: int) -> None:
        """Write into the status page that the first `rows` of the counted rows are in the outboxes."""
        self.counters[FLUSHED_COUNTED_ROWS] = rows

    def detached(self) -> None:
        """Keep the present count, because user code is about to give the stream another sink, which gets the next rows.

        Until `attached`, `settled` returns this count. A second call before `attached` does nothing.
        """
        if self._kept is None:
            self._kept = self.counters[COUNTED_ROWS]

    def attached(self) -> None:
        """Reset the count to its value at the call of `detached`, because the SDK writes into an outbox again.

        The rows that the other sink got are then not counted. Does nothing if `detached` was not called.
        """
        if self._kept is not None:
            self.counters[COUNTED_ROWS], self._kept = self._kept, None

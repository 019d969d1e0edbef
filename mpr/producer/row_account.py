"""Counts the rows that the SDK has taken for the shared recording, so that the parent can notice if rows are missing.

Covers: which rows count, and the numbers at a flush and at the end of an outbox.
Does not cover: the comparison with the rows that have come (`aggregator/row_balance.py`).

A row counts after the SDK's call has returned, and only if it is certain that the row belongs to the shared recording.
So the outboxes have at least as many rows as were counted. If they have fewer rows, rows are lost. The rows of some
calls cannot be counted (importers, properties, blueprints). Such calls only add rows to the outboxes, so they never
look like a loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpr.transport.status_page import COUNTED_ROWS, FLUSHED_COUNTED_ROWS

if TYPE_CHECKING:
    import rerun as rr


class RowAccount:
    """Counts the rows of one process.

    Any thread may call the methods, because CPython does not switch threads within a `+=`.

    Parameters
    ----------
    counters:
        The numbers in the status page. The parent reads the counts there if this process has died.
    stream:
        The stream of the shared recording.
    is_on:
        Whether the rows of this process come to the parent through outboxes. If not, no row is counted.

    Attributes
    ----------
    counters:
        The numbers in the status page, for `router`, which adds the rows of each logging call.
    handle:
        The SDK's handle of the shared recording. A logging call without an argument `recording` logs to the recording
        whose handle is current.
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
        """Count no more rows, because it is not certain any more to which recording they belong."""
        self.handle = object()

    def settled(self) -> int:
        """Return how many of the counted rows will be in the outboxes after the next flush of the SDK."""
        return self.counters[COUNTED_ROWS] if self._kept is None else self._kept

    def flushed(self, rows: int) -> None:
        """Note that the first `rows` of the counted rows are in the outboxes."""
        self.counters[FLUSHED_COUNTED_ROWS] = rows

    def detached(self) -> None:
        """Note that a task is about to give the stream another sink, which gets the rows from now on."""
        if self._kept is None:
            self._kept = self.counters[COUNTED_ROWS]

    def attached(self) -> None:
        """Take the rows that another sink got out of the count, because the SDK writes into an outbox again."""
        if self._kept is not None:
            self.counters[COUNTED_ROWS], self._kept = self._kept, None

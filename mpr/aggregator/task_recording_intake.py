"""Receives the rows of recordings that the tasks of one process make themselves. These rows come in messages only."""

from __future__ import annotations

from collections.abc import Callable

from mpr.aggregator.fanout import Fanout
from mpr.aggregator.row_balance import RowTotals, TaskRecordingBalance
from mpr.rrd import checks
from mpr.rrd.segment import MessageBytes, Segment
from mpr.transport.messages import TASK_RECORDING_ROWS, Accepted, Hello, TaskRecordingRows


class TaskRecordingIntake:
    """Passes the rows of recordings that tasks make themselves to the sinks.

    Only the aggregator's thread uses this object.

    Parameters
    ----------
    hello:
        The first message of the process.
    fanout:
        Hands the rows to the sinks.
    answer:
        Sends an answer to the process.
    totals:
        The numbers of rows of the whole recording.
    """

    def __init__(self, hello: Hello, fanout: Fanout, answer: Callable[[Accepted], None], totals: RowTotals) -> None:
        self._hello = hello
        self._fanout = fanout
        self._answer = answer
        self._balance = TaskRecordingBalance(totals)
        self._bytes = 0

    def take(self, message: TaskRecordingRows, *, wanted: bool) -> str:
        """Pass the stream of `message` to all sinks. If `wanted` is False, drop it.

        In any case, tell the process how many bytes were processed until now. Returns a sentence if rows that the
        process has counted are missing, else an empty text. Raises `FormatError` if the data is no complete stream, or
        if the count is impossible.
        """
        data = bytes(message.data)
        try:
            if not wanted:
                return ""
            came = self._write(data) if data else 0
            return "" if came is None else self._balance.compare(message.recording, message.counted, came)
        finally:
            # Answered in any case, because the process may wait until its earlier bytes are accepted.
            self._bytes += len(data)
            self._answer(Accepted(TASK_RECORDING_ROWS, self._bytes))

    def _write(self, data: bytes) -> int | None:
        """Write the stream `data` to all sinks. Returns the number of rows of its recording; None if not known."""
        frames, footer, store = checks.check_stream(data)
        outbox = self._fanout.new_outbox()
        self._fanout.write(Segment(outbox, MessageBytes(0, data), frames, store))
        self._fanout.add_manifests(self._hello, outbox, footer)
        return None if store is None else self._fanout.rows_in(footer, store)

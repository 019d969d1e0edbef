"""Takes the rows of recordings that the tasks of one producer make themselves. They come in messages only."""

from __future__ import annotations

from collections.abc import Callable

from mpr.aggregator.fanout import Fanout
from mpr.rrd import checks
from mpr.rrd.segment import MessageBytes, Segment
from mpr.transport.messages import TASK_RECORDING_ROWS, Accepted, Hello


class TaskRecordingIntake:
    """The parent's side of these recordings. Only the aggregator's thread uses this object.

    Parameters
    ----------
    hello:
        The hello of the producer.
    fanout:
        Hands the rows to the sinks.
    answer:
        Sends an answer to the producer.
    """

    def __init__(self, hello: Hello, fanout: Fanout, answer: Callable[[Accepted], None]) -> None:
        self._hello = hello
        self._fanout = fanout
        self._answer = answer
        self._bytes = 0

    def take(self, data: bytes, *, wanted: bool) -> None:
        """Hand `data` to all sinks: a whole stream, which is dropped if it is not `wanted`.

        Raises `FormatError` if it is no whole stream.
        """
        try:
            if wanted:
                self._write(data)
        finally:
            # Answered in any case, because the producer waits for room.
            self._bytes += len(data)
            self._answer(Accepted(TASK_RECORDING_ROWS, self._bytes))

    def _write(self, data: bytes) -> None:
        frames, footer, store = checks.check_stream(data)
        outbox = self._fanout.new_outbox()
        self._fanout.write(Segment(outbox, MessageBytes(0, data), frames, store))
        self._fanout.add_manifests(self._hello, outbox, footer)

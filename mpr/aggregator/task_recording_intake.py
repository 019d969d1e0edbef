"""Receives the rows of recordings that the tasks of one process make themselves. These rows come in messages only.

Covers: passing such rows to the sinks, and the answer to the process.
Does not cover: rows of the shared recording (`outbox_intake.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from mpr.aggregator.fanout import Fanout
from mpr.rrd import checks
from mpr.rrd.segment import MessageBytes, Segment
from mpr.transport.messages import TASK_RECORDING_ROWS, Accepted, Hello


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
    """

    def __init__(self, hello: Hello, fanout: Fanout, answer: Callable[[Accepted], None]) -> None:
        self._hello = hello
        self._fanout = fanout
        self._answer = answer
        self._bytes = 0

    def take(self, data: bytes, *, wanted: bool) -> None:
        """Pass `data`, a complete Rerun stream, to all sinks. If `wanted` is False, drop `data`.

        In any case, tell the process how many bytes were processed until now, because it may wait for this answer.
        Raises `FormatError` if `data` is no complete stream.
        """
        try:
            if wanted:
                self._write(data)
        finally:
            # Answered in any case, because the process may wait until its earlier bytes are accepted.
            self._bytes += len(data)
            self._answer(Accepted(TASK_RECORDING_ROWS, self._bytes))

    def _write(self, data: bytes) -> None:
        frames, footer, store = checks.check_stream(data)
        outbox = self._fanout.new_outbox()
        self._fanout.write(Segment(outbox, MessageBytes(0, data), frames, store))
        self._fanout.add_manifests(self._hello, outbox, footer)

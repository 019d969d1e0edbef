"""Announces to the parent how far the outbox was written, and sends results behind their rows.

Covers: the outbox that the SDK writes into, and all that the parent was told of it; change from one outbox to the next.
Does not cover: having the SDK write (`outbox_writer.py`), which results wait (`result_sender.py`).

All of it happens under one lock, which is held for a system call or a message, and never while waiting.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass

from mpr.limits import ANNOUNCE_EVERY_SECS
from mpr.producer.inbox import Inbox
from mpr.producer.recording_watch import RecordingWatch
from mpr.producer.result_sender import ResultSender
from mpr.transport.messages import Accepted, NewOutbox, Result, SegmentReady, Sync
from mpr.transport.outbox import Outbox
from mpr.transport.sockets import Connection

# How long to wait between two looks for the parent's answer (seconds).
_POLL_SECS = 0.001


@dataclass(slots=True)
class OpenOutbox:
    """Knows the outbox that the SDK writes into. Only `written` and `announced` change.

    Attributes
    ----------
    number:
        Its number among the outboxes of this process, counted from 0.
    bytes_before:
        The size of all outboxes before it.
    calls_before:
        How many logging calls there had been when it was made.
    retired:
        The outbox before it.
    written, announced:
        How far it was written at the last flush, and how far it was announced.
    """

    outbox: Outbox
    number: int = 0
    bytes_before: int = 0
    calls_before: int = 0
    retired: Outbox | None = None
    written: int = 0
    announced: int = 0

    @property
    def end(self) -> int:
        """How far it was written, as far as that is known."""
        return max(self.written, self.announced)


class Announcer:
    """Announces one producer's outboxes. Any thread may call.

    Parameters
    ----------
    connection, inbox, watch, results:
        Parts of the producer.
    outbox:
        The first outbox, which the parent knows.
    segment:
        Makes the message that announces an outbox up to an offset.

    Attributes
    ----------
    current:
        The outbox that the SDK writes into.
    """

    def __init__(
        self,
        connection: Connection,
        inbox: Inbox,
        watch: RecordingWatch,
        results: ResultSender,
        outbox: Outbox,
        segment: Callable[[OpenOutbox, int], SegmentReady],
    ) -> None:
        self._connection = connection
        self._inbox = inbox
        self._watch = watch
        self._results = results
        self._segment = segment
        self.current = OpenOutbox(outbox)
        self._lock = threading.Lock()
        #: The parent has the next outbox open.
        self._opened = threading.Event()
        self._syncs = itertools.count(1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._announce_often, name="mpr-announcer", daemon=True)

    def start(self) -> None:
        """Announce every `ANNOUNCE_EVERY_SECS` from now on."""
        self._thread.start()

    def _announce_often(self) -> None:
        # Rows of a task that runs go out without its help.
        while not self._stop.wait(ANNOUNCE_EVERY_SECS):
            self.announce()

    def announce(self) -> None:
        """Send the results that wait, and announce how far the outbox was written."""
        with self._lock:
            self._announce_all()

    def _announce_all(self) -> None:
        if self._results:
            # Rows of the task that runs come behind the results of those before it.
            self._announce_up_to(self._results.end)
            self._results.send()
        self._announce_up_to(self.current.outbox.size())

    def _announce_up_to(self, end: int) -> None:
        current = self.current
        if end <= current.announced:
            return
        if self._watch.is_gone():
            self._watch.report_lost_rows()
            current.outbox.release(0, end)
        else:
            self._connection.send(self._segment(current, end))
        current.announced = end

    def hand_over(self, result: Result, *, may_wait: bool) -> bool:
        """Send `result` behind the rows that were written; with `may_wait` perhaps later, with the next ones.

        Returns whether it waits: for `send_results`, or anything else that announces rows.
        """
        with self._lock:
            current = self.current
            waits = self._results.add(result, SegmentReady(current.number, 0, current.end), may_wait=may_wait)
            if not waits:
                self._announce_all()
        return waits

    def send_results(self) -> None:
        """Send the results that wait."""
        if self._results:
            self.announce()

    def request_sync(self) -> int:
        """Announce all that was written, and ask the parent to say when the sinks have it; returns the number of that.

        The numbers are sent in their order, so that an answer to one is an answer to all before it.
        """
        with self._lock:
            self._announce_all()
            number = next(self._syncs)
            self._connection.send(Sync(number))
        return number

    def position(self) -> tuple[int, int]:
        """Return the number of the outbox, and how far it was announced."""
        with self._lock:
            return self.current.number, self.current.announced

    def note_written(self) -> None:
        """Note that the SDK was flushed: results come behind all that it has written."""
        with self._lock:
            self.current.written = self.current.outbox.size()

    def written_bytes(self) -> int:
        """Return how many bytes the SDK has written until now, as far as that is known."""
        with self._lock:
            return self.current.bytes_before + self.current.end

    def accept(self, message: Accepted) -> None:
        """Take the parent's answer: it has opened the next outbox, or the sinks have accepted the bytes of this one."""
        with self._lock:
            if message.outbox == self.current.number + 1:
                self._opened.set()
            elif message.outbox == self.current.number:
                self.current.outbox.release(0, message.end)

    def have_opened(self, fresh: Outbox) -> None:
        """Have the parent open the next outbox, and wait until it has, or the recording is gone."""
        self._opened.clear()
        self._connection.send(NewOutbox(fresh.address))
        while not self._opened.wait(_POLL_SECS) and not self._watch.is_gone():
            self._inbox.take_answers()

    def switch_to(self, fresh: Outbox, calls_before: int) -> Outbox:
        """Announce the rest of the outbox, and go on with the next one; returns the old one."""
        with self._lock:
            self._announce_all()
            old = self.current
            self.current = OpenOutbox(fresh, old.number + 1, old.bytes_before + old.announced, calls_before, old.outbox)
            self._connection.send(SegmentReady(self.current.number, 0, 0))
            # The parent has its own descriptor, or the bytes. This process closes the old outbox at the next turn,
            # because another thread may be looking at it at this moment.
            if old.retired is not None:
                old.retired.close()
        return old.outbox

    def close(self) -> None:
        """End the thread that announces."""
        self._stop.set()
        self._thread.join()

    def release(self) -> None:
        """Close the outboxes of this process; the parent has opened its own."""
        self.current.outbox.close()
        if self.current.retired is not None:
            self.current.retired.close()

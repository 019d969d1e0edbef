"""Announces to the parent how many bytes the SDK has written into the outbox, and sends results after their rows.

Covers: the outbox that the SDK writes into, the part of it that was announced, and the change to the next outbox.
Does not cover: how rows get into the outbox (`outbox_writer.py`), which results wait (`result_sender.py`).
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from mpr.producer.deliveries import Deliveries
from mpr.producer.inbox import Inbox
from mpr.producer.recording_watch import RecordingWatch
from mpr.producer.result_sender import ResultSender
from mpr.threads import SimpleQueue
from mpr.transport.messages import Accepted, NewOutbox, Result, RowsCounted, SegmentReady, Sync
from mpr.transport.outbox import Outbox
from mpr.transport.sockets import Connection
from mpr.user_code import log as _log

# The pause between two looks for the parent's answer (seconds).
_POLL_SECS = 0.001
# The time after which the parent is asked again to open an outbox (seconds). It may have lacked descriptors before.
_ASK_AGAIN_SECS = 1.0


@dataclass(slots=True)
class OpenOutbox:
    """The outbox into which the SDK writes. Only `written` and `announced` change.

    Attributes
    ----------
    outbox:
        The file in memory.
    number:
        The number of the outbox among those of this process, counted from 0.
    bytes_before:
        The size of all earlier outboxes, in bytes.
    calls_before:
        The value of `LogCounters.entered` when the outbox became the current one.
    retired:
        The previous outbox, which stays open until the next change; None for the first outbox.
    written:
        The size of the outbox in bytes, as `Announcer.note_written` has stored it.
    announced:
        The number of bytes that were announced, or dropped because the recording is gone.
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
        """How many bytes count as written: the larger of `written` and `announced`. The outbox may have more bytes."""
        return max(self.written, self.announced)


class Announcer:
    """Announces the outboxes of one producer to the parent. A lock guards the state, because several threads use it.

    Parameters
    ----------
    connection, inbox, watch, results:
        The parts of the producer that send messages, receive answers, notice that the recording is gone, and send
        results.
    outbox:
        The first outbox. The parent already has its address.
    segment:
        `segment(outbox, end)` returns the message that announces `outbox` up to byte `end`.
    every_secs:
        The time without a wakeup after which the thread of this object announces, in seconds.

    Attributes
    ----------
    current:
        The outbox into which the SDK writes.
    """

    def __init__(
        self,
        connection: Connection,
        inbox: Inbox,
        watch: RecordingWatch,
        results: ResultSender,
        outbox: Outbox,
        segment: Callable[[OpenOutbox, int], SegmentReady],
        every_secs: float,
    ) -> None:
        self._connection = connection
        self._inbox = inbox
        self._watch = watch
        self._results = results
        self._segment = segment
        self._every_secs = every_secs
        self.current: OpenOutbox = OpenOutbox(outbox)
        self._lock = threading.Lock()
        #: Set when the parent has opened the next outbox.
        self._opened = threading.Event()
        #: Numbers the requests of `request_sync`.
        self.deliveries: Deliveries = Deliveries()
        #: Wakes the thread: True to announce now, False to end.
        self._wakeups: SimpleQueue[bool] = SimpleQueue()
        self._is_woken = False
        self._thread = threading.Thread(target=self._announce_often, name="mpr-announcer", daemon=True)

    def start(self) -> None:
        """Start the thread that announces every `every_secs` seconds, and each time that it is woken."""
        self._thread.start()

    def _announce_often(self) -> None:
        # In a thread, so that rows are announced even while a task makes no call of mpr.
        has_failed = False
        while self._next_wakeup():
            try:
                self.announce()
                self._inbox.take_answers()
            except Exception:  # noqa: BLE001  # such as a lack of descriptors: the next time may succeed
                if not has_failed:
                    has_failed = True
                    _log.exception("mpr cannot announce rows of this process at the moment, and goes on trying")

    def _next_wakeup(self) -> bool:
        """Wait up to `every_secs` seconds for a wakeup. Return True to announce now, False to end the thread."""
        try:
            goes_on = self._wakeups.get(timeout=self._every_secs)
        except queue.Empty:
            return True
        # Reset before the next announcement, because more rows may be written during this announcement.
        self._is_woken = False
        return goes_on

    def announce_soon(self) -> None:
        """Wake the announcer's thread, which then announces and receives the parent's answers.

        Takes no lock, because a signal handler may call this method while the interrupted code holds the lock.
        """
        if not self._is_woken:
            self._is_woken = True
            self._wakeups.put(True)

    def announce(self) -> None:
        """Send the results that wait in this process, and announce all bytes in the outbox.

        If the recording is gone, the bytes are dropped instead, and the first loss is logged.
        """
        with self._lock:
            self._announce_all()

    def _announce_all(self) -> None:
        if self._results:
            # Announce only the rows before these results. The rows of the running task are announced after the results.
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
        """Send `result` after the rows that were written before. Return True if it is kept instead, to be sent later.

        A result may be kept only if `may_wait` is true. It is sent with the next announcement.
        """
        with self._lock:
            current = self.current
            waits = self._results.add(result, SegmentReady(current.number, 0, current.end), may_wait=may_wait)
            if not waits:
                self._announce_all()
        return waits

    def send_results(self) -> None:
        """Call `announce`, which sends the results that wait in this process. Does nothing if no result waits."""
        if self._results:
            self.announce()

    def request_sync(self, keys: bytes = b"") -> int:
        """Announce all bytes in the outbox, and send a `Sync` with `keys`. Return the number of the `Sync`.

        The parent answers with `Synced`. The answers come in the order of the numbers.
        """
        with self._lock:
            self._announce_all()
            number = self.deliveries.begin()
            self._connection.send(Sync(number, keys))
        return number

    def position(self) -> tuple[int, int]:
        """Return the number of the current outbox, counted from 0, and the number of its bytes that were announced."""
        with self._lock:
            return self.current.number, self.current.announced

    def note_written(self) -> None:
        """Store the size of the outbox after a flush. Later results are sent after these bytes."""
        with self._lock:
            self.current.written = self.current.outbox.size()

    def written_bytes(self) -> int:
        """Return the size of all outboxes of this process, in bytes.

        Bytes that were written after the last call of `note_written` count only if they were announced.
        """
        with self._lock:
            return self.current.bytes_before + self.current.end

    def accept(self, message: Accepted) -> None:
        """Handle the parent's answer `message`.

        If it is about the next outbox, the wait of `have_opened` ends. If it is about the current outbox, the sinks
        have the bytes before `message.end`, and this method releases their memory. Other answers are ignored.
        """
        with self._lock:
            if message.outbox == self.current.number + 1:
                self._opened.set()
            elif message.outbox == self.current.number:
                self.current.outbox.release(0, message.end)

    def have_opened(self, fresh: Outbox) -> None:
        """Ask the parent to open the outbox `fresh`. Wait until the parent has answered, or the recording is gone."""
        self._opened.clear()
        asked = -math.inf
        while not self._opened.is_set() and not self._watch.is_gone():
            if time.monotonic() - asked > _ASK_AGAIN_SECS:
                self._connection.send(NewOutbox(fresh.address))
                asked = time.monotonic()
            self._opened.wait(_POLL_SECS)
            self._inbox.take_answers()

    def switch_to(self, fresh: Outbox, calls_before: int, rows: int) -> Outbox:
        """Announce the rest of the current outbox, and make `fresh` the current outbox. Return the old outbox.

        `calls_before` is the present value of `LogCounters.entered`. `rows` is the number of counted rows in all
        outboxes before `fresh`. This number is sent to the parent, which notices by it if rows are missing.
        """
        with self._lock:
            self._announce_all()
            old = self.current
            self.current = OpenOutbox(fresh, old.number + 1, old.bytes_before + old.announced, calls_before, old.outbox)
            self._connection.send(RowsCounted(rows))
            self._connection.send(SegmentReady(self.current.number, 0, 0))
            # The parent has its own descriptor of the old outbox, or got the bytes in messages. This process closes the
            # old outbox one change later, because another thread may be using it at this moment.
            if old.retired is not None:
                old.retired.close()
        return old.outbox

    def close(self) -> None:
        """End the announcer's thread, and wait for its end."""
        self._wakeups.put(False)
        # Not long, because the thread waits for nothing but this queue.
        self._thread.join()

    def release(self) -> None:
        """Close the outboxes in this process. The parent does not need them open here."""
        self.current.outbox.close()
        if self.current.retired is not None:
            self.current.retired.close()

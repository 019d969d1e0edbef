"""Has the SDK write the rows of this process into an outbox.

Covers: flushing the SDK, changing the outbox, the wait for credit while the outbox is full, rows that it cannot write.
Does not cover: announcing (`announcer.py`), sinks that this process opens itself (`direct.py`).

```
rr.log ─► entry (waits here while the outbox is full) ─► SDK's batcher ─► SDK's file sink ─► outbox
                                                     SegmentReady(outbox, end) ─► upstream socket ─► aggregator
```

No code of mpr runs inside the SDK: a logging call waits in Python, with no lock held and signals handled. The credit is
what the outbox may still hold. The parent frees what the sinks have accepted, and both sides see the file's size.
"""

from __future__ import annotations

import abc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpr import failpoints
from mpr.errors import DeliveryError
from mpr.limits import OUTBOX_ROLL_BYTES, OUTBOX_ROLL_ROWS, UNFLUSHED_MAX_BYTES
from mpr.producer.announcer import Announcer, OpenOutbox
from mpr.producer.inbox import Inbox
from mpr.producer.log_counters import LogCounters
from mpr.producer.recording_watch import RecordingWatch
from mpr.producer.result_sender import ResultSender
from mpr.producer.task_recordings import TaskRecordings
from mpr.rrd import framing
from mpr.sdk.internal import internal
from mpr.threads import BoundedThread
from mpr.transport.connection_info import ConnectionInfo
from mpr.transport.messages import SegmentReady, Undelivered
from mpr.transport.outbox import Outbox
from mpr.transport.sockets import Connection
from mpr.transport.status_page import StatusPage

if TYPE_CHECKING:
    import rerun as rr

# How long a full outbox is left alone before the next look (seconds); at 1 GB/s the parent frees 1 MB meanwhile.
_CREDIT_POLL_SECS = 0.001
# How long the SDK may write nothing while it is flushed, and how often that is looked at (seconds). It encodes 8 MiB in
# milliseconds, but a machine may be very busy.
FLUSH_SILENT_SECS = 30.0
FLUSH_LOOK_SECS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class WriterParts:
    """Holds the parts of a producer that its writer works with."""

    config: ConnectionInfo
    worker: int
    stream: rr.RecordingStream
    connection: Connection
    inbox: Inbox
    watch: RecordingWatch
    status_page: StatusPage
    log_counters: LogCounters
    task_recordings: TaskRecordings
    results: ResultSender


class OutboxWriter(abc.ABC):
    """Writes the rows of one process. Its kinds differ in how the bytes reach the parent, or the sinks.

    Parameters
    ----------
    parts:
        The producer's parts.
    outbox:
        The first outbox, which the parent knows.

    Attributes
    ----------
    announcer:
        Announces the outbox.
    side:
        The thread that changes the outbox.
    spent:
        Whether no more rows can come from this process.
    """

    def __init__(self, parts: WriterParts, outbox: Outbox) -> None:
        self._parts = parts
        self.announcer = Announcer(parts.connection, parts.inbox, parts.watch, parts.results, outbox, self.segment)
        self.spent = False
        # Held while the SDK is flushed or given another outbox.
        self._rolling = threading.Lock()
        # Gives the SDK another outbox, because signal handlers run in the main thread: none raises in the middle.
        self.side = BoundedThread("mpr-roller")
        #: A task has given the stream another sink.
        self._detached = False
        # Logging calls before the last flush, and before the last complete outbox; bytes since the last flush.
        self._flushed = self._completed = self._unflushed = 0
        self.announcer.start()

    # --- the kinds differ in these ------------------------------------------------------------------------------

    @abc.abstractmethod
    def segment(self, current: OpenOutbox, end: int) -> SegmentReady:
        """Make the message that announces `current` up to `end`."""

    @abc.abstractmethod
    def retire(self, outbox: Outbox) -> None:
        """Give up `outbox`, all of which was announced."""

    def push(self) -> None:
        """Have the SDK write out all rows that it has. If it does not within a bound, this process is `spent`."""
        if self.spent:
            return
        if self._detached:
            # The sink is a task's own, and so are its failures.
            self._parts.stream.flush()
            return
        failure = self._flush_failure()
        if failure:
            self.give_up("the recording", failure)

    def detach(self) -> None:
        """Have the SDK end its present outbox, with the manifest. It writes no other."""
        if self.spent:
            return
        with internal():
            self._parts.stream.disconnect()
        self._check_ended(self.announcer.current.outbox)

    def roll(self) -> None:
        """End the outbox, so that the SDK writes its manifest, and go on in a new one.

        The thread `side` calls it, with `_rolling` held. The parent opens the new outbox before anything is written to
        it, so its rows survive if this process dies.
        """
        failpoints.reach("worker.roll")
        # The SDK waits for ever in the next call if its writing thread has ended.
        self.push()
        if self.spent:
            return
        parts, fresh = self._parts, Outbox(self._parts.config.folder)
        self.announcer.have_opened(fresh)
        failpoints.reach("worker.opened")
        # The SDK finishes the old file, with its footer, before this returns.
        attach(parts.stream, fresh)
        failpoints.reach("worker.rolled")
        self._check_ended(self.announcer.current.outbox)
        self.retire(self.announcer.switch_to(fresh, parts.log_counters.entered))

    # --- rows that are lost --------------------------------------------------------------------------------------

    def _flush_failure(self) -> str:
        """Flush the SDK; returns why it failed, or nothing."""
        size, silent_secs = -1, 0.0
        while True:
            began = time.monotonic()
            try:
                self._parts.stream.flush(timeout_sec=FLUSH_LOOK_SECS)
            except (RuntimeError, TimeoutError) as error:
                if not is_raised_by_sdk(error):
                    raise
                if time.monotonic() - began < FLUSH_LOOK_SECS:
                    return str(error)
            else:
                return ""
            # Each look counts as one, so that a process that was stopped meanwhile has lost nothing.
            before, size = size, self.announcer.current.outbox.size()
            silent_secs = silent_secs + FLUSH_LOOK_SECS if size == before else 0.0
            if silent_secs >= FLUSH_SILENT_SECS:
                return f"the SDK has written nothing for {FLUSH_SILENT_SECS:.0f} s"

    def _check_ended(self, outbox: Outbox) -> None:
        """Give up if the SDK could not end `outbox`: it only logs that, and drops what it could not write."""
        if not _is_ended(outbox):
            self.give_up("the recording", "the SDK could not write all of them into memory")

    def give_up(self, target: str, reason: str) -> None:
        """Report that rows of this process are lost on the way to `target`: its results fail, a pool replaces it.

        A second call does nothing.
        """
        if not self.spent:
            self.spent = True
            self.report(f"cannot bring its rows to {target}: {reason}", rows_are_lost=True)
            import rerun as rr

            # At exit the SDK would wait for its sink.
            rr.unregister_shutdown()

    def report(self, event: str, *, rows_are_lost: bool) -> None:
        """Report `event`, behind the results that wait: they have all their rows."""
        self.announcer.announce()
        worker = self._parts.worker
        who = f"worker {worker} (pid {os.getpid()})" if worker else f"process {os.getpid()}"
        self._parts.connection.send_needed(Undelivered(f"{who} {event}", rows_are_lost))

    # --- credit --------------------------------------------------------------------------------------------------

    def wait_for_credit(self) -> None:
        """Bound what waits in the SDK, then wait until the outbox has room. Signal handlers run meanwhile.

        Raises `DeliveryError` if rows are lost in any case: the SDK takes no more then, and would wait for ever.
        """
        parts = self._parts
        if self.spent:
            raise DeliveryError(f"this process (pid {os.getpid()}) cannot bring its rows to the recording any more")
        self._unflushed += parts.log_counters.take_unchecked()
        if self._unflushed >= UNFLUSHED_MAX_BYTES:
            self._unflushed = 0
            self.push()
            parts.task_recordings.collect()
        self.announcer.announce()
        self._roll_if_long()
        if self._is_full():
            with parts.status_page.back_pressure():
                self._wait_for_room()

    def _wait_for_room(self) -> None:
        parts = self._parts
        while self._is_full():
            time.sleep(_CREDIT_POLL_SECS)
            self.announcer.announce()
            parts.inbox.take_answers()
            if parts.watch.is_gone():
                # No parent is there to make room.
                outbox = self.announcer.current.outbox
                outbox.release(0, outbox.size())
                parts.task_recordings.forget_unaccepted()

    def _is_full(self) -> bool:
        limit = self._parts.config.outbox_bytes
        return self.held_bytes() > limit or self._parts.task_recordings.unaccepted_bytes > limit

    def held_bytes(self) -> int:
        """Bytes in the outbox that the sinks have not accepted."""
        return self.announcer.current.outbox.held_bytes()

    # --- flushing and rolling ------------------------------------------------------------------------------------

    def write_out(self, *, in_any_case: bool = False) -> int:
        """Have the SDK write every row into the outbox. Returns how many bytes it has written until now."""
        parts = self._parts
        entered = parts.log_counters.entered
        if entered != self._flushed or not parts.log_counters.sees_all or in_any_case:
            self._unflushed = 0
            rows = parts.status_page.logged()
            self._attach_again()
            # Not while another thread changes the outbox, because the result would overtake its rows.
            with self._rolling:
                self.push()
                parts.task_recordings.collect()
            # Noted behind the flush, so that one which an exception interrupts is repeated.
            self._flushed = entered
            parts.status_page.flushed(rows)
            self.announcer.note_written()
            self._roll_if_long()
        return self.announcer.written_bytes()

    def _attach_again(self) -> None:
        """Give the stream an outbox again if a task has given it another sink."""

        def step() -> None:
            with self._rolling:
                if self._detached:
                    self._detached = False
                    # The SDK brings along the rows that were logged without any sink.
                    self.roll()

        if self._detached:
            self._do_aside(step)

    def _do_aside(self, step: Callable[[], None]) -> None:
        """Have the thread `side` do `step`, and wait for it. An exception of a signal handler ends only the wait."""
        self.side.do(step, threading.TIMEOUT_MAX)

    def _roll_if_long(self) -> None:
        def step() -> None:
            with self._rolling:
                if self._is_long():
                    self.roll()

        # If another thread changes the outbox at this moment, that is enough.
        if self._is_long() and not self._rolling.locked():
            self._do_aside(step)

    def _is_long(self) -> bool:
        current = self.announcer.current
        rows = self._parts.log_counters.entered - current.calls_before if current.end else 0
        return current.end > OUTBOX_ROLL_BYTES or rows > OUTBOX_ROLL_ROWS

    def complete(self) -> None:
        """Have the SDK write the manifest of the rows that were logged since the last time, if any were."""

        def step() -> None:
            with self._rolling:
                self.roll()

        entered = self._parts.log_counters.entered
        if entered != self._completed or not self._parts.log_counters.sees_all:
            self._completed = entered
            self.write_out()
            self.announcer.announce()
            self._do_aside(step)

    def sink_changed(self) -> None:
        """Note that a task has given the stream another sink; `write_out` takes it back when the task has ended."""
        self._detached = True

    # --- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Have the SDK write its last manifest, and announce all of it."""
        self.announcer.close()
        if not self.spent:
            self._attach_again()
        self.detach()
        self.announcer.announce()

    def release(self) -> None:
        """Close the outboxes of this process; the parent has opened its own."""
        self.side.close()
        self.announcer.release()
        if self.spent and self._parts.worker:
            # Without the SDK's exit handlers, which would wait for its sink.
            os._exit(0)


class SharedOutboxWriter(OutboxWriter):
    """Writes outboxes that the parent has open, too: only offsets travel in messages."""

    def segment(self, current: OpenOutbox, end: int) -> SegmentReady:
        """Make the message with the new end of `current`."""
        return SegmentReady(current.number, current.announced, end)

    def retire(self, outbox: Outbox) -> None:
        """Do nothing: the parent releases what it has read."""


class InlineOutboxWriter(OutboxWriter):
    """Writes outboxes that the parent cannot open: their bytes travel in messages."""

    def segment(self, current: OpenOutbox, end: int) -> SegmentReady:
        """Make the message with the bytes of `current` up to `end`."""
        data = current.outbox.read(current.announced, end - current.announced)
        return SegmentReady(current.number, current.announced, end, data)

    def retire(self, outbox: Outbox) -> None:
        """Release the memory of `outbox`, whose bytes were sent."""
        outbox.release(0, outbox.size())


def _is_ended(outbox: Outbox) -> bool:
    """Whether the SDK has ended `outbox` as a whole stream, or has written nothing because logging is switched off."""
    size = outbox.size()
    start = size - len(framing.CLOSING)
    # The parent releases only what it has read as whole messages.
    return size == 0 or outbox.read(start, size - start) == framing.CLOSING or outbox.is_released(start)


def is_raised_by_sdk(error: BaseException) -> bool:
    """Whether the SDK has raised `error`, and no signal handler that ran within its call."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = "" if traceback is None else traceback.tb_frame.f_globals.get("__name__", "")
    return str(module).partition(".")[0] == "rerun"


def attach(stream: rr.RecordingStream, outbox: Outbox) -> None:
    """Have the SDK write the rows of `stream` into `outbox`."""
    with internal():
        stream.save(outbox.path)

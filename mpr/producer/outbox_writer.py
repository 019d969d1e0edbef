"""Makes the SDK write the rows of this process into an outbox, a file in memory that the parent reads.

Covers: flushing the SDK, changing the outbox, the wait for credit while the outbox is full, rows that are lost.
Does not cover: announcing (`announcer.py`), sinks that this process opens itself (`direct.py`).

```
rr.log ─► router (waits here while the outbox is full) ─► SDK's batcher ─► SDK's file sink ─► outbox
                                                     SegmentReady(outbox, end) ─► upstream socket ─► aggregator
```

A logging call waits for credit in Python, before it calls the SDK, so that signal handlers run meanwhile.

The SDK writes the manifest only at the end of an outbox. So this process gives the SDK another outbox from time to
time. This change is called *rolling*.
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
from mpr.errors import DeliveryError, ReleasedError, describe_process
from mpr.limits import OUTBOX_ROLL_BYTES, OUTBOX_ROLL_ROWS, SINK_TIMEOUT_SECS, UNFLUSHED_MAX_BYTES
from mpr.producer.announcer import Announcer, OpenOutbox
from mpr.producer.inbox import Inbox
from mpr.producer.log_counters import LogCounters
from mpr.producer.recording_watch import RecordingWatch
from mpr.producer.result_sender import ResultSender
from mpr.producer.row_account import RowAccount
from mpr.producer.sink_changes import SinkChanges
from mpr.producer.task_recordings import TaskRecordings
from mpr.rrd import framing
from mpr.sdk.internal import internal
from mpr.threads import BoundedThread
from mpr.transport.connection_info import ConnectionInfo
from mpr.transport.messages import RowsCounted, SegmentReady, Undelivered
from mpr.transport.outbox import Outbox
from mpr.transport.sockets import Connection
from mpr.transport.status_page import StatusPage

if TYPE_CHECKING:
    import rerun as rr

# The pause between two looks at a full outbox (seconds). At 1 GB/s the parent frees 1 MB in this time.
_CREDIT_POLL_SECS = 0.001
# The longest time that the SDK may write nothing during a flush, and the time between two checks of that (seconds). The
# SDK encodes 8 MiB in milliseconds, but a machine may be very busy.
FLUSH_SILENT_SECS = 30.0
FLUSH_LOOK_SECS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class WriterParts:
    """Holds the parts of a producer that its writer uses.

    Attributes
    ----------
    config, worker:
        The connection info of the recording, and the number of this worker; 0 if this process is no worker.
    stream:
        The SDK's stream of the shared recording.
    connection, inbox:
        The part that sends messages to the parent, and the part that receives messages from the parent.
    watch:
        Notices if the recording is gone.
    status_page, log_counters, row_account:
        Count logging calls, bytes and rows. The parent reads some of the numbers.
    task_recordings:
        The recordings that tasks make themselves.
    results:
        Sends results after the rows of their tasks.
    """

    config: ConnectionInfo
    worker: int
    stream: rr.RecordingStream
    connection: Connection
    inbox: Inbox
    watch: RecordingWatch
    status_page: StatusPage
    log_counters: LogCounters
    row_account: RowAccount
    task_recordings: TaskRecordings
    results: ResultSender


class OutboxWriter(abc.ABC):
    """Writes the rows of one process. A subclass decides how the bytes reach the parent or the sinks.

    Parameters
    ----------
    parts:
        The parts of the producer that the writer uses.
    outbox:
        The first outbox. The parent already has its address.

    Attributes
    ----------
    announcer:
        Announces to the parent how much of the outbox was written.
    side:
        The thread that gives the SDK another outbox, or changes and flushes the sinks of a `DirectWriter`.
    spent:
        True if this process can send no more rows to the recording, for example because a flush has failed.
    """

    def __init__(self, parts: WriterParts, outbox: Outbox) -> None:
        self._parts = parts
        self.announcer: Announcer = Announcer(
            parts.connection,
            parts.inbox,
            parts.watch,
            parts.results,
            outbox,
            self.segment,
            parts.config.announce_every_secs,
        )
        self.spent: bool = False
        # Held while the SDK is flushed or given another outbox.
        self._rolling = threading.Lock()
        # A thread of its own, because in the main thread a signal handler could raise in the middle of the change.
        self.side: BoundedThread = BoundedThread("mpr-roller")
        self._sinks = SinkChanges()
        #: Whether a task has given the stream another sink, so that the SDK writes into no outbox.
        self._detached = False
        # `_flushed` is the number of logging calls before the last flush. `_completed` is the number of logging calls
        # before the last complete outbox. `_unflushed` is the number of logged bytes since the last flush.
        self._flushed = self._completed = self._unflushed = 0
        self.announcer.start()

    # --- subclasses differ in these -----------------------------------------------------------------------------

    @abc.abstractmethod
    def segment(self, current: OpenOutbox, end: int) -> SegmentReady:
        """Return the message that announces `current` up to byte `end`."""

    @abc.abstractmethod
    def retire(self, outbox: Outbox) -> None:
        """Release the memory of `outbox` if the parent does not do so. All its bytes were announced."""

    def push(self) -> None:
        """Make the SDK write out all its rows. If that fails, or it writes nothing for 30 s, this process is `spent`.

        If user code has given the stream another sink, an error of that sink is raised instead. Does nothing if this
        process is `spent`.
        """
        if self.spent:
            return
        if self._detached:
            # A task has chosen another sink, so an error of that sink is raised in the task.
            self._parts.stream.flush(timeout_sec=SINK_TIMEOUT_SECS)
            return
        failure = self._flush_failure()
        if failure:
            self.give_up("the recording", failure)

    def detach(self) -> None:
        """Make the SDK finish the current outbox, and write into no other. If that fails, this process is `spent`."""
        # Flush first, for the same reason as in `roll`.
        self.push()
        if not self.spent:
            self._finish_outbox(self._parts.stream.disconnect)

    def roll(self) -> None:
        """Make the SDK finish the current outbox, with the manifest, and write later rows into a new outbox.

        The caller holds the lock `_rolling`, and is the thread `side`. If the SDK fails, this process is `spent`.
        """
        failpoints.reach("worker.roll")
        rows = self._parts.row_account.settled()
        # Flush first. If the SDK's writing thread has ended, the flush fails, and this process is `spent`. Without the
        # flush, the SDK would wait for ever in `attach`.
        self.push()
        if self.spent:
            return
        parts, fresh = self._parts, Outbox(self._parts.config.folder)
        self.announcer.have_opened(fresh)
        failpoints.reach("worker.opened")
        # The SDK finishes the old file, with its footer, before this call returns.
        self._finish_outbox(lambda: attach(parts.stream, fresh))
        failpoints.reach("worker.rolled")
        self.retire(self.announcer.switch_to(fresh, parts.log_counters.entered, rows))

    # --- rows that are lost --------------------------------------------------------------------------------------

    def _flush_failure(self) -> str:
        """Flush the SDK. Return an empty text if the flush succeeds, else the reason for the failure.

        The flush also fails if the SDK writes nothing for 30 s. If a signal handler raises, its error is raised here.
        """
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
            # Each check counts as `FLUSH_LOOK_SECS`, however long it took. So if the whole process was stopped for a
            # long time, the SDK does not count as silent.
            before, size = size, self.announcer.current.outbox.size()
            silent_secs = silent_secs + FLUSH_LOOK_SECS if size == before else 0.0
            if silent_secs >= FLUSH_SILENT_SECS:
                return f"the SDK has written nothing for {FLUSH_SILENT_SECS:.0f} s"

    def _finish_outbox(self, change: Callable[[], None]) -> None:
        """Call `change`, which makes the SDK finish the outbox. If the outbox is not finished, this process is `spent`.

        This process is `spent`, too, if `change` takes longer than 30 s. Errors of `change` are raised.
        """
        failure = self._sinks.failure_of(change)
        if failure or not _is_ended(self.announcer.current.outbox):
            self.give_up("the recording", failure or "the SDK could not write all of them into memory")

    def give_up(self, target: str, reason: str) -> None:
        """Make this process `spent`, and report to the parent that rows are lost. A second call does nothing.

        `target` and `reason` are texts: the place that the rows do not reach, and why.
        """
        if not self.spent:
            self.spent = True
            self.report(f"cannot bring its rows to {target}: {reason}", rows_are_lost=True)
            import rerun as rr

            # Without this, the SDK would wait at exit for its sink, which accepts nothing more.
            rr.unregister_shutdown()

    def report(self, event: str, *, rows_are_lost: bool) -> None:
        """Announce all bytes in the outbox, and then send the parent a text: the name of this process, then `event`.

        `rows_are_lost` is True if no sink has the rows that `event` is about, and False if another sink has them. If it
        is True, the parent lets all later results of a worker fail, or all later deliveries of any other process.
        """
        self.announcer.announce()
        who = describe_process(self._parts.worker, os.getpid())
        self._parts.connection.send_needed(Undelivered(f"{who} {event}", rows_are_lost))

    # --- credit --------------------------------------------------------------------------------------------------

    def wait_for_credit(self) -> None:
        """Flush the SDK if 8 MiB were logged since the last flush, and wait for credit. Signal handlers run meanwhile.

        If a signal handler that has interrupted mpr calls this method (see `Inbox.is_interrupted`), it neither flushes
        nor waits. The wait also ends if the recording is gone. Raises `DeliveryError` if this process is `spent`.
        """
        parts = self._parts
        if self.spent:
            raise DeliveryError(f"this process (pid {os.getpid()}) cannot bring its rows to the recording any more")
        self._unflushed += parts.log_counters.take_unchecked()
        if parts.inbox.is_interrupted():
            # The interrupted code may hold locks that the announcer needs. The next call does what is due.
            return
        if self._unflushed >= UNFLUSHED_MAX_BYTES:
            self._unflushed = 0
            self.push()
            parts.task_recordings.collect()
        self.announcer.announce_soon()
        self._roll_if_long()
        if self._is_full():
            with parts.status_page.back_pressure():
                self._wait_for_room()

    def _wait_for_room(self) -> None:
        parts = self._parts
        while self._is_full():
            time.sleep(_CREDIT_POLL_SECS)
            self.announcer.announce_soon()
            if parts.watch.is_gone():
                # Make room here, because the parent is gone.
                outbox = self.announcer.current.outbox
                outbox.release(0, outbox.size())
                parts.task_recordings.forget_unaccepted()

    def _is_full(self) -> bool:
        limit = self._parts.config.outbox_bytes
        return self.held_bytes() > limit or self._parts.task_recordings.unaccepted_bytes > limit

    def held_bytes(self) -> int:
        """Return how many bytes of the current outbox take memory, because the sinks have not accepted them yet."""
        return self.announcer.current.outbox.held_bytes()

    # --- flushing and rolling ------------------------------------------------------------------------------------

    def write_out(self, *, in_any_case: bool = False) -> int:
        """Make the SDK write every row into the outbox. Return the size of all outboxes (`Announcer.written_bytes`).

        The flush is skipped if every logging call is counted (`LogCounters.sees_all`) and none was counted since the
        last flush, unless `in_any_case` is true.
        """
        parts = self._parts
        entered = parts.log_counters.entered
        if entered != self._flushed or not parts.log_counters.sees_all or in_any_case:
            self._unflushed = 0
            rows = parts.status_page.logged()
            self.attach_again()
            counted = parts.row_account.settled()
            # Wait while another thread changes the outbox. Without this, a result could be sent before its rows.
            with self._rolling:
                self.push()
                parts.task_recordings.collect()
            # Noted after the flush, so that a flush which an exception interrupts is repeated.
            self._flushed = entered
            parts.status_page.flushed(rows)
            parts.row_account.flushed(counted)
            self.announcer.note_written()
            self._roll_if_long()
        return self.announcer.written_bytes()

    def attach_again(self) -> None:
        """If user code has given the stream another sink, replace it by an outbox (`DirectWriter`: by its sinks)."""

        def step() -> None:
            with self._rolling:
                if self._detached:
                    self._detached = False
                    # The SDK also writes the rows that were logged while the stream had no sink at all.
                    self.roll()
                    self._parts.row_account.attached()

        if self._detached:
            self._do_aside(step)

    def _do_aside(self, step: Callable[[], None]) -> None:
        """Run `step` in the thread `side`, and wait for its end. If a signal handler raises, only the wait ends."""
        self.side.do(step, threading.TIMEOUT_MAX)

    def _roll_if_long(self) -> None:
        def step() -> None:
            with self._rolling:
                if self._is_long():
                    self.roll()

        # If another thread changes the outbox at this moment, no further change is needed.
        if self._is_long() and not self._rolling.locked():
            self._do_aside(step)

    def _is_long(self) -> bool:
        current = self.announcer.current
        rows = self._parts.log_counters.entered - current.calls_before if current.end else 0
        return current.end > OUTBOX_ROLL_BYTES or rows > OUTBOX_ROLL_ROWS

    def complete(self) -> None:
        """Make the SDK finish the current outbox with its manifest, and begin another outbox.

        Does nothing if all logging calls are counted, and none was counted since the last call of this method.
        """

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
        """Note that user code has given the stream another sink. `attach_again` then replaces this sink."""
        self._detached = True

    # --- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Make the SDK finish the outbox (unless `spent`), announce all bytes, and send the number of counted rows."""
        self.announcer.close()
        if not self.spent:
            self.attach_again()
        rows = self._parts.row_account.settled()
        self.detach()
        self.announcer.announce()
        self._parts.connection.send(RowsCounted(rows))

    def release(self) -> None:
        """Close the outboxes of this process. If it is a worker and is `spent`, end it at once by `os._exit(0)`."""
        self.side.close()
        self._sinks.close()
        self.announcer.release()
        if self.spent and self._parts.worker:
            # Skip the SDK's exit handlers, because they would wait for the sink.
            os._exit(0)


class SharedOutboxWriter(OutboxWriter):
    """Writes outboxes that the parent has opened too. So a message only says how many bytes were written."""

    def segment(self, current: OpenOutbox, end: int) -> SegmentReady:
        """Return the message that announces `current` up to byte `end`, without the bytes themselves."""
        return SegmentReady(current.number, current.announced, end)

    def retire(self, outbox: Outbox) -> None:
        """Do nothing, because the parent releases the bytes that it has read."""


class InlineOutboxWriter(OutboxWriter):
    """Writes outboxes that the parent cannot open. So the messages to the parent contain the bytes."""

    def segment(self, current: OpenOutbox, end: int) -> SegmentReady:
        """Return the message that announces `current` up to byte `end`.

        The message contains the bytes that were not announced before.
        """
        data = current.outbox.read(current.announced, end - current.announced)
        return SegmentReady(current.number, current.announced, end, data)

    def retire(self, outbox: Outbox) -> None:
        """Release the memory of `outbox`, because its bytes were sent."""
        outbox.release(0, outbox.size())


def _is_ended(outbox: Outbox) -> bool:
    """Return True if the SDK has finished `outbox`, or has written nothing into it."""
    size = outbox.size()
    start = size - len(framing.CLOSING)
    try:
        return size == 0 or outbox.read(start, size - start) == framing.CLOSING
    except ReleasedError:
        # The outbox counts as finished, because the parent releases only complete frames, and an outbox that the SDK
        # could not finish ends within a frame.
        return True


def is_raised_by_sdk(error: BaseException) -> bool:
    """Return True if `error` was raised within a function of the SDK, and not, for example, in a signal handler."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = "" if traceback is None else traceback.tb_frame.f_globals.get("__name__", "")
    return str(module).partition(".")[0] == "rerun"


def attach(stream: rr.RecordingStream, outbox: Outbox) -> None:
    """Make the SDK write the rows of `stream` into `outbox`."""
    with internal():
        stream.save(outbox.path)

"""The receiving end of one producer: hands its rows to the sinks, and then its results to the listener.

Covers: the messages of one producer, the outboxes of a producer one after another, what a dead producer has left.
Does not cover: which producers are connected or dead (`aggregator.py`), the frames of an outbox (`outbox_intake.py`).

A worker notes each result on its status page before sending the result. If the worker dies, the parent reads from the
status page the results that did not arrive. With each result the worker has noted an offset in the outbox. The parent
reads the rows up to this offset first.

Rows of recordings that tasks make themselves come in messages only. Such rows are lost if a worker dies before it
has sent them. The parent does not take a result whose rows were lost in this way. The task of that result counts as
lost with the worker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpr import failpoints
from mpr.aggregator import guard
from mpr.aggregator.fanout import Fanout
from mpr.aggregator.guard import guarded, hear, is_own_fault
from mpr.aggregator.listener import Listener
from mpr.aggregator.loss_notes import loss_notes
from mpr.aggregator.outbox_intake import OutboxIntake
from mpr.aggregator.row_owner import RowOwner
from mpr.aggregator.task_recording_intake import TaskRecordingIntake
from mpr.errors import DeliveryError, FormatError
from mpr.transport.messages import (
    Accepted,
    Goodbye,
    Hello,
    InitializerFailed,
    MessageError,
    NewOutbox,
    Ready,
    Result,
    ResultInMemory,
    SegmentReady,
    Skipped,
    Sync,
    Synced,
    TaskBegan,
    TaskEnded,
    TaskRecordingRows,
    Undelivered,
    Upstream,
)
from mpr.transport.outbox import OutboxReader
from mpr.transport.result_journal import ResultJournalReader
from mpr.transport.status_page import StatusPageReader

_log = logging.getLogger("mpr")

# A noted result is overdue if it was not sent in this time. A worker sends each result within 0.01 s after noting it,
# unless a task keeps the GIL.
_LATE_NANOS = 200_000_000
# The results of a worker are numbered. A number that is so much larger than the last one is damage. If it was taken,
# all later results would be ignored.
_GAP_MAX = 1000


@dataclass(frozen=True, kw_only=True)
class IntakeContext:
    """The parts of a recording that all its intakes share.

    Attributes
    ----------
    folder:
        The private folder of the recording.
    fanout:
        Hands segments to the sinks.
    answer:
        Sends a message to the producer with that hello, if the producer is still connected.
    on_accepted:
        Called when the sinks have taken more rows of an outbox.
    has_blueprint:
        Whether the parent has given a blueprint. If so, no blueprint of a worker replaces the parent's.
    """

    folder: Path
    fanout: Fanout
    answer: Callable[[Hello, Accepted | Synced], None]
    on_accepted: Callable[[], None]
    has_blueprint: bool = False


class ProducerIntake:
    """The parent's side of one producer. Threads other than the aggregator's may call only methods that say so.

    Parameters
    ----------
    hello:
        The first message of the producer.
    context:
        The parts of the recording that all its intakes share.
    listener:
        Hears of the worker and its results; None if the producer is no worker of a pool.
    """

    def __init__(self, hello: Hello, context: IntakeContext, listener: Listener | None) -> None:
        self.hello = hello
        #: Whether the producer has sent its last message, `Goodbye`.
        self.said_goodbye = False
        #: `time.monotonic()` when rows came last; None if no rows have come.
        self.last_rows_at: float | None = None
        self._who = f"worker {hello.worker} (pid {hello.pid})"
        self._context = context
        self._listener = listener
        # The reason why the further rows of the producer are lost; None if they are not lost.
        self._failure: BaseException | None = None
        # Whether nothing more of the producer is used, because its bytes could not be read.
        self._is_cut_off = False
        self._is_ready = False
        # None if the producer has no status page, or the parent cannot open the page. Usable until `close`.
        self._status_page: StatusPageReader | None = None
        if hello.status_page:
            with contextlib.suppress(OSError):
                self._status_page = StatusPageReader(hello.status_page, context.folder)
        # If the page is not that of the producer, the outbox is not read either, because large results are in the page.
        is_readable = self._status_page is not None or not hello.status_page
        self._outbox = self._new_outbox(0, self._open(hello.address) if is_readable else None)
        # The next outbox; None if the producer has not announced one.
        self._next_reader: OutboxReader | None = None
        # The hello counts, because it is a message, too.
        self._message_count = 1
        self._last_result = 0
        # How many noted results of a dead worker are not taken, because their rows were lost with the worker.
        self._lost_results = 0
        self._task_recordings = TaskRecordingIntake(
            hello, context.fanout, lambda message: context.answer(hello, message)
        )
        self._owner = RowOwner(hello, listener)

    # --- messages ----------------------------------------------------------------------------------------------

    @guarded
    def take(self, message: Upstream | MessageError) -> None:
        """Take the next message of the producer, or the error if the message could not be decoded."""
        self._message_count += 1
        listener, hello = self._listener, self.hello
        match message:
            case SegmentReady():
                self._take_segment(message)
            case Result():
                failpoints.reach("parent.result")
                self._settle(message)
            case ResultInMemory():
                failpoints.reach("parent.result")
                self._settle(self._load(message))
            case TaskBegan():
                self._owner.begin(message)
            case TaskEnded():
                self._owner.end(message)
            case TaskRecordingRows(data):
                self._task_recordings.take(bytes(data), wanted=not self._is_cut_off)
            case NewOutbox(address):
                self._open_next(address)
            case Sync(number):
                failure = self._context.fanout.failure or self._failure
                self._context.answer(hello, Synced(number, "" if failure is None else str(failure)))
            case Undelivered() if self._is_cut_off:
                # It is known already that its rows are lost.
                pass
            case Undelivered(reason, rows_are_lost):
                self._failure = DeliveryError(reason) if rows_are_lost else self._failure
                _log.log(logging.ERROR if rows_are_lost else logging.WARNING, "mpr: %s", reason)
                self._context.fanout.note([reason])
            case Goodbye():
                self.said_goodbye = True
            case Ready() | Skipped() | InitializerFailed():
                if listener is not None:
                    self._report(listener, message)
            case MessageError():
                raise message
            case _:
                raise MessageError(f"a message that it should not send: {type(message).__name__}")

    def _report(self, listener: Listener, message: Ready | Skipped | InitializerFailed) -> None:
        if self._is_ready and not isinstance(message, Skipped):
            raise MessageError(f"it was ready before: {type(message).__name__}")
        match message:
            case Ready(micros):
                self._is_ready = True
                hear(listener.worker_ready, self.hello, self._status_page, micros)
                if self._is_cut_off:
                    hear(listener.unfit, self.hello)
            case Skipped():
                hear(listener.skipped, self.hello, message)
            case InitializerFailed():
                hear(listener.initializer_failed, self.hello, message)

    def _settle(self, result: Result) -> None:
        """Hand `result` on, because the sinks have all its rows. Ignore a result that came from the journal before."""
        if result.number > self._last_result + _GAP_MAX:
            raise MessageError(f"result {result.number} behind result {self._last_result}")
        if result.number > self._last_result:
            self._outbox.note_result()
            if self._listener is not None:
                failure = self._context.fanout.failure or self._failure
                hear(self._listener.result, self.hello, result, failure)
            self._last_result = result.number

    def _load(self, message: ResultInMemory) -> Result:
        """Return the result of `message`, with the payload that the worker has left in its journal."""
        try:
            if self._status_page is None:
                raise OSError("it cannot be opened")
            return ResultJournalReader(self._status_page).take(message)
        except Exception as error:  # noqa: BLE001  # the result is settled in any case, because its caller waits
            self.cut_off(MessageError(f"a result that cannot be read from its memory: {error}"))
            return message.result

    # --- outboxes ----------------------------------------------------------------------------------------------

    def _open(self, address: str) -> OutboxReader | None:
        """Open the outbox at `address`. Returns None if this fails, because the bytes come in messages then."""
        try:
            return OutboxReader(address, self._context.folder)
        except OSError as error:
            _log.debug("outbox of worker %d travels in messages: %s", self.hello.worker, error)
            return None

    def _new_outbox(self, number: int, reader: OutboxReader | None, *, counts_rows: bool = True) -> OutboxIntake:
        keeps_blueprint = self._context.has_blueprint and self.hello.worker != 0
        fanout = self._context.fanout
        return OutboxIntake(
            self.hello, number, reader, fanout, keeps_blueprint=keeps_blueprint, counts_rows=counts_rows
        )

    def _open_next(self, address: str) -> None:
        """Open the next outbox, then answer. The producer waits for this: rows in an opened outbox cannot be lost."""
        if not self.is_inline and not self._is_cut_off:
            if self._next_reader is not None:
                self._next_reader.close()
            self._next_reader = self._open(address)
            if self._next_reader is None:
                self.cut_off(PermissionError("its next outbox cannot be opened"))
        self._context.answer(self.hello, Accepted(self._outbox.number + 1, 0))

    def _switch_outbox(self) -> None:
        """Take the rest of the present outbox, and go on with the next one."""
        if self._next_reader is None and not self.is_inline and self._failure is None:
            raise FormatError("an outbox begins that was not opened")
        self._take_rest()
        last = self._outbox
        last.close()
        # If the rows of one task are in two outboxes, they are not counted.
        self._outbox = self._new_outbox(last.number + 1, self._next_reader, counts_rows=last.is_settled)
        self._next_reader = None
        self._owner.outbox_begins(self._outbox.number)

    def _take_segment(self, message: SegmentReady) -> None:
        if message.outbox == self._outbox.number + 1:
            self._switch_outbox()
        elif message.outbox != self._outbox.number:
            raise FormatError(f"outbox {message.outbox} is written, and {self._outbox.number} was")
        self._consume(lambda wanted: self._outbox.consume(message.end, message.data, self._owner.task, wanted=wanted))
        if self.is_inline and (message.data is not None or self._failure is not None):
            # A producer whose bytes are not used makes room itself.
            end = self._outbox.consumed if self._failure is None else message.end
            self._context.answer(self.hello, Accepted(message.outbox, end))

    def _take_rest(self) -> None:
        self._consume(lambda wanted: self._outbox.consume_rest(self._owner.task, wanted=wanted))

    def _consume(self, consume: Callable[[bool], bool]) -> None:
        """Have `consume` take the present outbox. Drop its rows if rows of the producer were lost before."""
        try:
            if consume(self._failure is None):
                self.last_rows_at = time.monotonic()
        except Exception as error:
            if is_own_fault(error):
                raise
            self.cut_off(error)
            # Drop the rows, because the producer may wait for room.
            consume(False)
        self._context.on_accepted()

    def cut_off(self, error: Exception) -> None:
        """Use nothing more that the producer sends, because its bytes have raised `error`.

        Its results fail from now on, and a pool replaces it. This is logged and noted once.
        """
        if self._is_cut_off:
            return
        self._is_cut_off = True
        failure = DeliveryError(f"{self._who} {guard.describe(error)}")
        self._failure = self._failure or failure
        _log.error("%s", failure)
        self._context.fanout.distrust()
        self._context.fanout.note([str(failure)])
        if self._listener is not None:
            hear(self._listener.unfit, self.hello)

    # --- the end of the producer -------------------------------------------------------------------------------

    @guarded
    def take_journaled(self, last: int | None = None) -> None:
        """Take results (up to number `last`) that the worker has noted but not sent, each after its own rows."""
        if self._status_page is None or self.is_inline or self.said_goodbye:
            # Either all results have come, or the rows before a result come in messages only.
            return
        if last is None:
            self._owner.use_mark(self._status_page, self._outbox.number)
        with contextlib.suppress(OSError, ValueError):
            for behind, needed, result in ResultJournalReader(self._status_page).results():
                if result.number > self._last_result and (last is None or result.number <= last):
                    if needed > self._message_count:
                        self._lost_results += 1
                        continue
                    if behind.outbox >= self._outbox.number:
                        self._take_segment(behind)
                    self._settle(result)

    def overdue_result(self) -> int:
        """The number of the last noted result that is overdue; 0 if there is none. Any thread may call this.

        A result counts only if all messages before it have arrived, because these must be taken first.
        """
        # `ValueError` means that another thread is just closing the status page.
        with contextlib.suppress(ValueError):
            status_page = self._status_page
            journaled, behind = (0, 0) if status_page is None else ResultJournalReader(status_page).journaled()
            if status_page is not None and journaled > self._last_result and behind <= self._message_count:
                return journaled if time.monotonic_ns() - status_page.at().begun_ns > _LATE_NANOS else 0
        return 0

    @guarded
    def salvage(self) -> None:
        """Take all whole frames in this outbox and the next one, also those that no message has announced."""
        if not self.said_goodbye:
            self._owner.use_mark(self._status_page, self._outbox.number)
        if self._next_reader is not None and self._next_reader.size():
            self._switch_outbox()
        self._take_rest()

    def may_lack_rows(self) -> bool:
        """Whether rows may be missing, because they were dropped, or because no `Goodbye` came behind the last rows."""
        may_be_unflushed = self._status_page is None or self._status_page.unflushed() > 0
        return self._is_cut_off or (not self.said_goodbye and may_be_unflushed)

    def loss_notes(self) -> list[str]:
        """Say which rows were lost with the process: those of recordings that its tasks have made themselves."""
        if self._status_page is None or self.said_goodbye:
            return []
        return loss_notes(self.hello, self._status_page.unsent_rows(), self._lost_results)

    def close(self) -> None:
        """Close the producer's files."""
        self._outbox.close()
        if self._next_reader is not None:
            self._next_reader.close()
            self._next_reader = None
        if self._status_page is not None:
            self._status_page.close()
            self._status_page = None

    # --- questions ---------------------------------------------------------------------------------------------

    @property
    def is_inline(self) -> bool:
        """Whether the bytes of the outbox come in messages, because the parent cannot open the outbox."""
        return self._outbox.is_inline

    def has_accepted(self, number: int, end: int) -> bool:
        """Whether the sinks have the producer's outbox `number` up to offset `end`. Any thread may call this."""
        outbox = self._outbox
        return outbox.number > number or (outbox.number == number and outbox.consumed >= end)

    def rows_logged(self) -> int:
        """The number of rows that the process has logged; 0 if this is not known. Any thread may call this."""
        # `ValueError` means that the status page is just being closed. `Aggregator` adds the rows of a closed page.
        with contextlib.suppress(ValueError):
            status_page = self._status_page
            return 0 if status_page is None else status_page.rows()
        return 0

    def rows_since_result(self) -> int | None:
        """The number of rows that came after the last result; None if they cannot be counted."""
        return self._outbox.rows_since_result()

    def lives(self) -> bool:
        """Whether a process with the producer's process id exists, or may exist."""
        return _may_exist(self.hello.pid)


def _may_exist(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True

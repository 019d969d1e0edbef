"""Processes the messages of one producer. Passes its rows to the sinks, and then its results to the listener.

The listener gets the results of a worker for its pool. The journal is memory in which a worker keeps its last results.
Outboxes are *inline* if the parent cannot open them, so that their bytes come in messages.

If a worker dies and some of its results have not arrived, the parent reads these results from the journal. Beside each
result, the journal has the offset in the outbox at which the rows of the result end. The parent passes the rows up to
this offset to the sinks before it passes the result to the listener.

Rows of recordings that tasks make themselves come in messages only, and are lost if the worker dies before it has sent
them. The parent does not use a journaled result whose rows were lost in this way.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpr import failpoints
from mpr.aggregator import guard
from mpr.aggregator.complete_tasks import CompleteTasks
from mpr.aggregator.fanout import Fanout
from mpr.aggregator.guard import guarded, hear, is_own_fault
from mpr.aggregator.listener import Listener
from mpr.aggregator.loss_notes import loss_notes
from mpr.aggregator.lost_rows import LostRows
from mpr.aggregator.numbers import RecordingNumbers
from mpr.aggregator.outbox_intake import OutboxIntake
from mpr.aggregator.row_balance import RowBalance, RowTotals
from mpr.aggregator.row_owner import RowOwner
from mpr.aggregator.task_recording_intake import TaskRecordingIntake
from mpr.aggregator.worker_memory import WorkerMemory
from mpr.errors import FormatError
from mpr.transport.ipc_folder import PASSING
from mpr.transport.messages import (
    Accepted,
    Goodbye,
    Hello,
    Indices,
    IndicesWanted,
    InitializerFailed,
    KeyAnswer,
    KeyWanted,
    NewOutbox,
    Ready,
    Result,
    ResultInMemory,
    RowsCounted,
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
from mpr.transport.packing import MessageError
from mpr.transport.shared_file import has_ended
from mpr.user_code import log as _log

# The results of a worker are numbered. If a number is larger than the last one by more than this, the message is
# damaged. If mpr took this number, it would ignore all later results, because their numbers are smaller.
_GAP_MAX = 1000


@dataclass(frozen=True, kw_only=True)
class IntakeContext:
    """Holds the parts of a recording that all its intakes share.

    Attributes
    ----------
    folder:
        The private folder of the recording.
    fanout:
        Hands segments to the sinks.
    answer:
        Called with the hello of a producer and a message. Sends the message to the producer, if it is still connected.
    totals:
        The numbers of rows of the whole recording, to which each intake adds.
    numbers:
        Gives the processes and the tasks of the recording their numbers.
    complete_tasks:
        Remembers which tasks of other engines are complete.
    on_accepted:
        Called without arguments each time that bytes of an outbox were processed.
    has_blueprint:
        True if the parent has set a blueprint. No worker can replace this blueprint.
    """

    folder: Path
    fanout: Fanout
    answer: Callable[[Hello, Accepted | Synced | Indices | KeyAnswer], None]
    on_accepted: Callable[[], None]
    totals: RowTotals
    numbers: RecordingNumbers
    complete_tasks: CompleteTasks
    has_blueprint: bool = False


class ProducerIntake:
    """Processes the messages of one producer, and passes its rows to the sinks and its results to the listener.

    The aggregator makes this object when it gets the hello. Only the aggregator's thread may call the methods, except
    for those that say otherwise. `listener` is None if the producer is no worker of a pool.
    """

    def __init__(self, hello: Hello, context: IntakeContext, listener: Listener | None) -> None:
        self.hello = hello
        #: True if the producer has sent its last message, `Goodbye`.
        self.said_goodbye: bool = False
        #: True if the producer, which is no worker, has answered `Flush`: all its rows were sent.
        self.has_flushed: bool = False
        #: `time.monotonic()` when rows came last; None if no rows have come.
        self.last_rows_at: float | None = None
        self._context = context
        self._listener = listener
        self._losses = LostRows(hello, context.fanout, listener)
        # Whether nothing more of the producer is used, because its bytes could not be read.
        self._is_cut_off = False
        self._is_ready = False
        self._memory = WorkerMemory(hello, context.folder)
        self._outbox = self._new_outbox(0, _first_reader(hello, context.folder) if self._memory.is_readable else None)
        # Reads the next outbox; None if the producer has not made it yet, or the parent cannot open it.
        self._next_reader: OutboxReader | None = None
        # The number of messages that have arrived. The hello is one of them.
        self._message_count = 1
        self._last_result = 0
        # How many results of a dead worker are not taken from the journal, because their rows were lost.
        self._lost_results = 0
        self._task_recordings = TaskRecordingIntake(
            hello, context.fanout, functools.partial(context.answer, hello), context.totals
        )
        self._owner = RowOwner(hello, listener)
        self._balance = RowBalance(context.totals)

    @guarded
    def take(self, message: Upstream | MessageError) -> None:
        """Process `message`. If it is a `MessageError` or not valid, cut off the producer.

        Raises errors that `is_own_fault` names, such as those of sinks.
        """
        self._message_count += 1
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
            case TaskRecordingRows():
                if missing := self._task_recordings.take(message, wanted=not self._is_cut_off):
                    self._losses.report(f"{self._losses.who}: {missing}", goes_on=True)
            case RowsCounted(rows):
                self._balance.count(rows)
            case NewOutbox(address):
                self._open_next(address)
            case IndicesWanted(count):
                self._context.answer(self.hello, self._context.numbers.answer(count))
            case Sync(0):
                self.has_flushed = True
            case Sync(number, keys):
                self._balance.note_results(1)
                answer = self._losses.answer(number)
                if answer.until < number:
                    # No row is lost of the tasks that have these keys.
                    self._context.complete_tasks.add(keys)
                self._context.answer(self.hello, answer)
            case KeyWanted():
                self._context.answer(self.hello, self._context.complete_tasks.answer(message))
            case Undelivered() if not self._is_cut_off:
                self._losses.report_undelivered(message)
            case Goodbye():
                self.said_goodbye = True
                self._compare_rows()
            case Ready() | Skipped() | InitializerFailed():
                if self._listener is not None:
                    self._report(self._listener, message)
            case Undelivered():
                pass
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
                hear(listener.worker_ready, self.hello, self._memory.page, micros)
                if self._is_cut_off:
                    hear(listener.unfit, self.hello)
            case Skipped():
                hear(listener.skipped, self.hello, message)
            case InitializerFailed():
                hear(listener.initializer_failed, self.hello, message)

    def _settle(self, result: Result) -> None:
        """Pass `result`, whose rows the sinks have, to the listener.

        Does nothing if the listener has got this result or a later one. Raises `MessageError` if the number of `result`
        is too high.
        """
        if result.number > self._last_result + _GAP_MAX:
            raise MessageError(f"result {result.number} behind result {self._last_result}")
        if result.number > self._last_result:
            self._outbox.note_result()
            self._balance.note_results(result.count)
            if self._listener is not None:
                hear(self._listener.result, self.hello, result, self._losses.failure)
            self._last_result = result.number

    def _load(self, message: ResultInMemory) -> Result:
        """Return the result of `message`, with its payload from the journal.

        If the payload cannot be read, cut off the producer, and return the result without payload.
        """
        try:
            return self._memory.load(message)
        except Exception as error:  # noqa: BLE001  # the result is settled in any case, because its caller waits
            self.cut_off(MessageError(f"a result that cannot be read from its memory: {error}"))
            return message.result

    def _new_outbox(self, number: int, reader: OutboxReader | None, *, counts_rows: bool = True) -> OutboxIntake:
        keeps_blueprint = self._context.has_blueprint and self.hello.worker != 0
        fanout = self._context.fanout
        return OutboxIntake(
            self.hello, number, reader, fanout, keeps_blueprint=keeps_blueprint, counts_rows=counts_rows
        )

    def _open_next(self, address: str) -> None:
        """Open the producer's next outbox, unless outboxes are inline or the producer is cut off, and answer.

        The producer writes into the outbox only after the answer, so that the parent can read the outbox even if the
        producer dies. If the outbox cannot be opened, cut off the producer. But if the producer has ended, or if this
        process lacks descriptors, do not answer: the producer asks again.
        """
        if not self.is_inline and not self._is_cut_off:
            if self._next_reader is not None:
                self._next_reader.close()
                self._next_reader = None
            try:
                self._next_reader = OutboxReader(address, self._context.folder)
            except OSError as error:
                if error.errno in PASSING or has_ended(self.hello.pid):
                    return
                self.cut_off(PermissionError(f"its next outbox cannot be opened: {error}"))
        self._context.answer(self.hello, Accepted(self._outbox.number + 1, 0))

    def _switch_outbox(self) -> None:
        """Pass the remaining rows of the current outbox to the sinks. Then make the next outbox the current one.

        Raises `FormatError` if the parent has not opened a next outbox, unless outboxes are inline or the producer is
        cut off.
        """
        if self._next_reader is None and not self.is_inline and not self._is_cut_off:
            raise FormatError("an outbox begins that was not opened")
        self._take_rest()
        self._compare_rows()
        last = self._outbox
        last.close()
        # The rows since the last result are counted only if all of them are in one outbox.
        self._outbox = self._new_outbox(last.number + 1, self._next_reader, counts_rows=last.is_settled)
        self._next_reader = None
        self._owner.outbox_begins(self._outbox.number)

    def _take_segment(self, message: SegmentReady) -> None:
        if message.outbox == self._outbox.number + 1:
            self._switch_outbox()
        elif message.outbox != self._outbox.number:
            raise FormatError(f"outbox {message.outbox} is written, and {self._outbox.number} was")
        self._consume(lambda wanted: self._outbox.consume(message, self._owner.task, wanted=wanted))
        if self.is_inline and (message.data is not None or self._is_cut_off):
            # The producer frees the bytes that this message names. If it was cut off, it may free all of them.
            end = self._outbox.consumed if not self._is_cut_off else message.end
            self._context.answer(self.hello, Accepted(message.outbox, end))

    def _take_rest(self) -> None:
        self._consume(lambda wanted: self._outbox.consume_rest(self._owner.task, wanted=wanted))

    def _consume(self, consume: Callable[[bool], bool]) -> None:
        """Call `consume(wanted)`, which reads rows of the outbox and returns True if the sinks have got some.

        If the bytes are damaged, cut off the producer. From then on, `wanted` is False, and `consume` drops the rows.
        """
        try:
            if consume(not self._is_cut_off):
                self.last_rows_at = time.monotonic()
        except Exception as error:
            if is_own_fault(error):
                raise
            self.cut_off(error)
            # Drop the rows, because the producer may wait until its outbox has room.
            consume(False)
        self._context.on_accepted()

    def cut_off(self, error: Exception) -> None:
        """Use no more rows of the producer, because its bytes have caused `error`. Only the first call has an effect.

        `error` is logged, and written into the recording. A worker's later results fail, and its pool replaces it.
        """
        if self._is_cut_off:
            return
        self._is_cut_off = True
        self._context.fanout.distrust()
        self._losses.report(f"{self._losses.who} {guard.describe(error)}", goes_on=False)

    def _compare_rows(self) -> None:
        """Report rows that the producer has counted and that have not arrived, unless the producer was cut off."""
        if not self._is_cut_off:
            missing = self._balance.compare(self._outbox.number, self._outbox.count_rows())
            if missing:
                self._losses.report(f"{self._losses.who}: {missing}", goes_on=True)

    @guarded
    def take_journaled(self, last: int | None = None) -> None:
        """Pass the journaled results that have not arrived, up to number `last` (None: all), to the listener.

        The sinks get the rows of a result first. A result is not passed if messages that the worker sent before it are
        missing, because they may have rows of its tasks. Does nothing if outboxes are inline, or after the goodbye.
        """
        if self.is_inline or self.said_goodbye:
            # Inline rows come only in messages, so a result could have lost its rows. After `Goodbye`, no result waits.
            return
        if last is None:
            self._owner.use_mark(self._memory.page, self._outbox.number)
        for behind, needed, result in self._memory.results():
            if result.number > self._last_result and (last is None or result.number <= last):
                if needed > self._message_count:
                    self._lost_results += 1
                    continue
                if behind.outbox >= self._outbox.number:
                    self._take_segment(behind)
                self._settle(result)

    def overdue_result(self) -> int:
        """Return `WorkerMemory.overdue_result`: the number of an overdue result, or 0. Any thread may call this."""
        return self._memory.overdue_result(self._last_result, self._message_count)

    @guarded
    def salvage(self) -> None:
        """When the producer or the recording ends, pass the producer's last rows to the sinks. Report missing rows."""
        if not self.said_goodbye:
            self._owner.use_mark(self._memory.page, self._outbox.number)
        if self._next_reader is not None and self._next_reader.size():
            self._switch_outbox()
        self._take_rest()
        page = self._memory.page
        if page is not None and not self.said_goodbye and not self.is_inline:
            self._balance.count(page.flushed_counted_rows())
            self._compare_rows()

    def may_lack_rows(self) -> bool:
        """Return True if the producer was cut off, or has not said goodbye and may have rows that were not sent."""
        if self._is_cut_off or self.said_goodbye:
            return self._is_cut_off
        return not self.has_flushed if self._memory.page is None else self._memory.page.unflushed() > 0

    def loss_notes(self) -> list[str]:
        """Return sentences about lost rows of recordings that tasks have made; an empty list if no loss is known."""
        if (page := self._memory.page) is None or self.said_goodbye:
            return []
        return loss_notes(self.hello, page.unsent_rows(), self._lost_results)

    def close(self) -> None:
        """Close the files of the producer that this process has opened."""
        self._outbox.close()
        if self._next_reader is not None:
            self._next_reader.close()
            self._next_reader = None
        self._memory.close()

    @property
    def is_inline(self) -> bool:
        """True if the bytes of the outbox come in messages, because the parent cannot read the producer's memory."""
        return self._outbox.is_inline

    def has_accepted(self, number: int, end: int) -> bool:
        """Return True if the first `end` bytes of outbox number `number` were processed. Any thread may call this."""
        outbox = self._outbox
        return outbox.number > number or (outbox.number == number and outbox.consumed >= end)

    def rows_logged(self) -> int:
        """Return the number of rows that the producer has logged; 0 if this is not known. Any thread may call this."""
        return self._memory.rows_logged()

    def rows_since_result(self) -> int | None:
        """Return how many of the user's rows have arrived since the last result; None if they cannot be counted."""
        return self._outbox.rows_since_result()


def process_lives(pid: int) -> bool:
    """Return True if a process with the process id `pid` exists, or if the operating system does not say."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _first_reader(hello: Hello, folder: Path) -> OutboxReader | None:
    """Open the first outbox of a producer. If this process cannot open it, log the reason and return None."""
    try:
        return OutboxReader(hello.address, folder)
    except OSError as error:
        _log.debug("outbox of worker %d travels in messages: %s", hello.worker, error)
        return None

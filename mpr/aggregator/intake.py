"""Takes the messages of one producer. Hands its rows to the sinks, and then its results to the listener.

Covers: the messages of one producer, the outboxes of a producer one after another, what a dead producer has left.
Does not cover: which producers are connected or dead (`aggregator.py`), the frames of an outbox (`outbox_intake.py`).

A worker writes each result into a journal in shared memory before it sends the result. If the worker dies, the parent
reads the results that did not arrive from the journal. Beside each result, the journal has an offset in the outbox. The
parent takes the rows up to this offset before it takes the result.

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
from mpr.aggregator.fanout import Fanout
from mpr.aggregator.listener import Listener
from mpr.aggregator.outbox_intake import OutboxIntake
from mpr.aggregator.row_balance import RowBalance, RowTotals
from mpr.aggregator.row_owner import RowOwner
from mpr.errors import DeliveryError, FormatError
from mpr.rrd import framing, store_id
from mpr.rrd.segment import MessageBytes, Segment
from mpr.transport.messages import (
    TASK_RECORDING_ROWS,
    Accepted,
    Goodbye,
    Hello,
    InitializerFailed,
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
from mpr.transport.result_journal import ResultJournalReader
from mpr.transport.status_page import StatusPageReader

_log = logging.getLogger("mpr")

# A journaled result that has not arrived is overdue if its worker began its last work item longer ago than this
# (nanoseconds). A worker sends each result within 0.01 s after the entry in the journal, unless a task keeps the GIL.
_LATE_NANOS = 200_000_000


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
    totals:
        The sums of rows of the recording.
    on_accepted:
        Called when the sinks have taken more rows of an outbox.
    has_blueprint:
        Whether the parent has given a blueprint. If so, no blueprint of a worker replaces the parent's.
    """

    folder: Path
    fanout: Fanout
    answer: Callable[[Hello, Accepted | Synced], None]
    on_accepted: Callable[[], None]
    totals: RowTotals
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
        #: Whether a process that has joined has sent all its rows, because the recording closes.
        self.has_flushed = False
        #: `time.monotonic()` when rows came last; None if no rows have come.
        self.last_rows_at: float | None = None
        self._who = f"worker {hello.worker} (pid {hello.pid})"
        self._context = context
        self._listener = listener
        # The reason why all further rows of the producer are lost; None if no rows are lost.
        self._failure: BaseException | None = None
        self._outbox = self._new_outbox(0, self._open(hello.address))
        # The next outbox; None if the producer has not announced one, or the parent cannot open it.
        self._next_reader: OutboxReader | None = None
        # None if the producer has no status page, or the parent cannot open the page. Usable until `close`.
        self._status_page: StatusPageReader | None = None
        if hello.status_page:
            with contextlib.suppress(OSError):
                self._status_page = StatusPageReader(hello.status_page, context.folder)
        # The number of messages that have arrived, with the hello.
        self._message_count = 1
        self._last_result = 0
        # How many journaled results of a dead worker are not taken, because their rows were lost with the worker.
        self._lost_results = 0
        self._task_recording_bytes = 0
        self._owner = RowOwner(hello, listener)
        self._balance = RowBalance(context.totals)

    # --- messages ----------------------------------------------------------------------------------------------

    def take(self, message: Upstream) -> None:
        """Take the next message of the producer."""
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
                self._take_task_recording(bytes(data))
            case RowsCounted(rows):
                self._balance.count(rows)
            case NewOutbox(address):
                self._open_next(address)
            case Sync(0):
                self.has_flushed = True
            case Sync(number):
                failure = self._context.fanout.failure or self._failure
                self._context.answer(hello, Synced(number, "" if failure is None else str(failure)))
            case Undelivered(reason, rows_are_lost):
                self._failure = DeliveryError(reason) if rows_are_lost else self._failure
                _log.log(logging.ERROR if rows_are_lost else logging.WARNING, "mpr: %s", reason)
                self._context.fanout.note([reason])
            case Goodbye():
                self.said_goodbye = True
                self._compare_rows()
            case Ready() | Skipped() | InitializerFailed():
                if listener is not None:
                    self._report(listener, message)
            case _:
                _log.warning("worker %d sent a message that it should not: %r", hello.worker, message)

    def _report(self, listener: Listener, message: Ready | Skipped | InitializerFailed) -> None:
        match message:
            case Ready(micros):
                listener.worker_ready(self.hello, self._status_page, micros)
            case Skipped():
                listener.skipped(self.hello, message)
            case InitializerFailed():
                listener.initializer_failed(self.hello, message)

    def _settle(self, result: Result) -> None:
        """Hand `result` to the listener, unless the result was taken from the journal before.

        The caller has handed all rows of the result to the sinks.
        """
        if result.number > self._last_result:
            self._last_result = result.number
            self._outbox.note_result()
            self._balance.note_results(result.count)
            if self._listener is not None:
                self._listener.result(self.hello, result, self._context.fanout.failure or self._failure)

    def _load(self, message: ResultInMemory) -> Result:
        """Return the result of `message`, with the payload that the worker has left in its journal."""
        try:
            if self._status_page is None:
                raise OSError("it cannot be opened")
            return ResultJournalReader(self._status_page).take(message)
        except (OSError, ValueError, IndexError) as error:
            self._failure = DeliveryError(f"results of {self._who} cannot be read from its memory: {error}")
            return message.result

    def _take_task_recording(self, data: bytes) -> None:
        """Hand `data` to all sinks: the whole stream of a recording that a task has made itself."""
        fanout = self._context.fanout
        outbox = fanout.new_outbox()
        try:
            framing.check_header(data[: framing.HEADER_SIZE])
            frames = framing.frames_of(data)
            end = frames.pop()
            store = store_id.recording_of_stream(data, frames)
        except (FormatError, IndexError) as error:
            self._lose(f"{self._who} sent data that is no Rerun stream: {error}")
            return
        fanout.write(Segment(outbox, MessageBytes(0, data), frames, store))
        fanout.add_manifests(self.hello, outbox, data[end.payload : end.end])
        self._task_recording_bytes += len(data)
        self._context.answer(self.hello, Accepted(TASK_RECORDING_ROWS, self._task_recording_bytes))

    # --- outboxes ----------------------------------------------------------------------------------------------

    def _open(self, address: str) -> OutboxReader | None:
        """Open the outbox at `address`. Returns None if this fails: the bytes of the outbox then come in messages."""
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
        """Open the next outbox, then answer. The producer writes there only after the answer.

        Rows in an outbox that the parent has opened survive if the producer dies.
        """
        if not self.is_inline:
            self._next_reader = self._open(address)
            if self._next_reader is None:
                self._failure = DeliveryError(f"the data of {self._who} cannot be read any more")
        self._context.answer(self.hello, Accepted(self._outbox.number + 1, 0))

    def _switch_outbox(self) -> None:
        """Take the rest of the present outbox, and go on with the next one."""
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
        self._consume(lambda wanted: self._outbox.consume(message, self._owner.task, wanted=wanted))
        if self.is_inline and message.data is not None:
            self._context.answer(self.hello, Accepted(message.outbox, self._outbox.consumed))

    def _take_rest(self) -> None:
        self._consume(lambda wanted: self._outbox.consume_rest(self._owner.task, wanted=wanted))

    def _consume(self, consume: Callable[[bool], bool]) -> None:
        """Take rows of the present outbox by `consume(wanted)`. No rows are wanted if earlier rows were lost."""
        try:
            if consume(self._failure is None):
                self.last_rows_at = time.monotonic()
        except FormatError as error:
            self._lose(f"{self._who} sent data that is no Rerun stream: {error}")
        self._context.on_accepted()

    def _compare_rows(self) -> None:
        """Compare the rows that have come with those that the producer has counted."""
        if self._failure is None:
            missing = self._balance.compare(self._outbox.number, self._outbox.count_rows())
            if missing:
                self._lose(f"{self._who}: {missing}")
                self._context.fanout.note([f"{self._who}: {missing}"])

    def _lose(self, reason: str) -> None:
        """Have all further results of the producer fail, because rows are lost, and have a pool replace it."""
        self._failure = DeliveryError(reason)
        _log.error("mpr: %s", reason)
        if self._listener is not None:
            self._listener.unfit(self.hello)

    # --- the end of the producer -------------------------------------------------------------------------------

    def take_journaled(self, last: int | None = None) -> None:
        """Take the results that are in the journal but have not arrived, each after its own rows.

        `last` is the highest number of a result to take (None: all results).
        """
        if self._status_page is None or self.is_inline or self.said_goodbye:
            # There is no journal, or the rows before a result come in messages only, or all results have come.
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
        """The number of the last journaled result, if this result is overdue; else 0. Any thread may call this.

        The result counts only if all messages before it have arrived, because these must be taken first.
        """
        # `ValueError` means that another thread is just closing the status page.
        with contextlib.suppress(ValueError):
            status_page = self._status_page
            journaled, behind = (0, 0) if status_page is None else ResultJournalReader(status_page).journaled()
            if status_page is not None and journaled > self._last_result and behind <= self._message_count:
                return journaled if time.monotonic_ns() - status_page.at().begun_ns > _LATE_NANOS else 0
        return 0

    def salvage(self) -> None:
        """Take all whole frames in the present outbox and the next one, also frames that no message has announced."""
        if not self.said_goodbye:
            self._owner.use_mark(self._status_page, self._outbox.number)
        if self._next_reader is not None and self._next_reader.size():
            self._switch_outbox()
        self._take_rest()
        if self._status_page is not None and not self.said_goodbye and not self.is_inline:
            self._balance.count(self._status_page.flushed_counted_rows())
            self._compare_rows()

    def may_lack_rows(self) -> bool:
        """Whether rows may be missing, because the producer has sent no `Goodbye` and may have had unflushed rows."""
        if self.said_goodbye:
            return False
        return not self.has_flushed if self._status_page is None else self._status_page.unflushed() > 0

    def loss_notes(self) -> list[str]:
        """Return sentences about lost rows of recordings that tasks of the process have made themselves."""
        if self._status_page is None or self.said_goodbye:
            return []
        who = f"worker {self.hello.worker}" if self.hello.worker else "a process"
        unsent = self._status_page.unsent_rows()
        return _loss_notes(f"{who} (pid {self.hello.pid}) ended", unsent, self._lost_results)

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


def _loss_notes(ended: str, unsent_rows: int, lost_results: int) -> list[str]:
    """Return sentences about lost rows of recordings that tasks had made themselves. `ended` is their beginning."""
    notes = []
    # The SDK keeps the rows of a recording without a sink in the memory of its process.
    if unsent_rows:
        notes.append(
            f"{ended} with {unsent_rows} {'row' if unsent_rows == 1 else 'rows'} in recordings that its tasks had made "
            "themselves, and they are lost: such rows are taken at the end of each task"
        )
    if lost_results:
        notes.append(
            f"{ended} before rows of recordings that its tasks had made themselves were handed over, and they are "
            "lost: the tasks count as lost with the worker"
        )
    return notes


def process_lives(pid: int) -> bool:
    """Return whether a process with this process id exists, or may exist."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True

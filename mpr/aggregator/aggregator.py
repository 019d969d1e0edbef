"""The receiving end in the parent: takes segments to the sinks, and hands a result on only behind them.

Covers: one thread that reads the upstream socket, the producers and their outboxes, failures of sinks.
Does not cover: tasks and processes (`scheduler`), what a sink does with frames (`sinks`).

The order of the socket is the promise: segments come before the result of their task, the writers have accepted them
when this thread comes to the result, and only then does anybody hear of it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable

from mpr import errors, failpoints
from mpr.aggregator import events
from mpr.aggregator.events import StopRequested, Wakeup, WorkerExited
from mpr.aggregator.fanout import Fanout
from mpr.aggregator.intake import ProducerIntake
from mpr.aggregator.listener import Listener, SurvivingRows
from mpr.errors import DeliveryError, SinkError
from mpr.rrd import framing, store_id
from mpr.rrd.segment import MessageBytes, Segment, SegmentSource
from mpr.transport.messages import (
    PROTOCOL,
    TASK_RECORDING_ROWS,
    Accepted,
    Goodbye,
    Hello,
    InitializerFailed,
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
    Welcome,
)
from mpr.transport.sockets import PeerGoneError, Sockets
from mpr.transport.status_page import StatusPageReader

_log = logging.getLogger("mpr")

_IDLE_SECS = 0.2
# So many steps are done between two messages: neither waits for all of the other.
_STEPS_AT_ONCE = 64
_RETRY_SECS = 0.001
# After a worker's end its last messages may still be in the kernel; ZeroMQ reads them within microseconds.
_DRAIN_QUIET_SECS = 0.02
_DRAIN_LIMIT_SECS = 1.0


class Aggregator:
    """Reads what producers send, in a thread of its own.

    Parameters
    ----------
    sockets:
        The recording's sockets.
    delivery:
        To its sinks.
    own_blueprint:
        Whether the parent has given a blueprint, which one from a worker must not replace.
    """

    def __init__(self, sockets: Sockets, fanout: Fanout, *, has_blueprint: bool = False) -> None:
        self._sockets = sockets
        self._inside = sockets.inside()
        self._fanout = fanout
        fanout.on_failure = self._tell_of_failure
        self._has_blueprint = has_blueprint
        # Rows that producers have logged that are gone.
        self._rows_of_gone = 0
        #: The ids of all processes that have logged or wanted to, and how many of them ended in the middle.
        self.pids: set[int] = set()
        self.incomplete_count = 0
        self._listeners: dict[int, Listener] = {}
        self._producers: dict[str, ProducerIntake] = {}
        self._newcomers: list[tuple[ProducerIntake, Welcome]] = []
        self._dead: list[tuple[WorkerExited, float]] = []
        self._steps: deque[Callable[[], None]] = deque()
        #: Whether the thread was told of steps, and has not looked yet.
        self._nudged = False
        self._stop = self._ended = False
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="mpr-aggregator", daemon=True)

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError:
            # The system gives no more threads.
            self._inside.close()
            raise

    def listen(self, worker: int, listener: Listener) -> None:
        """Any thread: whom to tell of worker `worker` and its results, until its end."""
        self._listeners[worker] = listener

    def is_unknown(self, worker: int) -> bool:
        """Any thread: whether `worker` has not said hello: it has run nothing of a user but the main module."""
        return all(each.hello.worker != worker for each in self._producers.copy().values())

    def worker_died(self, worker: int, exitcode: int | None) -> None:
        """Any thread: the process of `worker` has ended; whatever it had sent is taken first."""
        self._inside.send(events.encode(WorkerExited(worker, exitcode)))

    def soon(self, step: Callable[[], None]) -> None:
        """Any thread: have `step` done in the aggregator's thread, or in this one where that has ended.

        It is done whole, whatever interrupts the caller: Ctrl-C may come between any two of its instructions.
        """
        self._steps.append(step)
        if self._ended:
            self._do_steps(len(self._steps))
        elif not self._nudged:
            # Where this is interrupted, the thread looks all the same when it has waited for a message.
            self._nudged = True
            self._inside.send(events.encode(Wakeup()))

    @property
    def ended(self) -> bool:
        """Whether its thread has ended: the sinks are being closed, or are closed."""
        return self._ended

    def _do_steps(self, most: int) -> None:
        for _ in range(most):
            try:
                step = self._steps.popleft()
            except IndexError:
                return
            step()

    def rows_logged(self) -> int:
        """How many rows the producers have logged until now; for a display, from any thread."""
        return self._rows_of_gone + sum(each.rows_logged() for each in self._producers.copy().values())

    def look(self) -> None:
        """Any thread: take results of workers that cannot send them: native code may keep the GIL for hours."""
        if any(each.overdue_result() for each in self._producers.copy().values()):
            self.soon(self._take_overdue)

    def wait_until_accepted(self, route: str, number: int, end: int, timeout_secs: float) -> bool:
        """Any other thread: wait until the sinks have outbox `number` of a producer up to `end`."""

        def done() -> bool:
            found = self._producers.get(route)
            return self._fanout.failure is not None or (
                found is not None and (found.number > number or (found.number == number and found.consumed >= end))
            )

        with self._progress:
            return self._progress.wait_for(done, timeout_secs)

    def wait_for_goodbyes(self, listener: Listener, timeout_secs: float) -> bool:
        """Any other thread: wait until each worker that `listener` hears of has sent all that it will ever send."""

        def done() -> bool:
            left = {each.hello.worker for each in self._producers.copy().values() if each.said_goodbye}
            heard_of = {worker for worker, hears in self._listeners.copy().items() if hears is listener}
            return self._ended or heard_of <= left

        with self._progress:
            return self._progress.wait_for(done, timeout_secs)

    def stop(self, timeout_secs: float) -> bool:
        """Take all that was sent before, then end the thread; False where it did not end in time (a sink hangs)."""
        self._inside.send(events.encode(StopRequested()))
        self._thread.join(timeout_secs)
        if self._thread.is_alive():
            return False
        self._inside.close()
        return True

    # --- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                waiting = self._newcomers or self._dead
                timeout = 0 if self._stop or self._steps else _RETRY_SECS if waiting else _IDLE_SECS
                received = self._sockets.up.receive(timeout)
                # First this: who comes later sees it, and nudges again.
                self._nudged = False
                self._do_steps(_STEPS_AT_ONCE)
                if isinstance(received, bytes):
                    self._take_event(events.decode(received))
                elif received is not None:
                    self._handle(*received)
                elif self._stop and not self._dead and not self._steps:
                    break
                if self._dead:
                    self._reap_the_dead(queue_is_empty=received is None)
                if self._newcomers:
                    self._welcome()
            for producer in self._producers.values():
                self._salvage(producer)
                self.incomplete_count += producer.may_lack_rows()
            for listener in set(self._listeners.values()):
                listener.recording_ended()
        except BaseException as error:  # noqa: BLE001  # no future may stay without an answer
            _log.error("mpr's aggregator failed:\n%s", traceback.format_exc())
            self._fanout.failure = self._fanout.failure or DeliveryError(f"mpr's aggregator failed: {error!r}")
            for listener in set(self._listeners.values()):
                listener.broken(self._fanout.failure)
        finally:
            for producer in self._producers.values():
                producer.close()
            # What comes from now on, its own thread does.
            self._ended = True
            self._do_steps(len(self._steps))
            self._tell_progress()

    def _tell_progress(self) -> None:
        with self._progress:
            self._progress.notify_all()

    def _take_event(self, event: events.Event) -> None:
        if isinstance(event, WorkerExited):
            self._dead.append((event, time.monotonic()))
        self._stop = self._stop or isinstance(event, StopRequested)

    def _handle(self, hello: Hello, message: Upstream) -> None:
        producer = self._producers.get(hello.route)
        if producer is None:
            if isinstance(message, Hello):
                self._greet(message)
            return
        producer.message_count += 1
        listener = self._listeners.get(hello.worker)
        match message:
            case SegmentReady():
                self._take(producer, message)
            case TaskBegan():
                producer.task = None if listener is None else listener.task_info(hello, message)
            case TaskEnded(seconds, error):
                if producer.task is not None:
                    producer.task.is_over, producer.task.seconds, producer.task.error = True, seconds, error
            case TaskRecordingRows(data):
                self._accept_task_recording(producer, bytes(data))
            case Result():
                failpoints.reach("parent.result")
                self._settle(producer, message)
            case ResultInMemory():
                failpoints.reach("parent.result")
                self._settle(producer, producer.loaded(message))
            case Ready(micros):
                if listener is not None:
                    listener.worker_ready(hello, producer.status_page, micros)
            case Skipped():
                if listener is not None:
                    listener.skipped(hello, message)
            case Undelivered(reason, rows_are_lost):
                producer.failure = DeliveryError(reason) if rows_are_lost else producer.failure
                _log.log(logging.ERROR if rows_are_lost else logging.WARNING, "mpr: %s", reason)
                self._fanout.note([reason])
            case NewOutbox(address):
                self._open_next(producer, address)
            case Sync(number):
                failure = self._fanout.failure or producer.failure
                self._answer(producer, Synced(number, "" if failure is None else str(failure)))
            case Goodbye():
                producer.said_goodbye = True
                if listener is None:
                    # Nobody will tell of its end.
                    self._release(producer)
                self._tell_progress()
            case InitializerFailed():
                if listener is not None:
                    listener.initializer_failed(hello, message)
            case _:
                _log.warning("worker %d sent a message that it should not: %r", hello.worker, message)

    def _greet(self, hello: Hello) -> None:
        if hello.protocol != PROTOCOL:
            _log.error("a producer (pid %d) speaks protocol %d, not %d", hello.pid, hello.protocol, PROTOCOL)
            return
        # Of those that joined by themselves, nobody tells the end; what they leave open here must not pile up.
        for each in list(self._producers.values()):
            self._release_if_dead(each)
        self.pids.add(hello.pid)
        producer = self._producers[hello.route] = ProducerIntake(hello, self._fanout.new_outbox())
        producer.reader = producer.open(hello.address, self._sockets.folder)
        with contextlib.suppress(OSError):
            producer.status_page = (
                StatusPageReader(hello.status_page, self._sockets.folder) if hello.status_page else None
            )
        self._newcomers.append((producer, Welcome(inline=producer.reader is None)))

    def _welcome(self) -> None:
        """Answer those whose second socket is connected; the others get their answer in a millisecond."""
        waiting, self._newcomers = self._newcomers, []
        for producer, welcome in waiting:
            try:
                self._sockets.down.send(producer.hello.route, welcome)
            except PeerGoneError:
                self._newcomers.append((producer, welcome))
        for producer, _ in list(self._newcomers):
            self._release_if_dead(producer)

    def _open_next(self, producer: ProducerIntake, address: str) -> None:
        """The producer waits until its next outbox is open here; from then on nothing in it can be lost."""
        if producer.reader is not None:
            producer.next_reader = producer.open(address, self._sockets.folder)
            if producer.next_reader is None:
                producer.failure = DeliveryError(
                    f"the data of worker {producer.hello.worker} (pid {producer.hello.pid}) cannot be read any more"
                )
        self._answer(producer, Accepted(producer.number + 1, 0))

    def _switch(self, producer: ProducerIntake) -> None:
        """Take what is left in the outbox of `producer`, and go on with its next one."""
        self._take_rest(producer)
        if producer.reader is not None:
            producer.reader.close()
        producer.reader, producer.next_reader = producer.next_reader, None
        producer.number += 1
        producer.begin_outbox(self._fanout.new_outbox())
        if producer.task is not None and producer.task.is_over:
            producer.task = None

    def _answer(self, producer: ProducerIntake, message: Accepted | Synced) -> None:
        # Where it has died, its death is on the way.
        with contextlib.suppress(PeerGoneError):
            self._sockets.down.send(producer.hello.route, message)

    def _take(self, producer: ProducerIntake, message: SegmentReady) -> None:
        if message.outbox == producer.number + 1:
            self._switch(producer)
        if producer.reader is not None:
            self._consume(producer, producer.reader, message.end)
        elif message.data is not None:
            data = producer.incomplete + message.data
            self._consume(producer, MessageBytes(producer.consumed, data), message.end)
            producer.incomplete = data[len(data) - (message.end - producer.consumed) :]
            self._answer(producer, Accepted(message.outbox, producer.consumed))

    def _settle(self, producer: ProducerIntake, result: Result) -> None:
        """All rows of `result` are there: hand it on, where it was not found on the status page before."""
        if result.number > producer.last_result:
            producer.last_result = result.number
            producer.settled_chunks = producer.chunks
            listener = self._listeners.get(producer.hello.worker)
            if listener is not None:
                listener.result(producer.hello, result, self._fanout.failure or producer.failure)

    def _take_overdue(self) -> None:
        for producer in self._producers.values():
            if last := producer.overdue_result():
                self._take_journaled(producer, last)

    def _take_journaled(self, producer: ProducerIntake, last: int | None = None) -> None:
        """Take the results (up to number `last`) that `producer` has noted and not sent, each behind its rows."""
        with contextlib.suppress(OSError, ValueError):
            for behind, result in producer.journaled_results():
                if result.number > producer.last_result and (last is None or result.number <= last):
                    if behind.outbox >= producer.number:
                        self._take(producer, behind)
                    self._settle(producer, result)

    def _accept_task_recording(self, producer: ProducerIntake, data: bytes) -> None:
        """Bring the rows of a recording that a task has made to all writers: `data` is a whole stream of it."""
        outbox = self._fanout.new_outbox()
        try:
            framing.check_header(data[: framing.HEADER_SIZE])
            frames = framing.frames_of(data)
            end = frames.pop()
            store = store_id.recording_of_stream(data, frames)
        except (errors.FormatError, IndexError) as error:
            self._mistrust(producer, error)
            return
        self._fanout.write(Segment(outbox, MessageBytes(0, data), frames, store))
        self._fanout.add_manifests(producer.hello, outbox, data[end.payload : end.end])
        producer.task_recording_bytes += len(data)
        self._answer(producer, Accepted(TASK_RECORDING_ROWS, producer.task_recording_bytes))

    def _mistrust(self, producer: ProducerIntake, error: Exception) -> None:
        producer.failure = DeliveryError(
            f"worker {producer.hello.worker} (pid {producer.hello.pid}) sent data that is no Rerun stream: {error}"
        )
        _log.error("%s", producer.failure)
        if producer.hello.worker in self._listeners:
            self._listeners[producer.hello.worker].unfit(producer.hello)

    def _salvage(self, producer: ProducerIntake) -> None:
        """Take all whole frames that a producer has written, also in the outbox that it did not live to announce."""
        if producer.next_reader is not None and producer.next_reader.size():
            self._switch(producer)
        self._take_rest(producer)

    def _take_rest(self, producer: ProducerIntake) -> None:
        """Take the whole frames that are in the present outbox of `producer`, announced or not."""
        if producer.reader is not None:
            self._consume(producer, producer.reader, producer.reader.size())

    def _consume(self, producer: ProducerIntake, source: SegmentSource, end: int) -> None:
        """Bring the whole frames up to `end` to all writers, then give their memory back."""
        start = producer.consumed
        if end <= start:
            return
        if producer.complete or producer.failure is not None:
            # Nobody wants it, and a worker must not wait for its space.
            producer.consumed = end
            if producer.reader is not None:
                producer.reader.release(start, end)
            return
        try:
            first = start
            if first == 0:
                framing.check_header(source.read(0, framing.HEADER_SIZE))
                first = framing.HEADER_SIZE
            frames, consumed = framing.scan(source.read, first, end)
            footer = None
            if frames and frames[-1].kind == framing.END:
                last = frames.pop()
                footer = source.read(last.payload, last.size)
                # Nothing but the stream's closing bytes follows.
                consumed = end
                producer.complete = True
        except (errors.FormatError, IndexError) as error:
            self._mistrust(producer, error)
            return
        if consumed == start:
            return
        if self._has_blueprint and producer.hello.worker:
            # What a worker sends stays in the recording, and does not become active.
            frames = [frame for frame in frames if frame.kind != framing.BLUEPRINT_ACTIVATION]
        if frames:
            producer.chunks += self._fanout.write(Segment(producer.outbox, source, frames, task=producer.task))
            producer.last_rows_at = time.monotonic()
        if footer is not None:
            self._fanout.add_manifests(producer.hello, producer.outbox, footer, of_task=producer.task is not None)
        if producer.reader is not None:
            producer.reader.release(start, consumed)
        producer.consumed = consumed
        self._tell_progress()

    def _tell_of_failure(self, error: SinkError) -> None:
        # Nobody waits for hours for a result that will be this error.
        for listener in set(self._listeners.values()):
            listener.sink_failed(error)

    def _reap_the_dead(self, queue_is_empty: bool) -> None:
        """Settle the affairs of workers that have ended, once what they had sent has come."""
        now = time.monotonic()
        for died, since in list(self._dead):
            found = [each for each in self._producers.values() if each.hello.worker == died.worker]
            settled = all(each.said_goodbye for each in found)
            if settled or now > since + (_DRAIN_QUIET_SECS if queue_is_empty else _DRAIN_LIMIT_SECS):
                self._dead.remove((died, since))
                self._reap(died, found)

    def _reap(self, died: WorkerExited, found: list[ProducerIntake]) -> None:
        listener = self._listeners.get(died.worker)
        last = max((each.last_rows_at for each in found if each.last_rows_at is not None), default=None)
        silent_secs = None if last is None else time.monotonic() - last
        for producer in found:
            self._take_journaled(producer)
            self._salvage(producer)
        if listener is not None:

            def kept() -> SurvivingRows:
                rows = found[0].rows_since_result(self._fanout.rows_after) if len(found) == 1 else None
                return SurvivingRows(rows, silent_secs)

            said_goodbye = bool(found) and found[0].said_goodbye
            self._fanout.note(listener.worker_ended(died.worker, died.exitcode, said_goodbye, kept))
            self._listeners.pop(died.worker, None)
        for producer in found:
            self._release(producer)
        self._tell_progress()

    def _release(self, producer: ProducerIntake) -> None:
        """Take what is left of a producer that has ended, and forget it."""
        self._salvage(producer)
        if producer.status_page is not None:
            self._rows_of_gone += producer.status_page.rows()
            told = producer.told_of_loss()
            if told:
                _log.warning("mpr: %s", told)
                self._fanout.note([told])
        self.incomplete_count += producer.may_lack_rows()
        producer.close()
        self._sockets.up.forget(producer.hello)
        del self._producers[producer.hello.route]
        self._newcomers = [each for each in self._newcomers if each[0] is not producer]

    def _release_if_dead(self, producer: ProducerIntake) -> None:
        # Where its outbox cannot be opened, its process id may be one of another container.
        told = producer.hello.worker in self._listeners or producer.reader is None
        if not told and not producer.lives():
            self._release(producer)

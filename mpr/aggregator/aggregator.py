"""Runs the one thread that reads the messages of all producers of a recording, and handles the ends of producers.

A *listener* gets the results of a worker for its pool. To *reap* a dead worker is to pass the rows and results that it
has left to the sinks and the listener, and to report its end to the listener.

A producer sends the rows of a task before the result of the task, and the thread processes the messages of a producer
in their order. So the listener gets a result only after the durable sinks have got the rows of the task. If rows of the
producer are lost, the listener gets each later result with an error.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable

from mpr.aggregator import events, guard
from mpr.aggregator.complete_tasks import CompleteTasks
from mpr.aggregator.events import StopRequested, Wakeup, WorkerExited
from mpr.aggregator.fanout import Fanout
from mpr.aggregator.farewell import FlushRequests, note_losses
from mpr.aggregator.intake import IntakeContext, ProducerIntake, process_lives
from mpr.aggregator.listener import Listener, SurvivingRows
from mpr.aggregator.numbers import RecordingNumbers
from mpr.aggregator.row_balance import RowTotals
from mpr.aggregator.steps import StepQueue
from mpr.errors import DeliveryError, SinkError
from mpr.threads import AGGREGATOR
from mpr.transport.messages import PROTOCOL, Accepted, Flush, Goodbye, Hello, Indices, KeyAnswer, Synced, Upstream
from mpr.transport.packing import MessageError
from mpr.transport.sockets import PeerGoneError, Sockets
from mpr.user_code import log as _log
from mpr.user_code import represent, traceback_text

# The thread waits this long for a message if it has nothing else to do.
_IDLE_SECS = 0.2
# The largest number of steps (`StepQueue`) that run between two messages. Without this limit, messages would wait as
# long as other threads keep adding steps.
_STEPS_AT_ONCE = 64
# The thread waits this long for a message if it must soon look again at a new producer or a dead worker.
_RETRY_SECS = 0.001
# To *reap* a worker is to take the rows and results that it has left, and to report its end. The last messages of a
# worker that has ended may still be in the kernel, from which ZeroMQ reads them within microseconds. So a worker that
# has sent no `Goodbye` is reaped `_DRAIN_QUIET_SECS` after its end, as soon as the queue of messages is empty. It is
# reaped after `_DRAIN_LIMIT_SECS` in any case.
_DRAIN_QUIET_SECS = 0.02
_DRAIN_LIMIT_SECS = 1.0


class Aggregator:
    """Reads the messages of all producers of one recording, in a thread of its own.

    Passes rows to `fanout`, and the results of a worker to its listener. `start` starts the thread, and `stop` ends it.
    `has_blueprint` is True if the parent has set a blueprint, which no blueprint of a worker may replace.
    """

    def __init__(self, sockets: Sockets, fanout: Fanout, *, has_blueprint: bool = False) -> None:
        self._sockets = sockets
        self._fanout = fanout
        fanout.watch_failures(self._report_sink_failure)
        #: The numbers of rows that producers have logged, that have reached the sinks, and that are lost.
        self.row_totals: RowTotals = RowTotals()
        self.numbers: RecordingNumbers = RecordingNumbers()
        self.complete_tasks: CompleteTasks = CompleteTasks(sockets.folder)
        self._context = IntakeContext(
            folder=sockets.folder,
            fanout=fanout,
            answer=self._answer,
            on_accepted=self._notify_progress,
            totals=self.row_totals,
            numbers=self.numbers,
            complete_tasks=self.complete_tasks,
            has_blueprint=has_blueprint,
        )
        self._rows_of_gone = 0  # the number of rows of producers that have ended
        #: The ids of all processes whose hello was accepted, whether they have logged rows or not.
        self.pids: set[int] = set()
        #: How many producers that have ended may have lost rows (see `ProducerIntake.may_lack_rows`).
        self.incomplete_count: int = 0
        self._listeners: dict[int, Listener] = {}
        self._intakes: dict[str, ProducerIntake] = {}
        self.flush_requests: FlushRequests = FlushRequests(self._intakes, self._answer, self.soon)
        # Producers whose hello has no answer yet, because they are not connected to the socket for answers.
        self._newcomers: list[ProducerIntake] = []
        # Workers that have exited and are not reaped yet, each with the time when this thread got `WorkerExited`.
        self._dead: list[tuple[WorkerExited, float]] = []
        self._steps = StepQueue(functools.partial(sockets.up.post, events.encode(Wakeup())))
        self._stop_requested = False
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=AGGREGATOR, daemon=True)

    def start(self) -> None:
        """Start the thread. Raises `RuntimeError` if the operating system cannot start one more thread."""
        self._thread.start()

    # --- from other threads ------------------------------------------------------------------------------------

    def listen(self, worker: int, listener: Listener) -> None:
        """Report the results and the end of worker number `worker` to `listener`. Any thread may call this.

        Call this before the worker sends its hello. When the hello arrives, the worker's intake gets this listener.
        """
        self._listeners[worker] = listener

    def is_unknown(self, worker: int) -> bool:
        """Return True if worker number `worker` has sent no hello, or was reaped. Any thread may call this."""
        return all(each.hello.worker != worker for each in self._intakes.copy().values())

    def worker_died(self, worker: int, exitcode: int | None) -> None:
        """Tell the aggregator's thread that worker number `worker` has ended with `exitcode` (None: unknown).

        That thread then reaps the worker, within about 1 s if no sink is slow. Any thread may call this method, which
        does not wait.
        """
        self._sockets.up.post(events.encode(WorkerExited(worker, exitcode)))

    def soon(self, step: Callable[[], None]) -> None:
        """Have the aggregator's thread call `step`, without waiting. Any thread may call this.

        If that thread has ended, `step` is called before this method returns.
        """
        self._steps.add(step)

    @property
    def ended(self) -> bool:
        """True if the aggregator's thread has ended or runs its last steps, and so passes no more rows to sinks."""
        return self._steps.closed

    def rows_logged(self) -> int:
        """Return how many rows all producers have logged until now. Any thread may call this.

        Rows of a producer whose status page the parent cannot read are not counted.
        """
        return self._rows_of_gone + sum(each.rows_logged() for each in self._intakes.copy().values())

    def look(self) -> None:
        """Have the aggregator's thread read overdue results from the journals. Any thread may call this.

        A result is overdue if it should have arrived, but has not, for example because native code of the worker's next
        task keeps the GIL.
        """
        if any(each.overdue_result() for each in self._intakes.copy().values()):
            self.soon(self._take_overdue)

    def wait_until_accepted(self, route: str, number: int, end: int, timeout_secs: float) -> bool:
        """Wait until the first `end` bytes of outbox number `number` of the producer named `route` were processed.

        Returns True then, and also as soon as `fanout.failure` is set. Returns False if neither happens within
        `timeout_secs`. Any thread but the aggregator's may call this.
        """

        def is_accepted() -> bool:
            found = self._intakes.get(route)
            return self._fanout.failure is not None or (found is not None and found.has_accepted(number, end))

        with self._progress:
            return self._progress.wait_for(is_accepted, timeout_secs)

    def wait_for_goodbyes(self, listener: Listener, timeout_secs: float) -> bool:
        """Wait until each worker of `listener` has said goodbye or was reaped, or until the aggregator has ended.

        Returns False if none of this happens within `timeout_secs`. Any thread but the aggregator's may call this.
        """

        def have_left() -> bool:
            left = {each.hello.worker for each in self._intakes.copy().values() if each.said_goodbye}
            heard_of = {worker for worker, hears in self._listeners.copy().items() if hears is listener}
            return self.ended or heard_of <= left

        with self._progress:
            return self._progress.wait_for(have_left, timeout_secs)

    def stop(self, timeout_secs: float) -> bool:
        """Have the aggregator's thread process all messages that were sent before, and then end.

        Waits up to `timeout_secs`. Returns False if the thread still runs then, for example because a sink hangs.
        """
        self._sockets.up.post(events.encode(StopRequested()))
        self._thread.join(timeout_secs)
        return not self._thread.is_alive()

    # --- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._take_next():
                pass
            for intake in self._intakes.values():
                intake.salvage()
                note_losses(intake, self._fanout)
                self.incomplete_count += intake.may_lack_rows()
            for listener in set(self._listeners.values()):
                listener.recording_ended()
        except BaseException as error:  # noqa: BLE001  # no future may stay without an answer
            _log.error("mpr's aggregator failed:\n%s", traceback_text(error))
            failure = self._fanout.give_up(DeliveryError(f"mpr's aggregator failed: {represent(error)}"))
            for listener in set(self._listeners.values()):
                listener.broken(failure)
        finally:
            for intake in self._intakes.values():
                intake.close()
            self.complete_tasks.close()
            self._steps.close()
            self._notify_progress()

    def _take_next(self) -> bool:
        """Run steps, process the next message or event if there is one, reap dead workers, and answer new producers.

        Returns False if the thread must end, because `stop` was called and no work is left.
        """
        waiting = self._newcomers or self._dead
        timeout_secs = 0 if self._stop_requested or self._steps else _RETRY_SECS if waiting else _IDLE_SECS
        received = self._sockets.up.receive(timeout_secs)
        self._steps.run(_STEPS_AT_ONCE)
        if isinstance(received, bytes):
            event = events.decode(received)
            if isinstance(event, WorkerExited):
                self._dead.append((event, time.monotonic()))
            self._stop_requested = self._stop_requested or isinstance(event, StopRequested)
        elif received is not None:
            self._take_message(*received)
        elif self._stop_requested and not self._dead and not self._steps:
            return False
        if self._dead:
            self._reap_the_dead(queue_is_empty=received is None)
        if self._newcomers:
            self._welcome()
        return True

    def _notify_progress(self) -> None:
        with self._progress:
            self._progress.notify_all()

    def _take_message(self, hello: Hello, message: Upstream | MessageError) -> None:
        intake = self._intakes.get(hello.route)
        if intake is None:
            if isinstance(message, Hello):
                self._greet(message)
            return
        if intake.hello is not hello:
            # Another process has sent a hello with the name of this producer, so nothing that it sends is used.
            self._sockets.up.forget(hello)
            return
        intake.take(message)
        if isinstance(message, Goodbye):
            if hello.worker not in self._listeners:
                # This producer is no worker of a pool, so nothing else will report its end.
                self._release(intake)
            self._notify_progress()

    def _take_overdue(self) -> None:
        for intake in self._intakes.values():
            if last := intake.overdue_result():
                intake.take_journaled(last)

    def _answer(self, hello: Hello, message: Accepted | Synced | Indices | KeyAnswer | Flush) -> None:
        # `PeerGoneError` means that the producer has ended. A dead producer needs no answer.
        with contextlib.suppress(PeerGoneError):
            self._sockets.down.send(hello.route, message)

    def _report_sink_failure(self, error: SinkError) -> None:
        # Report the error to the callers of tasks now. The next result would have it too, but may come hours later.
        for listener in set(self._listeners.values()):
            listener.sink_failed(error)

    # --- producers come and go ---------------------------------------------------------------------------------

    def _greet(self, hello: Hello) -> None:
        if hello.protocol != PROTOCOL:
            _log.error("a producer (pid %d) speaks protocol %d, not %d", hello.pid, hello.protocol, PROTOCOL)
            return
        # Nothing reports the end of a producer that is no worker, and its files would stay open.
        for each in list(self._intakes.values()):
            self._release_if_dead(each)
        try:
            guard.check_hello(hello)
            if hello.worker and any(each.hello.worker == hello.worker for each in self._intakes.values()):
                raise MessageError(f"it is not worker {hello.worker}, which has said hello before")
            intake = ProducerIntake(hello, self._context, self._listeners.get(hello.worker))
        except Exception as error:  # noqa: BLE001  # whatever the bytes of a hello raise
            _log.error("mpr: a process %s", guard.describe(error))
            self._sockets.up.forget(hello)
            return
        self.pids.add(hello.pid)
        self._intakes[hello.route] = intake
        self._newcomers.append(intake)

    def _welcome(self) -> None:
        """Answer each new producer that can get messages now. Of the others, release those that have ended."""
        waiting, self._newcomers = self._newcomers, []
        for intake in waiting:
            try:
                welcome = self.numbers.welcome(intake.hello, intake.is_inline, self.complete_tasks.key_filter)
                self._sockets.down.send(intake.hello.route, welcome)
            except PeerGoneError:
                self._newcomers.append(intake)
        for intake in list(self._newcomers):
            self._release_if_dead(intake)

    def _reap_the_dead(self, queue_is_empty: bool) -> None:
        """Reap each exited worker that has said goodbye or sent no hello, and any other one after a delay.

        The delay is 0.02 s if no message waits (`queue_is_empty`), else 1 s.
        """
        now = time.monotonic()
        for died, since in list(self._dead):
            found = [each for each in self._intakes.values() if each.hello.worker == died.worker]
            is_drained = all(each.said_goodbye for each in found)
            if is_drained or now > since + (_DRAIN_QUIET_SECS if queue_is_empty else _DRAIN_LIMIT_SECS):
                self._dead.remove((died, since))
                self._reap(died, found)

    def _reap(self, died: WorkerExited, found: list[ProducerIntake]) -> None:
        """Reap a dead worker. `found` has its intake, and is empty if the worker has sent no hello."""
        listener = self._listeners.get(died.worker)
        last = max((each.last_rows_at for each in found if each.last_rows_at is not None), default=None)
        silent_secs = None if last is None else time.monotonic() - last
        for intake in found:
            intake.take_journaled()
            intake.salvage()
        if listener is not None:

            def survived() -> SurvivingRows:
                return SurvivingRows(found[0].rows_since_result() if len(found) == 1 else None, silent_secs)

            said_goodbye = bool(found) and found[0].said_goodbye
            self._fanout.note(listener.worker_ended(died.worker, died.exitcode, said_goodbye, survived))
            self._listeners.pop(died.worker, None)
        for intake in found:
            self._release(intake)
        self._notify_progress()

    def _release(self, intake: ProducerIntake) -> None:
        """Pass the rows that a producer has left to the sinks, note those that are lost, and forget the producer."""
        intake.salvage()
        self._rows_of_gone += intake.rows_logged()
        note_losses(intake, self._fanout)
        self.incomplete_count += intake.may_lack_rows()
        intake.close()
        self._sockets.up.forget(intake.hello)
        del self._intakes[intake.hello.route]
        self._newcomers = [each for each in self._newcomers if each is not intake]

    def _release_if_dead(self, intake: ProducerIntake) -> None:
        # The pool reports the end of its workers, so workers are skipped here. An inline producer may run in another
        # container, and its process id then means nothing in the parent's container.
        is_unsure = intake.hello.worker in self._listeners or intake.is_inline
        if not is_unsure and not process_lives(intake.hello.pid):
            self._release(intake)

"""The receiving end in the parent: hands rows to the sinks, and each result to its listener behind its rows.

Covers: the one thread that reads the upstream socket, the producers that are connected, the deaths of workers.
Does not cover: the messages of one producer (`intake.py`), tasks and processes (`scheduler`), the sinks (`sinks`).

The order of the socket keeps the promise. Segments come before the result of their task. The sinks have accepted them
when this thread comes to the result, and only then does it hand the result on.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import traceback
from collections.abc import Callable

from mpr.aggregator import events
from mpr.aggregator.events import StopRequested, Wakeup, WorkerExited
from mpr.aggregator.fanout import Fanout
from mpr.aggregator.intake import IntakeContext, ProducerIntake
from mpr.aggregator.listener import Listener, SurvivingRows
from mpr.aggregator.steps import StepQueue
from mpr.errors import DeliveryError, SinkError
from mpr.transport.messages import PROTOCOL, Accepted, Goodbye, Hello, Synced, Upstream, Welcome
from mpr.transport.sockets import PeerGoneError, Sockets

_log = logging.getLogger("mpr")

_IDLE_SECS = 0.2
# At most so many steps are done between two messages, so that neither waits for all of the other.
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
        The sockets of the recording.
    fanout:
        Takes rows to the sinks of the recording.
    has_blueprint:
        Whether the parent has given a blueprint, which one from a worker must not replace.
    """

    def __init__(self, sockets: Sockets, fanout: Fanout, *, has_blueprint: bool = False) -> None:
        self._sockets = sockets
        self._inside = sockets.inside()
        self._fanout = fanout
        fanout.watch_failures(self._report_sink_failure)
        self._context = IntakeContext(
            folder=sockets.folder,
            fanout=fanout,
            answer=self._answer,
            on_accepted=self._notify_progress,
            has_blueprint=has_blueprint,
        )
        # Rows that producers have logged which are connected no more.
        self._rows_of_gone = 0
        #: The ids of all processes that have logged, or were ready to.
        self.pids: set[int] = set()
        #: How many processes have ended with rows that they had not flushed.
        self.incomplete_count = 0
        self._listeners: dict[int, Listener] = {}
        self._intakes: dict[str, ProducerIntake] = {}
        # Their second socket is not connected yet, so that they have no answer to their hello.
        self._newcomers: list[ProducerIntake] = []
        # Workers that have exited, each with the time when this thread heard of it.
        self._dead: list[tuple[WorkerExited, float]] = []
        self._steps = StepQueue(functools.partial(self._inside.send, events.encode(Wakeup())))
        self._stop_requested = False
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="mpr-aggregator", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises `RuntimeError` if the system gives no more threads."""
        try:
            self._thread.start()
        except RuntimeError:
            self._inside.close()
            raise

    # --- from other threads ------------------------------------------------------------------------------------

    def listen(self, worker: int, listener: Listener) -> None:
        """Any thread: report worker `worker` and its results to `listener`, until the worker's end."""
        self._listeners[worker] = listener

    def is_unknown(self, worker: int) -> bool:
        """Any thread: whether `worker` has not said hello. It has run no code of a user but the main module then."""
        return all(each.hello.worker != worker for each in self._intakes.copy().values())

    def worker_died(self, worker: int, exitcode: int | None) -> None:
        """Any thread: the process of `worker` has ended. What it had sent is taken first."""
        self._inside.send(events.encode(WorkerExited(worker, exitcode)))

    def soon(self, step: Callable[[], None]) -> None:
        """Any thread: have `step` done by the aggregator's thread, or by this one if that has ended.

        The step runs to its end even if Ctrl-C interrupts the caller between any two instructions.
        """
        self._steps.add(step)

    @property
    def ended(self) -> bool:
        """Whether the aggregator's thread has ended: the sinks are being closed, or are closed."""
        return self._steps.closed

    def rows_logged(self) -> int:
        """Any thread: how many rows the producers have logged until now, for a display."""
        return self._rows_of_gone + sum(each.rows_logged() for each in self._intakes.copy().values())

    def look(self) -> None:
        """Any thread: take results of workers that cannot send them, because native code keeps the GIL."""
        if any(each.overdue_result() for each in self._intakes.copy().values()):
            self.soon(self._take_overdue)

    def wait_until_accepted(self, route: str, number: int, end: int, timeout_secs: float) -> bool:
        """Any other thread: wait until the sinks have outbox `number` of a producer up to offset `end`."""

        def is_accepted() -> bool:
            found = self._intakes.get(route)
            return self._fanout.failure is not None or (found is not None and found.has_accepted(number, end))

        with self._progress:
            return self._progress.wait_for(is_accepted, timeout_secs)

    def wait_for_goodbyes(self, listener: Listener, timeout_secs: float) -> bool:
        """Any other thread: wait until each worker that `listener` hears of has sent all that it will ever send."""

        def have_left() -> bool:
            left = {each.hello.worker for each in self._intakes.copy().values() if each.said_goodbye}
            heard_of = {worker for worker, hears in self._listeners.copy().items() if hears is listener}
            return self.ended or heard_of <= left

        with self._progress:
            return self._progress.wait_for(have_left, timeout_secs)

    def stop(self, timeout_secs: float) -> bool:
        """Take all that was sent before, then end the thread. Returns False if a sink hangs: it did not end."""
        self._inside.send(events.encode(StopRequested()))
        self._thread.join(timeout_secs)
        if self._thread.is_alive():
            return False
        self._inside.close()
        return True

    # --- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._take_next():
                pass
            for intake in self._intakes.values():
                intake.salvage()
                self.incomplete_count += intake.may_lack_rows()
            for listener in set(self._listeners.values()):
                listener.recording_ended()
        except BaseException as error:  # noqa: BLE001  # no future may stay without an answer
            _log.error("mpr's aggregator failed:\n%s", traceback.format_exc())
            failure = self._fanout.give_up(DeliveryError(f"mpr's aggregator failed: {error!r}"))
            for listener in set(self._listeners.values()):
                listener.broken(failure)
        finally:
            for intake in self._intakes.values():
                intake.close()
            self._steps.close()
            self._notify_progress()

    def _take_next(self) -> bool:
        """Take the next message, if one comes, and what is due beside it. Returns False when all is done."""
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

    def _take_message(self, hello: Hello, message: Upstream) -> None:
        intake = self._intakes.get(hello.route)
        if intake is None:
            if isinstance(message, Hello):
                self._greet(message)
            return
        intake.take(message)
        if isinstance(message, Goodbye):
            if hello.worker not in self._listeners:
                # Only a worker of a pool has a supervisor that reports its end.
                self._release(intake)
            self._notify_progress()

    def _take_overdue(self) -> None:
        for intake in self._intakes.values():
            if last := intake.overdue_result():
                intake.take_journaled(last)

    def _answer(self, hello: Hello, message: Accepted | Synced) -> None:
        # If the producer has died, its death is on the way.
        with contextlib.suppress(PeerGoneError):
            self._sockets.down.send(hello.route, message)

    def _report_sink_failure(self, error: SinkError) -> None:
        # Callers need not wait for hours for a result that will be this error.
        for listener in set(self._listeners.values()):
            listener.sink_failed(error)

    # --- producers come and go ---------------------------------------------------------------------------------

    def _greet(self, hello: Hello) -> None:
        if hello.protocol != PROTOCOL:
            _log.error("a producer (pid %d) speaks protocol %d, not %d", hello.pid, hello.protocol, PROTOCOL)
            return
        # No supervisor reports the end of a process that joined by itself, and its open files must not pile up here.
        for each in list(self._intakes.values()):
            self._release_if_dead(each)
        self.pids.add(hello.pid)
        intake = self._intakes[hello.route] = ProducerIntake(hello, self._context, self._listeners.get(hello.worker))
        self._newcomers.append(intake)

    def _welcome(self) -> None:
        """Answer the newcomers whose second socket is connected; the others get their answer in a millisecond."""
        waiting, self._newcomers = self._newcomers, []
        for intake in waiting:
            try:
                self._sockets.down.send(intake.hello.route, Welcome(inline=intake.is_inline))
            except PeerGoneError:
                self._newcomers.append(intake)
        for intake in list(self._newcomers):
            self._release_if_dead(intake)

    def _reap_the_dead(self, queue_is_empty: bool) -> None:
        """Reap workers that have exited, once everything that they sent has been read."""
        now = time.monotonic()
        for died, since in list(self._dead):
            found = [each for each in self._intakes.values() if each.hello.worker == died.worker]
            is_drained = all(each.said_goodbye for each in found)
            if is_drained or now > since + (_DRAIN_QUIET_SECS if queue_is_empty else _DRAIN_LIMIT_SECS):
                self._dead.remove((died, since))
                self._reap(died, found)

    def _reap(self, died: WorkerExited, found: list[ProducerIntake]) -> None:
        """Take all that is left of a worker, and report its end."""
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
        """Take what is left of a producer that has ended, and forget it."""
        intake.salvage()
        self._rows_of_gone += intake.rows_logged()
        notes = intake.loss_notes()
        for note in notes:
            _log.warning("mpr: %s", note)
        self._fanout.note(notes)
        self.incomplete_count += intake.may_lack_rows()
        intake.close()
        self._sockets.up.forget(intake.hello)
        del self._intakes[intake.hello.route]
        self._newcomers = [each for each in self._newcomers if each is not intake]

    def _release_if_dead(self, intake: ProducerIntake) -> None:
        # If its outbox cannot be opened, its process id may be one of another container.
        is_unsure = intake.hello.worker in self._listeners or intake.is_inline
        if not is_unsure and not intake.lives():
            self._release(intake)

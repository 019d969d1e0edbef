"""Brings parcels of tasks to workers and their outcomes to the callers.

Covers: what is on its way, what a result or a worker's end means for it, when a pool has done everything.
Does not cover: which worker gets what (`scheduler.py`), processes (`crew.py`), rows (`aggregator.py`).

Callers submit from any thread; everything else happens in the aggregator's thread. The lock is held for bookkeeping
and for handing messages to ZeroMQ, never while anything is waited for or a user's callback runs.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

from mpr import pickling
from mpr.errors import (
    DeliveryError,
    InitializerError,
    PoolClosedError,
    PoolTerminatedError,
    WorkerDiedError,
    WorkerStartError,
    describe_exit,
)
from mpr.lifecycle import PoolState, StartBudget
from mpr.messages import LOST, OK, Buffer, Function, Hello, InitializerFailed, Result, Stop, Tasks
from mpr.scheduler import Scheduler
from mpr.transport import DownstreamServer, PeerGoneError

_log = logging.getLogger("mpr")

Deliver = Callable[[Any, BaseException | None], None]


@dataclass(frozen=True, slots=True)
class TaskFunction:
    """A task function, ready to travel: its name for messages, its pickle, and the digest that stands for it."""

    name: str
    digest: bytes
    code: bytes

    @classmethod
    def of(cls, function: Callable[..., Any]) -> TaskFunction:
        """Raises `UnpicklableTaskError` where `function` cannot travel."""
        return cls(pickling.task_name(function), *pickling.dump_function(function))


@dataclass(eq=False, slots=True, kw_only=True)
class Parcel:
    """One or several tasks of one call, sent to a worker in one message.

    Attributes
    ----------
    name:
        For messages: the function and the index of the first task, `detect[3]`.
    function:
        What to call.
    mode, payload:
        How to call it, with which arguments.
    deliver:
        Called once with the result or the error.
    """

    name: str
    function: TaskFunction
    mode: int
    payload: Sequence[Buffer]
    deliver: Deliver
    number: int = 0


@dataclass(slots=True)
class _Hand:
    """A worker that is ready: how to reach it, and which functions it has."""

    route: str
    pid: int
    functions: set[bytes] = field(default_factory=set)


class Dispatcher:
    """The tasks of one pool."""

    def __init__(
        self,
        down: DownstreamServer,
        maxtasksperchild: int | None,
        *,
        note_ready: Callable[[], None],
        replace_worker: Callable[[], None],
    ) -> None:
        self._down = down
        self._limit = maxtasksperchild
        self._note_ready = note_ready
        self._replace_worker = replace_worker
        self._lock = threading.Lock()
        self._all_done = threading.Condition(self._lock)
        self._scheduler: Scheduler[Parcel] = Scheduler()
        self._numbers = itertools.count(1)
        self._parcels: dict[int, Parcel] = {}
        self._delivering = 0
        #: Calls that will submit more parcels.
        self._feeding = 0
        self._hands: dict[int, _Hand] = {}
        self._budget = StartBudget()
        self.state = PoolState.RUNNING
        self._broken: BaseException | None = None
        #: Whether somebody has been given the error that ended the pool.
        self._reported = False

    # --- from callers ------------------------------------------------------------------------------------------

    def check_running(self) -> None:
        """Raise what a new call has to raise now, if anything."""
        if self._broken is not None:
            self._reported = True
            raise self._broken
        if self.state is not PoolState.RUNNING:
            raise PoolClosedError("this pool is closed: it takes no more tasks. Make a new mpr.Pool for them")

    def submit(self, parcel: Parcel) -> None:
        """Have `parcel` run; its outcome goes to `parcel.deliver`. Nothing is raised once the pool was running."""
        with self._lock:
            error = self.ending_error()
            if error is None:
                parcel.number = next(self._numbers)
                self._parcels[parcel.number] = parcel
                self._send(self._scheduler.add(parcel))
                return
        parcel.deliver(None, error)

    def feeding(self, change: int) -> None:
        """A call begins (1) or ends (-1) to submit parcels of its own accord."""
        with self._lock:
            self._feeding += change
            self._all_done.notify_all()

    def close(self) -> None:
        with self._lock:
            if self.state is PoolState.RUNNING:
                self.state = PoolState.CLOSED

    def wait_until_done(self) -> None:
        """After `close`: wait until every parcel has its outcome. Raises `InitializerError` and its like."""
        with self._lock:
            while self._parcels or self._delivering or (self._feeding and self.state is not PoolState.TERMINATED):
                # In turns, so that Ctrl-C is noticed on every platform.
                self._all_done.wait(1.0)
            for hand in self._hands.values():
                self._stop(hand)

    def terminate(self, error: BaseException | None = None) -> None:
        """Give every parcel that has no outcome an error, `PoolTerminatedError` by default."""
        with self._lock:
            self.state = PoolState.TERMINATED
            self._broken = self._broken or error
            pending = list(self._parcels.values())
            self._parcels.clear()
            self._scheduler.drop_waiting()
            self._reported = self._reported or bool(pending)
            self._all_done.notify_all()
        for parcel in pending:
            self._deliver(parcel, None, error or self._terminated())

    def drop_waiting(self) -> None:
        """Cancel every parcel that no worker has."""
        with self._lock:
            dropped = self._scheduler.drop_waiting()
            for parcel in dropped:
                del self._parcels[parcel.number]
            self._all_done.notify_all()
        for parcel in dropped:
            self._deliver(parcel, None, CancelledError())

    @property
    def broke(self) -> bool:
        """Whether an error has ended the pool."""
        return self._broken is not None

    def raise_unreported(self) -> None:
        """Raise what ended the pool, where no call has raised it yet."""
        if self._broken is not None and not self._reported:
            self._reported = True
            raise self._broken

    def ending_error(self) -> BaseException | None:
        """What a call gets that is not finished when the pool is; None while it works."""
        return self._broken or self._terminated()

    def _terminated(self) -> PoolTerminatedError | None:
        if self.state is PoolState.TERMINATED:
            return PoolTerminatedError("the pool was terminated before this task had a result")
        return None

    # --- from the aggregator -----------------------------------------------------------------------------------

    def worker_ready(self, hello: Hello) -> None:
        with self._lock:
            self._budget.started()
            hand = self._hands[hello.worker] = _Hand(hello.route, hello.pid)
            if self.state is not PoolState.RUNNING and not self._parcels and not self._feeding:
                self._stop(hand)
            self._send(self._scheduler.ready(hello.worker, self._limit))
        self._note_ready()

    def result(self, hello: Hello, result: Result, failure: BaseException | None) -> None:
        with self._lock:
            parcel = self._parcels.pop(result.parcel, None)
            if parcel is None:
                # Of a call that was terminated.
                return
            self._delivering += 1
            self._send(self._scheduler.done(hello.worker, parcel, result.micros))
            if self._scheduler.exhausted(hello.worker) and hello.worker in self._hands:
                self._stop(self._hands[hello.worker])
        try:
            if failure is not None:
                self._deliver(parcel, None, failure)
            elif result.status == LOST:
                where = f"worker {hello.worker} (pid {hello.pid})"
                self._deliver(
                    parcel, None, DeliveryError(f"task {parcel.name} ended, its large result died with {where}")
                )
            elif result.status == OK:
                self._deliver_result(parcel, result.payload)
            else:
                self._deliver(parcel, None, pickling.load_exception(result.payload))
        finally:
            self._delivered()

    def _deliver_result(self, parcel: Parcel, payload: Sequence[Buffer]) -> None:
        try:
            value = pickling.loads(payload)
        except BaseException as error:  # noqa: BLE001  # whatever a user's `__setstate__` raises
            self._deliver(parcel, None, error)
            return
        self._deliver(parcel, value, None)

    def initializer_failed(self, hello: Hello, failed: InitializerFailed) -> None:
        cause = pickling.load_exception(failed.payload)
        error = InitializerError(f"the initializer raised in worker {hello.worker} (pid {hello.pid}): {cause!r}")
        error.__cause__ = cause
        self.broken(error)

    def worker_ended(self, worker: int, exitcode: int | None, said_goodbye: bool) -> None:
        """Fail the parcel that the worker was at, and have the worker replaced where it is still needed."""
        with self._lock:
            hand = self._hands.pop(worker, None)
            lost, sends = self._scheduler.lost(worker)
            if lost is not None and self._parcels.pop(lost.number, None) is None:
                lost = None
            self._delivering += lost is not None
            self._send(sends)
            needed = self._broken is None and (
                self.state is PoolState.RUNNING or bool(self._parcels) or bool(self._feeding)
            )
            hopeless = needed and hand is None and not self._budget.died_at_start()
        if lost is not None:
            try:
                self._deliver(lost, None, WorkerDiedError(lost.name, worker, hand.pid if hand else 0, exitcode))
            finally:
                self._delivered()
        if hopeless:
            self.broken(
                WorkerStartError(
                    f"workers end before they are ready; the last one {describe_exit(exitcode)}. What it wrote to "
                    "stderr says why. A frequent reason: the main script makes its pool without "
                    "\"if __name__ == '__main__':\", or cannot be imported a second time"
                )
            )
        elif needed:
            if not said_goodbye:
                _log.info("worker %d %s and is replaced", worker, describe_exit(exitcode))
            self._replace_worker()

    def broken(self, error: BaseException) -> None:
        """The pool cannot go on: every call, pending or to come, gets `error`."""
        self.terminate(error)

    # --- inside ------------------------------------------------------------------------------------------------

    def _send(self, sends: list[tuple[int, Parcel]]) -> None:
        for worker, parcel in sends:
            hand = self._hands[worker]
            function = parcel.function
            tasks = Tasks(parcel.number, function.digest, parcel.mode, parcel.payload)
            # A worker that is gone has its end on the way to us, and the parcel with it.
            with contextlib.suppress(PeerGoneError):
                if function.digest in hand.functions:
                    self._down.send(hand.route, tasks)
                else:
                    hand.functions.add(function.digest)
                    self._down.send(hand.route, Function(function.digest, function.code), tasks)

    def _stop(self, hand: _Hand) -> None:
        with contextlib.suppress(PeerGoneError):
            self._down.send(hand.route, Stop())

    def _deliver(self, parcel: Parcel, value: Any, error: BaseException | None) -> None:
        try:
            parcel.deliver(value, error)
        except BaseException:  # noqa: BLE001  # a user's callback, also one that calls `sys.exit`
            # `multiprocessing` would let its thread die, and everything hang.
            _log.exception("a callback for task %s raised", parcel.name)

    def _delivered(self) -> None:
        with self._lock:
            self._delivering -= 1
            if not self._parcels and not self._delivering:
                self._all_done.notify_all()

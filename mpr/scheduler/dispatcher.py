"""Brings parcels of tasks to workers and their outcomes to the callers.

Covers: what is on its way, what a result or a worker's end means for it, when a pool has done everything.
Does not cover: which worker gets what (`assignment.py`), processes (`worker_supervisor.py`), rows
(`aggregator/aggregator.py`).

Callers submit from any thread; what follows happens in the aggregator's thread, and `look` in the crew's: Ctrl-C may
come between any two instructions of a caller, who may survive it. The lock is held for bookkeeping and for handing
messages to ZeroMQ, never while anything is waited for or a user's callback runs.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from typing import Any

from mpr.aggregator.listener import Kept
from mpr.errors import (
    InitializerError,
    PoolClosedError,
    PoolTerminatedError,
    RecordingClosedError,
    TaskTimeoutError,
    describe_exit,
    died_at_start,
)
from mpr.processes import task_pickling
from mpr.rrd.segment import RunningTask
from mpr.scheduler.assignment import SHORT_MICROS, Scheduler
from mpr.scheduler.observer import Watcher
from mpr.scheduler.state import PoolLimits, PoolState, StartBudget, too_small
from mpr.scheduler.work_item import Parcel, TaskFunction, outcomes
from mpr.scheduler.worker_death import Loss
from mpr.scheduler.worker_handle import AtWork, Hand, Soon, Staff
from mpr.transport.messages import Function, Hello, InitializerFailed, Result, Skipped, Stop, TaskBegan
from mpr.transport.sockets import DownstreamServer, PeerGoneError
from mpr.transport.status_page import SlateReader

_log = logging.getLogger("mpr")

_SHORT_SECS = SHORT_MICROS / 1e6
_NEVER_SECS = 3600.0
_LOOK_AGAIN_SECS = 0.001


class Dispatcher:
    """The tasks of one pool."""

    def __init__(
        self, down: DownstreamServer, limits: PoolLimits, staff: Staff, soon: Soon, watcher: Watcher | None = None
    ) -> None:
        self._down = down
        self._soon = soon
        self._watcher = watcher or Watcher()
        self._limits, self._staff = limits, staff
        self._lock = threading.Lock()
        self._all_done = threading.Condition(self._lock)
        self._scheduler: Scheduler[Parcel] = Scheduler()
        self._numbers = itertools.count(1)
        #: Tasks submitted until now.
        self._tasks = 0
        #: What callers have submitted, until it is taken.
        self._incoming: deque[Parcel] = deque()
        self._parcels: dict[int, Parcel] = {}
        self._delivering = 0
        #: Who will submit more parcels.
        self._feeders: set[object] = set()
        self._hands: dict[int, Hand] = {}
        self._budget = StartBudget()
        self.state = PoolState.RUNNING
        #: Whether all work was done after `close`: nobody is there for more.
        self._done = False
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

    def submit(self, *parcels: Parcel) -> None:
        """Have `parcels` run: all, or none where Ctrl-C comes. Raises nothing once the pool was running."""
        for parcel in parcels:
            self._watcher.submitted(parcel.function.name, parcel.count)
        self._incoming.extend(parcels)
        self._soon(self._take_incoming)

    def _take_incoming(self) -> None:
        refused = []
        with self._lock:
            error = self.ending_error()
            if error is None and self._done:
                error = PoolClosedError("this pool has done its work and ended before this task was submitted")
            while self._incoming:
                parcel = self._incoming.popleft()
                if error is not None:
                    refused.append(parcel)
                    continue
                parcel.number = next(self._numbers)
                parcel.serial, self._tasks = self._tasks, self._tasks + parcel.count
                self._parcels[parcel.number] = parcel
                self._send(self._scheduler.add(parcel))
        for parcel in refused:
            self._fail_rest(parcel, error)

    def announce(self, function: TaskFunction, count: int) -> None:
        """A call will submit `count` tasks."""
        self._watcher.announce(function.name, count)

    def begin_feeding(self, feeder: object) -> None:
        """`feeder` will submit parcels, until `end_feeding`."""
        self._feeders.add(feeder)
        self._watcher.feeding(1)

    def end_feeding(self, feeder: object) -> None:
        """`feeder` submits no more; a second call does nothing."""
        with self._lock:
            if feeder not in self._feeders:
                return
            self._feeders.remove(feeder)
            self._all_done.notify_all()
        self._watcher.feeding(-1)

    def close(self) -> None:
        with self._lock:
            if self.state is PoolState.RUNNING:
                self.state = PoolState.CLOSED

    def wait_until_done(self) -> None:
        """After `close`: wait until every parcel has its outcome. Raises `InitializerError` and its like."""
        with self._lock:
            while self._delivering or self._has_work():
                # In turns, so that Ctrl-C is noticed on every platform.
                self._all_done.wait(1.0)
            self._done = True

    def dismiss(self) -> None:
        """After `wait_until_done`: let the workers go."""
        with self._lock:
            for hand in self._hands.values():
                self._stop(hand)
        self._watcher.close()

    def _has_work(self) -> bool:
        return bool(self._incoming or self._parcels or (self._feeders and self.state is not PoolState.TERMINATED))

    def terminate(self, error: BaseException | None = None) -> None:
        """Give every parcel that has no outcome an error, `PoolTerminatedError` by default."""
        with self._lock:
            self.state = PoolState.TERMINATED
            self._broken = self._broken or error
            pending = list(self._parcels.values())
            self._parcels.clear()
            # Nobody may look at their slates any more, which end with the aggregator.
            self._hands.clear()
            self._scheduler.drop_waiting()
            self._reported = self._reported or bool(pending)
            self._all_done.notify_all()
        for parcel in pending:
            self._fail_rest(parcel, error or self.ending_error())
        self._take_incoming()
        self._watcher.close()

    def drop_waiting(self) -> None:
        """Cancel every parcel that no worker has."""
        self._take_incoming()
        with self._lock:
            dropped = self._scheduler.drop_waiting()
            for parcel in dropped:
                del self._parcels[parcel.number]
            self._delivering += 1
        self._tell((each, each.first, each.count - each.first, None, CancelledError()) for each in dropped)

    def cancel(self, parcel: Parcel, *, running: bool) -> bool:
        """Cancel `parcel` if no worker has it; with `running` also if one has it: the worker is ended and replaced.

        Whether it was cancelled. Of a parcel that runs, `parcel.deliver` hears later.
        """
        self._take_incoming()
        while True:
            with self._lock:
                if parcel.number not in self._parcels:
                    return False
                found = next((each for each in self._hands if parcel in self._scheduler.held(each)), None)
                dropped = self._scheduler.drop(parcel)
                if found is not None and running:
                    taken = self._take_back(found)
                    dropped = parcel in taken
                    self._send(self._scheduler.add_first(each for each in taken if each is not parcel))
                if dropped:
                    del self._parcels[parcel.number]
                    self._delivering += 1
            if dropped:
                self._tell([(parcel, parcel.first, parcel.count - parcel.first, None, CancelledError())])
                return True
            if not running:
                return False
            if found is not None and self._end_at(found, parcel, None, CancelledError()):
                return True
            # It has ended, or has just moved from one worker to another.
            time.sleep(_LOOK_AGAIN_SECS)

    @property
    def unfinished(self) -> int:
        """How many tasks have no outcome."""
        # Without the lock: a pool may be dropped by the garbage collector wherever it runs.
        return sum(parcel.count - parcel.first for parcel in [*self._parcels.copy().values(), *self._incoming.copy()])

    @property
    def is_locked(self) -> bool:
        """Whether somebody, perhaps the calling thread, is in the middle of something."""
        return self._lock.locked()

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
        if self._broken is None and self.state is PoolState.TERMINATED:
            return PoolTerminatedError("the pool was terminated before this task had a result")
        return self._broken

    # --- from the aggregator -----------------------------------------------------------------------------------

    def worker_ready(self, hello: Hello, slate: SlateReader | None, init_micros: int = 0) -> None:
        """A worker takes tasks from now on. Its `slate` can be read until `worker_ended`, or the end of the pool."""
        limit = self._limits.memory
        used = self._staff.memory(hello.pid) if limit is not None else 0
        if limit is not None and used > limit:
            self.broken(too_small(limit, used))
        with self._lock:
            if self.state is PoolState.TERMINATED:
                return
            self._budget.started()
            hand = self._hands[hello.worker] = Hand(hello.route, hello.pid, slate)
            if self.state is not PoolState.RUNNING and not self._has_work():
                self._stop(hand)
            # Without a slate nobody could say what it has begun; with a limit, each parcel may be its last.
            ahead = slate is not None and limit is None
            self._send(self._scheduler.ready(hello.worker, self._limits.tasks, ahead=ahead))
        self._staff.note_ready()
        self._watcher.ready(hello, init_micros)

    def result(self, hello: Hello, result: Result, failure: BaseException | None) -> None:
        with self._lock:
            parcel = self._parcels.get(result.parcel)
            if parcel is None or result.first != parcel.first:
                # Of a call that was terminated, or heard of before.
                return
            # A parcel that could not be opened says no number.
            count = result.count or parcel.count - parcel.first
            self._watcher.result(hello, parcel, count, result)
            parcel.settle(count)
            if result.last:
                del self._parcels[parcel.number]
                self._parcel_done(hello, parcel, result.micros)
            self._delivering += 1
        self._tell((parcel, *outcome) for outcome in outcomes(result, count, failure))

    def _parcel_done(self, hello: Hello, parcel: Parcel, micros: int) -> None:
        limit = self._limits.memory
        if limit is not None and self._staff.memory(hello.pid) > limit:
            self._scheduler.retire(hello.worker)
        self._send(self._scheduler.done(hello.worker, parcel, micros))
        hand = self._hands.get(hello.worker)
        if hand is not None and self._scheduler.exhausted(hello.worker):
            self._stop(hand)
        if self._scheduler.could_take_back():
            self._staff.look_soon()

    def running_task(self, hello: Hello, began: TaskBegan) -> RunningTask | None:
        """What the worker is at, in the words of the parent."""
        parcel = self._parcels.get(began.parcel)
        return None if parcel is None else parcel.running_task(hello, began)

    def sink_failed(self, error: BaseException) -> None:
        """Rows are lost: whoever waits for a result is told now. The tasks run on, for the sinks that are left."""
        with self._lock:
            waiting = [parcel for parcel in self._parcels.values() if not parcel.told]
            for parcel in waiting:
                parcel.told, parcel.begin = True, None
        for parcel in waiting:
            self._hand_over(parcel, parcel.first, parcel.count - parcel.first, None, error)

    def skipped(self, hello: Hello, skipped: Skipped) -> None:
        """The worker has passed over a parcel: where it was not taken back from it, it waits again."""
        with self._lock:
            held = self._scheduler.held(hello.worker) if hello.worker in self._hands else ()
            verdict = self._hands[hello.worker].verdict if held else None
            # One that is being cancelled stays, and ends with the worker.
            ending = verdict[0] if verdict is not None else None
            missed = [each for each in held if each.turn == skipped.turn and each is not ending]
            self._send(self._scheduler.take_back(hello.worker, missed))
            self._send(self._scheduler.add_first(missed))

    def unfit(self, hello: Hello) -> None:
        """The worker is replaced when it has done what it is at; the rest of what it has goes to others."""
        with self._lock:
            if hello.worker in self._hands:
                self._scheduler.retire(hello.worker)
                self._send(self._scheduler.add_first(self._take_back(hello.worker)))
                self._stop(self._hands[hello.worker])

    def initializer_failed(self, hello: Hello, failed: InitializerFailed) -> None:
        cause = task_pickling.load_exception(failed.payload)
        error = InitializerError(f"the initializer raised in worker {hello.worker} (pid {hello.pid}): {cause!r}")
        error.__cause__ = cause
        self.broken(error)

    def worker_ended(
        self, worker: int, exitcode: int | None, said_goodbye: bool, kept: Callable[[], Kept]
    ) -> list[str]:
        """Settle what the worker had, and have it replaced where it is still needed. Returns what is to be noted."""
        notes: list[str] = []
        found = kept() if self._scheduler.held(worker) else Kept()
        with self._lock:
            hand = self._hands.pop(worker, None)
            held = [each for each in self._scheduler.lost(worker) if each.number in self._parcels]
            errors = []
            if hand is not None:
                at = hand.slate.at() if hand.slate is not None else None
                errors = self._settle_lost(held, Loss(worker, hand.pid, exitcode, at, hand.verdict, found), notes)
            self._delivering += bool(errors)
            needed = self.state is PoolState.RUNNING or (self.state is PoolState.CLOSED and self._has_work())
            hopeless = needed and hand is None and not self._budget.died_at_start()
        if errors:
            self._tell((parcel, task, 1, None, error) for parcel, task, error in errors)
        if hopeless:
            self.broken(died_at_start(exitcode))
        elif needed:
            if not said_goodbye:
                _log.info("worker %d %s and is replaced", worker, describe_exit(exitcode))
            self._staff.replace()
        return notes

    def _settle_lost(self, held: list[Parcel], loss: Loss, notes: list[str]) -> list[tuple[Parcel, int, BaseException]]:
        """What a worker had begun fails, or is tried again; all else waits again. Returns the errors of tasks."""
        errors = []
        for parcel in held:
            errors += [(parcel, task, error) for task, error in loss.settle(parcel, self._limits.retries, notes)]
            if parcel.first == parcel.count:
                del self._parcels[parcel.number]
        self._send(self._scheduler.add_first(each for each in held if each.number in self._parcels))
        return errors

    def recording_ended(self) -> None:
        with self._lock:
            self._hands.clear()
        if not self._done:
            self.broken(RecordingClosedError("the recording was closed while a pool was working for it"))

    def broken(self, error: BaseException) -> None:
        """The pool cannot go on: every call, pending or to come, gets `error`."""
        self.terminate(error)

    # --- from the crew -----------------------------------------------------------------------------------------

    def look(self) -> float:
        """End tasks that take too long, take back what lies behind a long one. Returns when to look again (seconds)."""
        allowed = self._limits.task_secs
        again = allowed if allowed is not None else _NEVER_SECS
        late = []
        with self._lock:
            now = time.monotonic_ns()
            for worker, hand in self._hands.items():
                held = self._scheduler.held(worker)
                work = hand.at_work(worker, held) if hand.slate is not None and held else None
                if work is None or work.parcel is None:  # It has nothing, or has not begun it.
                    continue
                at, parcel = work.at, work.parcel
                if len(held) > 1 and self._scheduler.could_take_back():
                    left = _SHORT_SECS - (now - at.claimed_ns) / 1e9
                    if left <= 0:
                        self._send(self._scheduler.add_first(self._take_back(worker)))
                    else:
                        again = min(again, left)
                if allowed is not None and at.running:
                    left = allowed - (now - at.since_ns) / 1e9
                    if left <= 0:
                        error = TaskTimeoutError(parcel.name(at.task), worker, hand.pid, allowed)
                        late.append((worker, parcel, at.task, error))
                    else:
                        again = min(again, left)
        for worker, parcel, task, error in late:
            self._end_at(worker, parcel, task, error)
        return again

    def at_work(self) -> list[AtWork]:
        """What each worker that is ready is at, for a display."""
        with self._lock:
            return [hand.at_work(each, self._scheduler.held(each)) for each, hand in self._hands.items() if hand.slate]

    # --- inside ------------------------------------------------------------------------------------------------

    def _take_back(self, worker: int) -> list[Parcel]:
        """Take all parcels back that the worker has not begun."""
        hand = self._hands[worker]
        if hand.slate is None:
            return []
        at = hand.slate.revoke(hand.turns)
        taken = [each for each in self._scheduler.held(worker) if each.turn > at.turn]
        self._send(self._scheduler.take_back(worker, taken))
        return taken

    def _end_at(self, worker: int, parcel: Parcel, task: int | None, error: BaseException) -> bool:
        """End the worker if it is still at task `task` of `parcel` (None: at any); that task is then told `error`."""

        def is_at_it() -> bool:
            with self._lock:
                hand = self._hands.get(worker)
                if hand is None or parcel.number not in self._parcels or parcel not in self._scheduler.held(worker):
                    return False
                at = hand.slate.at() if hand.slate is not None else None
                if at is not None and (
                    at.turn != parcel.turn or at.task >= parcel.count or task not in (None, at.task)
                ):
                    return False
                hand.verdict = parcel, error
                return True

        hand = self._hands.get(worker)
        return hand is not None and self._staff.end_if(hand.pid, is_at_it)

    def _send(self, sends: list[tuple[int, Parcel]]) -> None:
        waiting = deque(sends)
        while waiting:
            worker, parcel = waiting.popleft()
            if parcel.begin is not None:
                if not parcel.begin():
                    del self._parcels[parcel.number]
                    self._all_done.notify_all()
                    waiting.extend(self._scheduler.take_back(worker, [parcel]))
                    continue
                parcel.begin = None
            hand = self._hands[worker]
            hand.turns += 1
            parcel.turn = hand.turns
            function = parcel.function
            # A worker that is gone has its end on the way to us, and the parcel with it.
            with contextlib.suppress(PeerGoneError):
                if hand.functions.use(function.digest):
                    self._down.send(hand.route, parcel.message())
                else:
                    hand.functions.keep(function.digest, True)
                    self._down.send(hand.route, Function(function.digest, function.code), parcel.message())

    def _stop(self, hand: Hand) -> None:
        with contextlib.suppress(PeerGoneError):
            self._down.send(hand.route, Stop())

    def _fail_rest(self, parcel: Parcel, error: BaseException | None) -> None:
        self._deliver(parcel, parcel.first, parcel.count - parcel.first, None, error)

    def _tell(self, told: Iterable[tuple[Parcel, int, int, Sequence[Any] | None, BaseException | None]]) -> None:
        """Deliver each of these, which `_delivering` has counted as one."""
        try:
            for outcome in told:
                self._deliver(*outcome)
        finally:
            with self._lock:
                self._delivering -= 1
                if not self._parcels and not self._delivering:
                    self._all_done.notify_all()

    def _deliver(
        self, parcel: Parcel, first: int, count: int, values: Sequence[Any] | None, error: BaseException | None
    ) -> None:
        if not parcel.told:
            self._hand_over(parcel, first, count, values, error)

    def _hand_over(
        self, parcel: Parcel, first: int, count: int, values: Sequence[Any] | None, error: BaseException | None
    ) -> None:
        self._watcher.settled(parcel, first, count, error)
        try:
            parcel.deliver(parcel.index + first, count, values, error)
        except BaseException:  # noqa: BLE001  # a user's callback, also one that calls `sys.exit`
            # `multiprocessing` would let its thread die, and everything hang.
            _log.exception("a callback for task %s raised", parcel.name(first))

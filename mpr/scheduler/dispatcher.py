"""Brings work items of tasks to workers and their outcomes to the callers.

Covers: what is on its way, what a result or a worker's end means for it, when a pool has done everything.
Does not cover: which worker gets what (`assignment.py`), processes (`worker_supervisor.py`), rows
(`aggregator/aggregator.py`).

Callers submit from any thread; what follows happens in the aggregator's thread, and `look` in the worker supervisor's:
Ctrl-C may
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

from mpr.aggregator.listener import SurvivingRows
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
from mpr.rrd.segment import TaskInfo
from mpr.scheduler.assignment import SHORT_MICROS, Assignment
from mpr.scheduler.observer import PoolObserver
from mpr.scheduler.state import PoolLimits, PoolState, StartBudget, too_small
from mpr.scheduler.work_item import TaskFunction, WorkItem, outcomes
from mpr.scheduler.worker_death import WorkerLoss
from mpr.scheduler.worker_handle import Soon, WorkerActivity, WorkerControl, WorkerHandle
from mpr.transport.messages import Function, Hello, InitializerFailed, Result, Skipped, Stop, TaskBegan
from mpr.transport.sockets import DownstreamServer, PeerGoneError
from mpr.transport.status_page import StatusPageReader

_log = logging.getLogger("mpr")

_SHORT_SECS = SHORT_MICROS / 1e6
_NEVER_SECS = 3600.0
_LOOK_AGAIN_SECS = 0.001


class Dispatcher:
    """The tasks of one pool."""

    def __init__(
        self,
        down: DownstreamServer,
        limits: PoolLimits,
        control: WorkerControl,
        soon: Soon,
        watcher: PoolObserver | None = None,
    ) -> None:
        self._down = down
        self._soon = soon
        self._watcher = watcher or PoolObserver()
        self._limits, self._control = limits, control
        self._lock = threading.Lock()
        self._all_done = threading.Condition(self._lock)
        self._scheduler: Assignment[WorkItem] = Assignment()
        self._numbers = itertools.count(1)
        #: Tasks submitted until now.
        self._tasks = 0
        #: What callers have submitted, until it is taken.
        self._incoming: deque[WorkItem] = deque()
        self._work_items: dict[int, WorkItem] = {}
        self._delivering = 0
        #: Who will submit more work items.
        self._feeders: set[object] = set()
        self._handles: dict[int, WorkerHandle] = {}
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

    def submit(self, *work_items: WorkItem) -> None:
        """Have `work_items` run: all, or none where Ctrl-C comes. Raises nothing once the pool was running."""
        for work_item in work_items:
            self._watcher.submitted(work_item.function.name, work_item.count)
        self._incoming.extend(work_items)
        self._soon(self._take_incoming)

    def _take_incoming(self) -> None:
        refused = []
        with self._lock:
            error = self.ending_error()
            if error is None and self._done:
                error = PoolClosedError("this pool has done its work and ended before this task was submitted")
            while self._incoming:
                work_item = self._incoming.popleft()
                if error is not None:
                    refused.append(work_item)
                    continue
                work_item.number = next(self._numbers)
                work_item.first_task, self._tasks = self._tasks, self._tasks + work_item.count
                self._work_items[work_item.number] = work_item
                self._send(self._scheduler.add(work_item))
        for work_item in refused:
            self._fail_rest(work_item, error)

    def announce(self, function: TaskFunction, count: int) -> None:
        """A call will submit `count` tasks."""
        self._watcher.announce(function.name, count)

    def begin_feeding(self, feeder: object) -> None:
        """`feeder` will submit work items, until `end_feeding`."""
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
        """After `close`: wait until every work item has its outcome. Raises `InitializerError` and its like."""
        with self._lock:
            while self._delivering or self._has_work():
                # In turns, so that Ctrl-C is noticed on every platform.
                self._all_done.wait(1.0)
            self._done = True

    def dismiss(self) -> None:
        """After `wait_until_done`: let the workers go."""
        with self._lock:
            for handle in self._handles.values():
                self._stop(handle)
        self._watcher.close()

    def _has_work(self) -> bool:
        return bool(self._incoming or self._work_items or (self._feeders and self.state is not PoolState.TERMINATED))

    def terminate(self, error: BaseException | None = None) -> None:
        """Give every work item that has no outcome an error, `PoolTerminatedError` by default."""
        with self._lock:
            self.state = PoolState.TERMINATED
            self._broken = self._broken or error
            pending = list(self._work_items.values())
            self._work_items.clear()
            # Nobody may look at their slates any more, which end with the aggregator.
            self._handles.clear()
            self._scheduler.drop_waiting()
            self._reported = self._reported or bool(pending)
            self._all_done.notify_all()
        for work_item in pending:
            self._fail_rest(work_item, error or self.ending_error())
        self._take_incoming()
        self._watcher.close()

    def drop_waiting(self) -> None:
        """Cancel every work item that no worker has."""
        self._take_incoming()
        with self._lock:
            dropped = self._scheduler.drop_waiting()
            for work_item in dropped:
                del self._work_items[work_item.number]
            self._delivering += 1
        self._tell((each, each.first, each.count - each.first, None, CancelledError()) for each in dropped)

    def cancel(self, work_item: WorkItem, *, running: bool) -> bool:
        """Cancel `work_item` if no worker has it; with `running` also if one has it: the worker is ended and replaced.

        Whether it was cancelled. Of a work item that runs, `parcel.on_outcome` hears later.
        """
        self._take_incoming()
        while True:
            with self._lock:
                if work_item.number not in self._work_items:
                    return False
                found = next((each for each in self._handles if work_item in self._scheduler.assigned(each)), None)
                dropped = self._scheduler.drop(work_item)
                if found is not None and running:
                    taken = self._take_back(found)
                    dropped = work_item in taken
                    self._send(self._scheduler.add_first(each for each in taken if each is not work_item))
                if dropped:
                    del self._work_items[work_item.number]
                    self._delivering += 1
            if dropped:
                self._tell([(work_item, work_item.first, work_item.count - work_item.first, None, CancelledError())])
                return True
            if not running:
                return False
            if found is not None and self._end_at(found, work_item, None, CancelledError()):
                return True
            # It has ended, or has just moved from one worker to another.
            time.sleep(_LOOK_AGAIN_SECS)

    @property
    def unfinished(self) -> int:
        """How many tasks have no outcome."""
        # Without the lock: a pool may be dropped by the garbage collector wherever it runs.
        return sum(
            work_item.count - work_item.first
            for work_item in [*self._work_items.copy().values(), *self._incoming.copy()]
        )

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

    def worker_ready(self, hello: Hello, status_page: StatusPageReader | None, init_micros: int = 0) -> None:
        """A worker takes tasks from now on. Its `status_page` can be read until `worker_ended`, or the end of the
        pool."""
        limit = self._limits.memory
        used = self._control.memory(hello.pid) if limit is not None else 0
        if limit is not None and used > limit:
            self.broken(too_small(limit, used))
        with self._lock:
            if self.state is PoolState.TERMINATED:
                return
            self._budget.started()
            handle = self._handles[hello.worker] = WorkerHandle(hello.route, hello.pid, status_page)
            if self.state is not PoolState.RUNNING and not self._has_work():
                self._stop(handle)
            # Without a status page nobody could say what it has begun; with a limit, each work item may be its last.
            ahead = status_page is not None and limit is None
            self._send(self._scheduler.ready(hello.worker, self._limits.tasks, ahead=ahead))
        self._control.note_ready()
        self._watcher.ready(hello, init_micros)

    def result(self, hello: Hello, result: Result, failure: BaseException | None) -> None:
        with self._lock:
            work_item = self._work_items.get(result.work_item)
            if work_item is None or result.first != work_item.first:
                # Of a call that was terminated, or heard of before.
                return
            # A work item that could not be opened says no number.
            count = result.count or work_item.count - work_item.first
            self._watcher.result(hello, work_item, count, result)
            work_item.settle(count)
            if result.last:
                del self._work_items[work_item.number]
                self._work_item_done(hello, work_item, result.micros)
            self._delivering += 1
        self._tell((work_item, *outcome) for outcome in outcomes(result, count, failure))

    def _work_item_done(self, hello: Hello, work_item: WorkItem, micros: int) -> None:
        limit = self._limits.memory
        if limit is not None and self._control.memory(hello.pid) > limit:
            self._scheduler.retire(hello.worker)
        self._send(self._scheduler.done(hello.worker, work_item, micros))
        handle = self._handles.get(hello.worker)
        if handle is not None and self._scheduler.exhausted(hello.worker):
            self._stop(handle)
        if self._scheduler.could_take_back():
            self._control.look_soon()

    def task_info(self, hello: Hello, began: TaskBegan) -> TaskInfo | None:
        """What the worker is at, in the words of the parent."""
        work_item = self._work_items.get(began.work_item)
        return None if work_item is None else work_item.task_info(hello, began)

    def sink_failed(self, error: BaseException) -> None:
        """Rows are lost: whoever waits for a result is told now. The tasks run on, for the sinks that are left."""
        with self._lock:
            waiting = [work_item for work_item in self._work_items.values() if not work_item.reported]
            for work_item in waiting:
                work_item.reported, work_item.on_start = True, None
        for work_item in waiting:
            self._hand_over(work_item, work_item.first, work_item.count - work_item.first, None, error)

    def skipped(self, hello: Hello, skipped: Skipped) -> None:
        """The worker has passed over a work item: where it was not taken back from it, it waits again."""
        with self._lock:
            assigned = self._scheduler.assigned(hello.worker) if hello.worker in self._handles else ()
            planned_kill = self._handles[hello.worker].planned_kill if assigned else None
            # One that is being cancelled stays, and ends with the worker.
            ending = planned_kill[0] if planned_kill is not None else None
            missed = [each for each in assigned if each.sequence == skipped.sequence and each is not ending]
            self._send(self._scheduler.take_back(hello.worker, missed))
            self._send(self._scheduler.add_first(missed))

    def unfit(self, hello: Hello) -> None:
        """The worker is replaced when it has done what it is at; the rest of what it has goes to others."""
        with self._lock:
            if hello.worker in self._handles:
                self._scheduler.retire(hello.worker)
                self._send(self._scheduler.add_first(self._take_back(hello.worker)))
                self._stop(self._handles[hello.worker])

    def initializer_failed(self, hello: Hello, failed: InitializerFailed) -> None:
        cause = task_pickling.load_exception(failed.payload)
        error = InitializerError(f"the initializer raised in worker {hello.worker} (pid {hello.pid}): {cause!r}")
        error.__cause__ = cause
        self.broken(error)

    def worker_ended(
        self, worker: int, exitcode: int | None, said_goodbye: bool, kept: Callable[[], SurvivingRows]
    ) -> list[str]:
        """Settle what the worker had, and have it replaced where it is still needed. Returns what is to be noted."""
        notes: list[str] = []
        found = kept() if self._scheduler.assigned(worker) else SurvivingRows()
        with self._lock:
            handle = self._handles.pop(worker, None)
            assigned = [each for each in self._scheduler.lost(worker) if each.number in self._work_items]
            errors = []
            if handle is not None:
                at = handle.status_page.at() if handle.status_page is not None else None
                errors = self._settle_lost(
                    assigned, WorkerLoss(worker, handle.pid, exitcode, at, handle.planned_kill, found), notes
                )
            self._delivering += bool(errors)
            needed = self.state is PoolState.RUNNING or (self.state is PoolState.CLOSED and self._has_work())
            hopeless = needed and handle is None and not self._budget.died_at_start()
        if errors:
            self._tell((work_item, task, 1, None, error) for work_item, task, error in errors)
        if hopeless:
            self.broken(died_at_start(exitcode))
        elif needed:
            if not said_goodbye:
                _log.info("worker %d %s and is replaced", worker, describe_exit(exitcode))
            self._control.replace()
        return notes

    def _settle_lost(
        self, assigned: list[WorkItem], loss: WorkerLoss, notes: list[str]
    ) -> list[tuple[WorkItem, int, BaseException]]:
        """What a worker had begun fails, or is tried again; all else waits again. Returns the errors of tasks."""
        errors = []
        for work_item in assigned:
            errors += [(work_item, task, error) for task, error in loss.settle(work_item, self._limits.retries, notes)]
            if work_item.first == work_item.count:
                del self._work_items[work_item.number]
        self._send(self._scheduler.add_first(each for each in assigned if each.number in self._work_items))
        return errors

    def recording_ended(self) -> None:
        with self._lock:
            self._handles.clear()
        if not self._done:
            self.broken(RecordingClosedError("the recording was closed while a pool was working for it"))

    def broken(self, error: BaseException) -> None:
        """The pool cannot go on: every call, pending or to come, gets `error`."""
        self.terminate(error)

    # --- from the worker supervisor
    # -----------------------------------------------------------------------------------------

    def look(self) -> float:
        """End tasks that take too long, take back what lies behind a long one. Returns when to look again (seconds)."""
        allowed = self._limits.task_secs
        again = allowed if allowed is not None else _NEVER_SECS
        late = []
        with self._lock:
            now = time.monotonic_ns()
            for worker, handle in self._handles.items():
                assigned = self._scheduler.assigned(worker)
                work = handle.activities(worker, assigned) if handle.status_page is not None and assigned else None
                if work is None or work.work_item is None:  # It has nothing, or has not begun it.
                    continue
                at, work_item = work.at, work.work_item
                if len(assigned) > 1 and self._scheduler.could_take_back():
                    left = _SHORT_SECS - (now - at.begun_ns) / 1e9
                    if left <= 0:
                        self._send(self._scheduler.add_first(self._take_back(worker)))
                    else:
                        again = min(again, left)
                if allowed is not None and at.running:
                    left = allowed - (now - at.since_ns) / 1e9
                    if left <= 0:
                        error = TaskTimeoutError(work_item.name(at.task), worker, handle.pid, allowed)
                        late.append((worker, work_item, at.task, error))
                    else:
                        again = min(again, left)
        for worker, work_item, task, error in late:
            self._end_at(worker, work_item, task, error)
        return again

    def activities(self) -> list[WorkerActivity]:
        """What each worker that is ready is at, for a display."""
        with self._lock:
            return [
                handle.activities(each, self._scheduler.assigned(each))
                for each, handle in self._handles.items()
                if handle.status_page
            ]

    # --- inside ------------------------------------------------------------------------------------------------

    def _take_back(self, worker: int) -> list[WorkItem]:
        """Take all work items back that the worker has not begun."""
        handle = self._handles[worker]
        if handle.status_page is None:
            return []
        at = handle.status_page.revoke(handle.last_sequence)
        taken = [each for each in self._scheduler.assigned(worker) if each.sequence > at.sequence]
        self._send(self._scheduler.take_back(worker, taken))
        return taken

    def _end_at(self, worker: int, work_item: WorkItem, task: int | None, error: BaseException) -> bool:
        """End the worker if it is still at task `task` of `work_item` (None: at any); that task is then told
        `error`."""

        def is_at_it() -> bool:
            with self._lock:
                handle = self._handles.get(worker)
                if (
                    handle is None
                    or work_item.number not in self._work_items
                    or work_item not in self._scheduler.assigned(worker)
                ):
                    return False
                at = handle.status_page.at() if handle.status_page is not None else None
                if at is not None and (
                    at.sequence != work_item.sequence or at.task >= work_item.count or task not in (None, at.task)
                ):
                    return False
                handle.planned_kill = work_item, error
                return True

        handle = self._handles.get(worker)
        return handle is not None and self._control.end_if(handle.pid, is_at_it)

    def _send(self, sends: list[tuple[int, WorkItem]]) -> None:
        waiting = deque(sends)
        while waiting:
            worker, work_item = waiting.popleft()
            if work_item.on_start is not None:
                if not work_item.on_start():
                    del self._work_items[work_item.number]
                    self._all_done.notify_all()
                    waiting.extend(self._scheduler.take_back(worker, [work_item]))
                    continue
                work_item.on_start = None
            handle = self._handles[worker]
            handle.last_sequence += 1
            work_item.sequence = handle.last_sequence
            function = work_item.function
            # A worker that is gone has its end on the way to us, and the work item with it.
            with contextlib.suppress(PeerGoneError):
                if handle.functions.use(function.digest):
                    self._down.send(handle.route, work_item.message())
                else:
                    handle.functions.keep(function.digest, True)
                    self._down.send(handle.route, Function(function.digest, function.code), work_item.message())

    def _stop(self, handle: WorkerHandle) -> None:
        with contextlib.suppress(PeerGoneError):
            self._down.send(handle.route, Stop())

    def _fail_rest(self, work_item: WorkItem, error: BaseException | None) -> None:
        self._deliver(work_item, work_item.first, work_item.count - work_item.first, None, error)

    def _tell(self, reported: Iterable[tuple[WorkItem, int, int, Sequence[Any] | None, BaseException | None]]) -> None:
        """Deliver each of these, which `_delivering` has counted as one."""
        try:
            for outcome in reported:
                self._deliver(*outcome)
        finally:
            with self._lock:
                self._delivering -= 1
                if not self._work_items and not self._delivering:
                    self._all_done.notify_all()

    def _deliver(
        self, work_item: WorkItem, first: int, count: int, values: Sequence[Any] | None, error: BaseException | None
    ) -> None:
        if not work_item.reported:
            self._hand_over(work_item, first, count, values, error)

    def _hand_over(
        self, work_item: WorkItem, first: int, count: int, values: Sequence[Any] | None, error: BaseException | None
    ) -> None:
        self._watcher.settled(work_item, first, count, error)
        try:
            work_item.on_outcome(work_item.index + first, count, values, error)
        except BaseException:  # noqa: BLE001  # a user's callback, also one that calls `sys.exit`
            # `multiprocessing` would let its thread die, and everything hang.
            _log.exception("a callback for task %s raised", work_item.name(first))

"""Accepts tasks from the callers of one pool, and gives an error to the tasks that are left when the pool ends.

```
callers ── submit ──► Dispatcher ── give ──► ReadyWorkers ── messages ──► workers
   ▲                                                                         │ results, after their rows
   └── outcomes ── OutcomeDelivery ◄── WorkerEvents ◄────────────────── aggregator
```

Any thread may submit tasks. The main thread must not hold the lock of `PoolBooks`, because a signal handler may
interrupt the main thread and end the pool. The handler would then wait for this lock for ever. So `submit` takes no
lock, and `close` and `wait_until_done` take it in another thread (`aside`). `pool/runtime.py` and `pool/executor.py`
call `cancel`, `drop_waiting` and `terminate` in another thread.

Covers: submitting, cancelling, closing and terminating.
Does not cover: what a result or the end of a worker means (`worker_events.py`), time limits (`deadlines.py`), which
worker gets which item (`assignment.py`), processes (`worker_supervisor.py`).
"""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

from mpr.scheduler.books import PoolBooks
from mpr.scheduler.callbacks import Callbacks
from mpr.scheduler.deadlines import Deadlines
from mpr.scheduler.delivery import OutcomeDelivery
from mpr.scheduler.observer import PoolObserver, PoolObservers
from mpr.scheduler.outcomes import Outcome
from mpr.scheduler.pending_work import PendingWork
from mpr.scheduler.state import PoolLifecycle, PoolLimits, PoolState
from mpr.scheduler.task_dispatcher import TaskDispatcher
from mpr.scheduler.work_item import Describe, TaskFunction, WorkItem, describe_nothing
from mpr.scheduler.worker_events import WorkerEvents
from mpr.scheduler.worker_handle import Soon, WorkerActivity, WorkerControl
from mpr.threads import Latch, aside
from mpr.transport.sockets import DownstreamServer

if TYPE_CHECKING:
    from mpr.aggregator.listener import Listener

_LOOK_AGAIN_SECS = 0.001
# A thread that waits for all tasks checks at this interval (seconds) whether its caller was interrupted.
_GIVEN_UP_SECS = 0.2


class Dispatcher(TaskDispatcher):
    """Accepts the tasks of one pool, cancels tasks, and gives an error to the tasks that are left when the pool ends.

    Parameters
    ----------
    down:
        Sends messages to workers.
    limits:
        The limits of the pool's tasks and workers.
    control:
        Starts and kills the worker processes.
    soon:
        Called with a function. The aggregator's thread then calls this function.
    observer:
        Gets a call for each event of tasks and workers; None for no observer.
    describe:
        See the attribute.

    Attributes
    ----------
    by_value:
        False: functions of `__main__` are pickled with their code only if workers do not import `__main__`
        (`processes/main_module.py`).
    describe:
        Describes the tasks of a call for the sinks (see `Describe` in `work_item.py`).
    listener:
        Gets the aggregator's reports about the pool's workers and their results.
    """

    by_value: bool = False

    def __init__(
        self,
        down: DownstreamServer,
        limits: PoolLimits,
        control: WorkerControl,
        soon: Soon,
        observer: PoolObserver | None = None,
        describe: Describe = describe_nothing,
    ) -> None:
        self.describe: Describe = describe
        self._soon = soon
        self._observer = PoolObservers([] if observer is None else [observer])
        self._books = PoolBooks(down)
        self._delivery = OutcomeDelivery(self._books, self._observer)
        self.lifecycle: PoolLifecycle = self._books.lifecycle
        self.work: PendingWork = self._books.work
        self.callbacks: Callbacks = Callbacks(self._books.begin_callback, self._books.end_delivery)
        self._deadlines = Deadlines(self._books, control, limits.task_secs)
        self.listener: Listener = WorkerEvents(
            self._books, self._delivery, limits, control, self._observer, self.broken
        )

    # --- calls -------------------------------------------------------------------------------------------------

    def announce(self, function: TaskFunction, count: int) -> None:
        """Report to the observer that a call will submit `count` tasks of `function`."""
        self._soon(lambda: self._observer.announce(function.name, count))

    def submit(self, *work_items: WorkItem) -> None:
        """Submit `work_items` to the pool. If Ctrl-C interrupts this method, either all of them run or none.

        If the pool has ended, all tasks of `work_items` get an error as their outcome.
        """
        self._books.work.submit(work_items)
        self._soon(self._take_submitted)

    def _take_submitted(self) -> None:
        books = self._books
        refused = []
        with books.lock:
            error = books.lifecycle.refusal()
            for work_item in books.work.take_submitted():
                self._observer.submitted(work_item.function.name, work_item.count)
                if error is not None:
                    refused.append(work_item)
                else:
                    books.work.accept(work_item)
                    books.workers.give(work_item)
        for work_item in refused:
            self._delivery.hand_over(Outcome.of_rest(work_item, error))

    def begin_feeding(self, feeder: object) -> None:
        """Note that `feeder` will submit work items, until `end_feeding`.

        A feeder is the part of an `imap` call that submits the work items of the call.
        """
        self._books.work.begin_feeding(feeder)
        self._soon(lambda: self._observer.feeding(1))

    def end_feeding(self, feeder: object) -> None:
        """Note that `feeder` submits no more work items. A second call does nothing."""
        self._soon(lambda: self._end_feeding(feeder))

    def _end_feeding(self, feeder: object) -> None:
        with self._books.lock:
            if not self._books.work.end_feeding(feeder):
                return
            self._books.all_done.notify_all()
        self._observer.feeding(-1)

    def cancel(self, work_item: WorkItem, *, running: bool) -> bool:
        """Cancel `work_item` if no worker has it. Returns True if the work item is cancelled, and else False.

        If `running` is True, a work item that a worker has is cancelled, too. A worker that runs it is killed and
        replaced. The tasks that have no outcome get a `CancelledError`. Returns False if all tasks have their outcome.
        """
        self._take_submitted()
        books = self._books
        while True:
            with books.lock:
                if work_item not in books.work:
                    return False
                holder = books.workers.holder(work_item)
                dropped = books.workers.drop(work_item)
                if holder is not None and running:
                    taken = books.workers.take_back(holder)
                    dropped = work_item in taken
                    books.workers.give_again([each for each in taken if each is not work_item])
                if dropped:
                    books.work.forget(work_item)
                    books.begin_delivery()
            if dropped:
                self._delivery.deliver([Outcome.of_rest(work_item, CancelledError())])
                return True
            if not running:
                return False
            if holder is not None and self._deadlines.kill_at(holder, work_item, None, CancelledError()):
                return True
            # Look again, because the work item has ended, or has just moved from one worker to another.
            time.sleep(_LOOK_AGAIN_SECS)

    def drop_waiting(self) -> None:
        """Cancel every work item that no worker has. Its tasks get a `CancelledError`."""
        self._take_submitted()
        books = self._books
        with books.lock:
            dropped = books.workers.drop_waiting()
            for work_item in dropped:
                books.work.forget(work_item)
            books.begin_delivery()
        self._delivery.deliver([Outcome.of_rest(each, CancelledError()) for each in dropped])

    # --- the end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Accept no new calls. The tasks of earlier calls still run. Does not wait for them."""
        aside(self._close)

    def _close(self) -> None:
        with self._books.lock:
            self._books.lifecycle.close()

    def wait_until_done(self) -> None:
        """Wait until all outcomes were delivered to their callers. Call this after `close`. Ctrl-C ends the wait."""
        is_given_up = Latch()
        try:
            aside(lambda: self._wait_until_done(is_given_up))
        finally:
            is_given_up.set()

    def _wait_until_done(self, is_given_up: Latch) -> None:
        with self._books.lock:
            while not self._books.is_done():
                if is_given_up.is_set():
                    return
                self._books.all_done.wait(_GIVEN_UP_SECS)
            self._books.lifecycle.finish()

    def stop_workers(self) -> None:
        """Tell all ready workers to end, and close the observer. Call this after `wait_until_done`."""
        with self._books.lock:
            self._books.workers.stop_all()
        self._observer.close()

    def terminate(self, error: BaseException | None = None) -> None:
        """End the pool. Every task without an outcome gets `error`; if `error` is None, a `PoolTerminatedError`.

        If an earlier error has ended the pool, the tasks get that error instead of a `PoolTerminatedError`. This method
        does not kill the workers.
        """
        books = self._books
        with books.lock:
            pending = books.work.forget_all()
            books.workers.remove_all()
            books.lifecycle.terminate(error, is_reported=bool(pending))
            books.all_done.notify_all()
        for work_item in pending:
            self._delivery.hand_over(Outcome.of_rest(work_item, error if error is not None else self.ending_error()))
        self._take_submitted()
        self._observer.close()

    def broken(self, error: BaseException) -> None:
        """End the pool because of `error`. Each task without an outcome gets `error`, and each later call raises it."""
        self.terminate(error)

    def ending_error(self) -> BaseException | None:
        """Return the error for tasks that have no outcome when the pool ends; None if the pool was not terminated."""
        return self._books.lifecycle.ending_error()

    # --- questions, and calls of the supervisor ----------------------------------------------------------------

    @property
    def state(self) -> PoolState:
        """The state of the pool: running, closed or terminated."""
        return self._books.lifecycle.state

    @property
    def is_locked(self) -> bool:
        """True if a thread, perhaps the calling one, holds the lock of `PoolBooks`."""
        return self._books.lock.locked()

    def look(self) -> float:
        """Kill workers whose task has run for too long. Returns the number of seconds after which to call `look` again.

        Also take back work items that wait behind a long one, if another worker has nothing to do (see `Deadlines`).
        """
        return self._deadlines.look()

    def activities(self) -> list[WorkerActivity]:
        """Return the activity of each ready worker at this moment. Workers without a status page are left out."""
        with self._books.lock:
            return self._books.workers.activities()

"""Receives the reports of the aggregator about the workers of a pool, and decides what happens to their work items.

Covers: results, retries, and workers that are ready, fail or end.
Does not cover: calls of the pool's users (`dispatcher.py`), each single task of a dead worker (`worker_death.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from mpr.aggregator.listener import SurvivingRows
from mpr.errors import InitializerError, RecordingClosedError, describe_exit, describe_process, died_at_start
from mpr.processes import task_pickling
from mpr.processes.main_module import NO_GUARD, NO_GUARD_EXIT
from mpr.rrd.segment import TaskInfo
from mpr.scheduler.books import PoolBooks
from mpr.scheduler.delivery import OutcomeDelivery
from mpr.scheduler.observer import PoolObserver
from mpr.scheduler.outcomes import Outcome, open_result
from mpr.scheduler.state import PoolLimits, PoolState, StartBudget, too_small
from mpr.scheduler.work_item import WorkItem
from mpr.scheduler.worker_death import WorkerLoss
from mpr.scheduler.worker_handle import WorkerControl, WorkerHandle
from mpr.transport.messages import Hello, InitializerFailed, Result, Skipped, TaskBegan
from mpr.transport.packing import MessageError
from mpr.transport.status_page import StatusPageReader
from mpr.user_code import log as _log
from mpr.user_code import represent


class WorkerEvents:
    """The listener of a pool's workers (`mpr.aggregator.listener.Listener`). The aggregator's thread calls it.

    Parameters
    ----------
    books:
        The shared state of the pool.
    delivery:
        Passes outcomes to the callers.
    limits:
        The limits of the pool's tasks and workers.
    control:
        Starts and kills the worker processes.
    observer:
        Gets a call for each ready worker and each result.
    terminate:
        Ends the pool with an error.
    """

    def __init__(
        self,
        books: PoolBooks,
        delivery: OutcomeDelivery,
        limits: PoolLimits,
        control: WorkerControl,
        observer: PoolObserver,
        terminate: Callable[[BaseException], None],
    ) -> None:
        self._books = books
        self._delivery = delivery
        self._limits = limits
        self._control = control
        self._observer = observer
        self._terminate = terminate
        self._budget = StartBudget()

    def worker_ready(self, hello: Hello, status_page: StatusPageReader | None, init_micros: int = 0) -> None:
        """Send work items to the worker of `hello` from now on. Its initializer took `init_micros` microseconds.

        `status_page` is None if the parent cannot open the page. If the pool was closed and has no work left, tell the
        worker to end. If the worker already has more memory than the pool allows, end the pool.
        """
        limit = self._limits.memory
        used = self._control.memory(hello.pid) if limit is not None else 0
        if limit is not None and used > limit:
            self.broken(too_small(limit, used))
        books = self._books
        with books.lock:
            state = books.lifecycle.state
            if state is PoolState.TERMINATED:
                return
            self._budget.started()
            # Work items are sent ahead of time under two conditions. A status page must say which items the worker has
            # begun. There must be no memory limit, because each item could then be the last one of the worker.
            ahead = status_page is not None and limit is None
            handle = WorkerHandle(hello.route, hello.pid, status_page)
            is_needed = state is PoolState.RUNNING or books.has_work()
            books.workers.add(hello.worker, handle, self._limits.tasks, ahead=ahead)
            if not is_needed:
                books.workers.stop(hello.worker)
        self._control.note_ready()
        self._observer.ready(hello, init_micros)

    def result(self, hello: Hello, result: Result, failure: BaseException | None) -> None:
        """Give outcomes to the tasks of `result`, a message that the worker of `hello` has sent.

        `failure` is the error that all these tasks get because rows are lost; None if no rows are lost. Does nothing if
        the tasks have got their outcomes before. Raises `MessageError` if the worker does not have these tasks.
        """
        taken = self._take(hello, result)
        if taken is None:
            return
        work_item, count = taken
        try:
            if result.last:
                with self._books.lock:
                    self._work_item_done(hello, work_item, result.micros)
        finally:
            # Delivered in any case, because `work` has these tasks no more. No other code would give their caller an
            # outcome.
            self._delivery.deliver(open_result(work_item, result, count, failure))

    def _take(self, hello: Hello, result: Result) -> tuple[WorkItem, int] | None:
        """Note that the worker of `hello` has ended the tasks of `result`. Returns (work item, number of tasks).

        Unless None is returned, the caller of this method must deliver the outcomes. Returns None if these tasks have
        got their outcomes before. Raises `MessageError` if the worker does not have these tasks.
        """
        books = self._books
        with books.lock:
            work_item = books.work.get(result.work_item)
            if work_item is None or result.first < work_item.first:
                # The pool was terminated, or this result was taken from the journal before.
                return None
            # The count is 0 if the worker could not unpickle the work item. Then the result is for all its tasks that
            # have no outcome yet.
            count = result.count or work_item.count - work_item.first
            left = work_item.count - work_item.first
            is_its_own = work_item in books.workers.assigned(hello.worker)
            if not is_its_own or result.first > work_item.first or count > left or (result.last and count < left):
                raise MessageError(f"results of {count} tasks of a work item that it does not have, or has not ended")
            self._observer.result(hello, work_item, count, result)
            work_item.settle(count)
            if result.last:
                books.work.forget(work_item)
            books.begin_delivery()
        return work_item, count

    def _work_item_done(self, hello: Hello, work_item: WorkItem, micros: int) -> None:
        workers, limit = self._books.workers, self._limits.memory
        if limit is not None and self._control.memory(hello.pid) > limit:
            workers.retire(hello.worker)
        workers.done(hello.worker, work_item, micros)
        if workers.get(hello.worker) is not None and workers.is_exhausted(hello.worker):
            workers.stop(hello.worker)
        if workers.could_take_back():
            self._control.look_soon()

    def task_info(self, hello: Hello, began: TaskBegan) -> TaskInfo | None:
        """Return a description of the task that the worker of `hello` has begun, for sinks.

        `began` is the message of the worker about this task. Returns None if the pool no longer knows the task, for
        example because the pool was terminated.
        """
        work_item = self._books.work.get(began.work_item)
        return None if work_item is None else work_item.task_info(hello, began)

    def sink_failed(self, error: BaseException) -> None:
        """Give `error` to the callers of all tasks without an outcome, because a sink has failed.

        The tasks still run, because other sinks may be left.
        """
        with self._books.lock:
            waiting = self._books.work.report_all()
        for work_item in waiting:
            self._delivery.report(Outcome.of_rest(work_item, error))

    def skipped(self, hello: Hello, skipped: Skipped) -> None:
        """Put the work item that `skipped` names into the queue again, because the worker of `hello` did not run it.

        Does nothing if the worker does not have this work item any more. Raises `MessageError` if the pool has not
        taken this work item back.
        """
        with self._books.lock:
            self._books.workers.skipped(hello.worker, skipped.sequence)

    def unfit(self, hello: Hello) -> None:
        """Replace the worker of `hello`, because the rows that the worker logs from now on cannot be used.

        The worker first ends the work item that it runs. Its other work items go to other workers. Does nothing if the
        worker is not ready.
        """
        workers = self._books.workers
        with self._books.lock:
            if workers.get(hello.worker) is not None:
                workers.retire(hello.worker)
                workers.give_again(workers.take_back(hello.worker))
                workers.stop(hello.worker)

    def initializer_failed(self, hello: Hello, failed: InitializerFailed) -> None:
        """End the pool with an `InitializerError`, because the initializer has failed in the worker of `hello`.

        It has raised, or the worker could not unpickle it. `failed` is the message with the pickled exception.
        """
        cause = task_pickling.load_exception(failed.payload)
        text = represent(cause)
        who = describe_process(hello.worker, hello.pid)
        error = InitializerError(f"the initializer raised in {who}: {text}")
        error.__cause__ = cause
        self.broken(error)

    def worker_ended(
        self, worker: int, exitcode: int | None, said_goodbye: bool, kept: Callable[[], SurvivingRows]
    ) -> list[str]:
        """Decide what happens to the work items of a worker that has ended. Start another worker if it is needed.

        If too many workers in a row have ended before they were ready, end the pool with a `WorkerStartError` instead.

        Parameters
        ----------
        worker, exitcode:
            The number of the worker, and its exit code (negative for a signal; None if unknown).
        said_goodbye:
            True if the worker has sent its last message, `Goodbye`. If it is False and another worker starts, mpr logs
            that the worker is replaced.
        kept:
            Returns which rows of the worker have survived.

        Returns
        -------
        Sentences that the recording should note.
        """
        books = self._books
        notes: list[str] = []
        outcomes: list[Outcome] = []
        found = kept() if books.workers.assigned(worker) else SurvivingRows()
        with books.lock:
            books.begin_delivery()
        try:
            with books.lock:
                handle, had = books.workers.remove(worker)
                if handle is not None:
                    loss = WorkerLoss(worker, handle.pid, exitcode, handle.at(), handle.planned_kill, found)
                    self._settle_lost([each for each in had if each in books.work], loss, outcomes, notes)
                state = books.lifecycle.state
                is_needed = state is PoolState.RUNNING or (state is PoolState.CLOSED and books.has_work())
                is_unguarded = handle is None and exitcode == NO_GUARD_EXIT
                is_hopeless = is_needed and handle is None and (is_unguarded or not self._budget.died_at_start())
        finally:
            # In any case, as in `result`.
            self._delivery.deliver(outcomes)
        if is_hopeless:
            self.broken(died_at_start(exitcode, NO_GUARD if is_unguarded else self._control.start_obstacle()))
        elif is_needed:
            if not said_goodbye:
                _log.info("worker %d %s and is replaced", worker, describe_exit(exitcode))
            self._control.replace()
        return notes

    def _settle_lost(self, had: list[WorkItem], loss: WorkerLoss, outcomes: list[Outcome], notes: list[str]) -> None:
        """Decide what happens to the work items `had` of the dead worker that `loss` describes.

        Work items that still have tasks to run go back to the front of the queue. Adds the outcomes of the tasks that
        fail to `outcomes`, and sentences for the recording to `notes`.
        """
        books = self._books
        for work_item in had:
            errors = loss.settle(work_item, self._limits.retries, notes)
            outcomes += [Outcome(work_item, task, 1, None, error) for task, error in errors]
            if work_item.first == work_item.count:
                books.work.forget(work_item)
        books.workers.give_again([each for each in had if each in books.work])

    def recording_ended(self) -> None:
        """Forget all workers, because the recording has ended. End the pool with a `RecordingClosedError`.

        The pool is not ended if it was closed and all its work is done.
        """
        with self._books.lock:
            self._books.workers.remove_all()
        if not self._books.lifecycle.is_finished:
            self.broken(RecordingClosedError("the recording was closed while a pool was working for it"))

    def broken(self, error: BaseException) -> None:
        """End the pool because of `error`. Each task without an outcome gets `error`, and each later call raises it."""
        self._terminate(error)

"""Finds tasks that take too long, and work items that wait in a worker behind a long work item.

Covers: checking which task each worker runs, and killing a worker that still runs a certain task.
Does not cover: how often the checks run (`worker_supervisor.py`) and what a death means for a task (`worker_death.py`).
"""

from __future__ import annotations

import time

from mpr.errors import TaskTimeoutError
from mpr.scheduler.assignment import SHORT_MICROS
from mpr.scheduler.books import PoolBooks
from mpr.scheduler.work_item import WorkItem
from mpr.scheduler.worker_handle import WorkerControl, WorkerHandle

_SHORT_SECS = SHORT_MICROS / 1e6
_NEVER_SECS = 3600.0


class Deadlines:
    """Kills workers whose tasks run too long, and takes back work items that wait in a worker behind a long one.

    This happens only in `look`, which must be called again and again. `kill_at` kills a worker that is still at a
    certain task, for example because the caller has cancelled this task.

    Parameters
    ----------
    books:
        The shared state of the pool.
    control:
        Kills workers.
    task_secs:
        How many seconds a task may run; None for no limit.
    """

    def __init__(self, books: PoolBooks, control: WorkerControl, task_secs: float | None) -> None:
        self._books = books
        self._control = control
        self._task_secs = task_secs

    def look(self) -> float:
        """Kill each worker whose task has run for more than `task_secs`. The task gets a `TaskTimeoutError`.

        Also take back work items that wait behind a long one, if another worker has nothing to do. They go to workers
        that have room. Workers without a status page are not checked. Returns the number of seconds after which to call
        `look` again at the latest.
        """
        again_secs = self._task_secs if self._task_secs is not None else _NEVER_SECS
        late: list[tuple[int, WorkItem, int, BaseException]] = []
        workers = self._books.workers
        with self._books.lock:
            now_ns = time.monotonic_ns()
            for worker in workers.numbers():
                handle, assigned = workers.get(worker), workers.assigned(worker)
                if handle is None or handle.status_page is None or not assigned:
                    continue
                activity = handle.activity(worker, assigned)
                if activity.work_item is None:
                    # The worker has not begun its first work item.
                    continue
                begun_secs = (now_ns - activity.at.begun_ns) / 1e9
                again_secs = min(again_secs, self._take_back_if_long(worker, begun_secs))
                if self._task_secs is not None and activity.at.running:
                    left_secs = self._task_secs - (now_ns - activity.at.since_ns) / 1e9
                    if left_secs <= 0:
                        late.append(self._timeout(worker, handle, activity.work_item, activity.at.task))
                    else:
                        again_secs = min(again_secs, left_secs)
        for worker, work_item, task, error in late:
            self.kill_at(worker, work_item, task, error)
        return again_secs

    def _take_back_if_long(self, worker: int, begun_secs: float) -> float:
        """Take back the work items that wait in `worker` behind a long one, and give them to other workers.

        This is done only if another worker has nothing to do, and if `begun_secs` is at least 0.005. `begun_secs` is
        the time in seconds since `worker` began its work item. Returns the number of seconds after which to check
        again.
        """
        workers = self._books.workers
        if len(workers.assigned(worker)) <= 1 or not workers.could_take_back():
            return _NEVER_SECS
        if begun_secs < _SHORT_SECS:
            return _SHORT_SECS - begun_secs
        workers.give_again(workers.take_back(worker))
        return _NEVER_SECS

    def _timeout(
        self, worker: int, handle: WorkerHandle, work_item: WorkItem, task: int
    ) -> tuple[int, WorkItem, int, BaseException]:
        assert self._task_secs is not None
        return worker, work_item, task, TaskTimeoutError(work_item.name(task), worker, handle.pid, self._task_secs)

    def kill_at(self, worker: int, work_item: WorkItem, task: int | None, error: BaseException) -> bool:
        """Kill `worker` if it is still at task `task` of `work_item`; if `task` is None, at any task of `work_item`.

        A worker without a status page is killed if it has `work_item`. Returns True if the worker was killed. `error`
        becomes the outcome of the task that the worker runs. A `CancelledError` becomes the outcome of all tasks of
        `work_item` that have no outcome yet.
        """

        def is_at_it() -> bool:
            with self._books.lock:
                handle = self._books.workers.get(worker)
                is_held = work_item in self._books.work and work_item in self._books.workers.assigned(worker)
                if handle is None or not is_held:
                    return False
                at = handle.at()
                if at is not None and (
                    at.sequence != work_item.sequence or at.task >= work_item.count or task not in (None, at.task)
                ):
                    return False
                handle.plan_kill(work_item, error)
                return True

        handle = self._books.workers.get(worker)
        return handle is not None and self._control.kill_if(handle.pid, is_at_it)

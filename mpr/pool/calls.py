"""Turns a call of a pool into work items, and makes the object from which the caller gets the results.

Covers: pickling of arguments, chunks, the result object of each kind of call.
Does not cover: the check that the pool accepts calls (`pool.py`), which worker runs a work item (`scheduler`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mpr.pool import imap
from mpr.pool.executor import PoolExecutor
from mpr.pool.options import check_chunksize
from mpr.pool.results import AsyncResult, CallBack, Callback, MapResult, ResultIterator, SingleResult
from mpr.pool.skipped import SKIPPED, spans
from mpr.processes import task_pickling
from mpr.scheduler.task_dispatcher import TaskDispatcher
from mpr.scheduler.work_item import OnOutcome, TaskFunction, WorkItem
from mpr.threads import is_thread_of_ours, run_to_completion
from mpr.transport.messages import CALL

# The number of work items that a map submits together (see `PoolCalls.map`).
_SUBMITTED_AT_ONCE = 64
# The number of work items per worker that a map makes by default, as in `multiprocessing.Pool`. With more than one work
# item per worker, all workers stay busy even if some tasks take longer.
_CHUNKS_PER_WORKER = 4


class PoolCalls:
    """Submits calls to the dispatcher of a pool.

    Parameters
    ----------
    dispatcher:
        The dispatcher of the pool.
    size:
        The number of workers. It determines the default `chunksize` of a map, and how many items an `imap` submits
        ahead.
    """

    def __init__(self, dispatcher: TaskDispatcher, size: int) -> None:
        self._dispatcher = dispatcher
        self._size = size

    def apply(
        self,
        function: Callable[..., Any],
        args: Iterable[Any],
        kwds: Mapping[str, Any] | None,
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> AsyncResult[Any]:
        """Submit the call `function(*args, **kwds)` as one task. Returns the object that will have the result.

        Later, `callback` is called with the result, or `error_callback` with the exception. Raises
        `UnpicklableTaskError` if the function or an argument cannot be pickled. An error that a user's `__reduce__`
        raises, such as a `ValueError`, is raised unchanged.
        """
        task = TaskFunction.of(function, by_value=self._dispatcher.by_value)
        result: SingleResult[Any] = SingleResult(callback, error_callback, self._call_back(task), self._cancel)
        call = [(tuple(args), dict(kwds or {}))]
        payload = task_pickling.dump_arguments(task.name, call, by_value=self._dispatcher.by_value)
        described = self._dispatcher.describe(function, task.name, CALL, call)
        if any(each.is_complete for each in described):
            result.on_outcome(0, 1, [SKIPPED], None)
        else:
            work_item = WorkItem(function=task, payload=payload, on_outcome=result.on_outcome, calls=described)
            self._dispatcher.submit(work_item)
        return result

    def map(
        self,
        function: Callable[..., Any],
        iterable: Iterable[Any],
        mode: int,
        chunksize: int | None,
        callback: Callback | None,
        error_callback: Callback | None,
        *,
        return_exceptions: bool,
    ) -> AsyncResult[list[Any]]:
        """Submit a task for each item of `iterable`. Returns the object that will have the list of results.

        The task calls `function(item)` if `mode` is `EACH`, and `function(*item)` if `mode` is `STAR`. One work item
        has `chunksize` tasks. If `chunksize` is None, there are about four work items per worker. If
        `return_exceptions` is True, the list has the errors of tasks that failed, and the map does not fail.

        Later, `callback` is called with the list of results, or `error_callback` with the first exception. Raises
        `UnpicklableTaskError` (or the error of a user's `__reduce__`) if the function or an item cannot be pickled, and
        `ConfigError` if `chunksize` is no integer of at least 1.
        """
        items = list(iterable)
        if chunksize is not None:
            check_chunksize(chunksize)
        by_value = self._dispatcher.by_value
        task = TaskFunction.of(function, by_value=by_value)
        described = self._dispatcher.describe(function, task.name, mode, items, 0, len(items))
        left = len(items) - sum(call.is_complete for call in described)
        if chunksize is None:
            chunksize = -(-left // (self._size * _CHUNKS_PER_WORKER)) or 1
        parts = list(spans(described, len(items), chunksize))
        # All arguments are pickled first. If one of them cannot be pickled, the call raises before any task runs.
        payloads = [
            (start, stop, task_pickling.dump_arguments(f"{task.name}[{start}]", items[start:stop], by_value=by_value))
            for start, stop, is_skipped in parts
            if not is_skipped
        ]
        result: MapResult[Any] = MapResult(
            len(items),
            callback,
            error_callback,
            self._call_back(task),
            self._cancel,
            return_exceptions=bool(return_exceptions),
        )
        self._dispatcher.announce(task, left)
        on_outcome = result.on_outcome
        for start, stop, is_skipped in parts:
            if is_skipped:
                on_outcome(start, stop - start, [SKIPPED] * (stop - start), None)
        work_items = (
            WorkItem(
                function=task,
                index=start,
                count=stop - start,
                mode=mode,
                payload=payload,
                on_outcome=on_outcome,
                calls=described[start:stop],
            )
            for start, stop, payload in payloads
        )
        # Some work items are submitted together, because threads then switch less often. They are not submitted all
        # together, because the first ones can run while the others are submitted.
        while some := list(itertools.islice(work_items, _SUBMITTED_AT_ONCE)):
            self._dispatcher.submit(*some)
        return result

    def _call_back(self, task: TaskFunction) -> CallBack:
        return functools.partial(self._dispatcher.callbacks.run, f"task {task.name}")

    def _cancel(self, on_outcome: OnOutcome, running: bool) -> bool:
        """Cancel the tasks whose outcomes `on_outcome` gets, as far as possible. Returns True if one was cancelled."""
        cancelled: list[bool] = []

        def cancel() -> None:
            # First those that no worker has, so that none of them begins when a worker is killed and replaced.
            for kill in (False, True) if running else (False,):
                for work_item in self._dispatcher.work.of(on_outcome):
                    cancelled.append(self._dispatcher.cancel(work_item, running=kill))

        # In another thread for the reason in `scheduler/dispatcher.py`.
        cancel() if is_thread_of_ours() else run_to_completion(cancel)
        return any(cancelled)

    def imap(
        self, function: Callable[..., Any], iterable: Iterable[Any], chunksize: int, *, ordered: bool
    ) -> ResultIterator[Any]:
        """Start a thread that submits the task `function(item)` for each item. Returns an iterator over the results.

        The thread submits tasks only as fast as the caller takes results. One work item has `chunksize` tasks. If
        `ordered` is True, the results have the order of the items, else the order in which the tasks end. Raises
        `UnpicklableTaskError` if `function` cannot be pickled, and `ConfigError` if `chunksize` is no integer of at
        least 1.
        """
        return imap.start(self._dispatcher, self._size, function, iterable, check_chunksize(chunksize), ordered=ordered)

    def executor(self, check_running: Callable[[], None], shutdown: Callable[..., None]) -> PoolExecutor:
        """Return a new `concurrent.futures.Executor` that submits tasks to the same dispatcher.

        `check_running` and `shutdown` are the parameters of `PoolExecutor` with these names.
        """
        return PoolExecutor(self._dispatcher, check_running, shutdown)

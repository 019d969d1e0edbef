"""Unpickles the outcomes of tasks, and passes them to the callers. An outcome is the result or the error of a task.

Unpickling runs code of a user, which may raise anything. `open_result`, `start` and `hand_over` catch each error of
this code: the error becomes the outcome of the task, or a line in the log. If this code forks a process, the child ends
when it leaves the code.

Covers: unpickling results and exceptions, and calling the methods of the callers' result objects.
Does not cover: code in workers (`worker/loop.py`), callbacks (`callbacks.py`), texts of exceptions
(`mpr/user_code.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from mpr.errors import DeliveryError, TaskError
from mpr.processes import pickling, task_pickling
from mpr.scheduler.work_item import WorkItem
from mpr.transport.messages import APART, RAISED, Result
from mpr.transport.packing import Buffer
from mpr.user_code import Contained, end_forked, represent

T = TypeVar("T")


class Outcome(NamedTuple):
    """The outcomes of `task_count` tasks of a work item, from task `first` on (counted from 0 in the work item).

    If the tasks have results, `values` has these results, and `error` is None. If the tasks have failed, `values` is
    None, and `error` is the error of each task.
    """

    work_item: WorkItem
    first: int
    task_count: int
    values: Sequence[Any] | None
    error: BaseException | None

    @classmethod
    def of_rest(cls, work_item: WorkItem, error: BaseException | None) -> Outcome:
        """Return an outcome that gives `error` to all tasks of `work_item` that have no outcome yet."""
        return cls(work_item, work_item.first, work_item.count - work_item.first, None, error)


def open_result(work_item: WorkItem, result: Result, count: int, failure: BaseException | None) -> Iterator[Outcome]:
    """Yield the outcomes of `count` tasks of `work_item`, in the order of the tasks. Unpickles them from `result`.

    If `failure` is not None, it is the error of all these tasks, and nothing is unpickled. Tasks whose results cannot
    be unpickled get a `TaskError`. If `result` does not have `count` results, all these tasks get a `DeliveryError`.
    """
    first = result.first
    if failure is not None:
        yield Outcome(work_item, first, count, None, failure)
    elif result.status == RAISED:
        yield Outcome(work_item, first, count, None, _unpickled(task_pickling.load_exception, result.payload))
    elif result.status == APART:
        yield from _open_apart(work_item, result, count)
    else:
        try:
            values = _unpickled(pickling.loads, result.payload)
        except BaseException as error:  # noqa: BLE001  # whatever a user's `__setstate__` raises
            yield Outcome(work_item, first, count, None, _unreadable(work_item, first, error))
            return
        if type(values) is list and len(values) == count:
            yield Outcome(work_item, first, count, values, None)
        else:
            yield Outcome(work_item, first, count, None, _not_results(work_item, first, count))


def _open_apart(work_item: WorkItem, result: Result, count: int) -> Iterator[Outcome]:
    task = result.first
    try:
        parts = task_pickling.parts_of_results(result.payload, count)
    except Exception:  # noqa: BLE001  # whatever bytes of another kind raise
        yield Outcome(work_item, task, count, None, _not_results(work_item, task, count))
        return
    for task, (has_raised, payload) in enumerate(parts, result.first):
        if has_raised:
            yield Outcome(work_item, task, 1, None, _unpickled(task_pickling.load_exception, payload))
            continue
        try:
            value = _unpickled(pickling.loads, payload)
        except BaseException as error:  # noqa: BLE001  # whatever a user's `__setstate__` raises
            yield Outcome(work_item, task, 1, None, _unreadable(work_item, task, error))
        else:
            yield Outcome(work_item, task, 1, [value], None)


def _unpickled(load: Callable[[Sequence[Buffer]], T], payload: Sequence[Buffer]) -> T:
    """Return `load(payload)`, or raise its error. If `load` forks this process, the child ends after `load`."""
    pid = os.getpid()
    try:
        value = load(payload)
    except BaseException as error:
        end_forked(pid, error)
        raise
    end_forked(pid, None)
    return value


def _unreadable(work_item: WorkItem, task: int, error: BaseException) -> TaskError:
    text = f"the result of task {work_item.name(task)} cannot be unpickled here: {represent(error)}"
    failure = TaskError(text)
    failure.__cause__ = error
    return failure


def _not_results(work_item: WorkItem, task: int, count: int) -> DeliveryError:
    return DeliveryError(f"a worker has sent no {count} results of {work_item.name(task)}")


def start(work_item: WorkItem) -> bool:
    """Tell the caller that a worker is about to get `work_item`. Returns True if the worker may get the work item.

    Returns False if the caller has cancelled the work item, or has set the result of its future itself.
    """
    # An error is raised if the caller has set the result of the future itself.
    with Contained("the caller of task %s cannot be told that it starts", work_item.name(0)):
        return work_item.start()
    return False


def hand_over(outcome: Outcome) -> None:
    """Pass `outcome` to the caller by `on_outcome` of the work item. An error of `on_outcome` is only logged."""
    work_item, first, count, values, error = outcome
    # An error is only logged, because it must not end this thread. The caller may have set the result of a future.
    with Contained("the outcome of task %s cannot be handed over", work_item.name(first)):
        work_item.on_outcome(work_item.index + first, count, values, error)

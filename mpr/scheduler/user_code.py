"""Runs code of a user in the threads of a pool: unpickling of results, and callbacks.

Covers: unpickling what a task has returned or raised, and calling the callbacks of the caller.
Does not cover: code in workers, the exception of an initializer (`worker_events.py`), and observers of the pool
(`observer.py`), because observers are part of mpr.

Code of a user runs when a result or an exception is unpickled, when an exception becomes a text, and in callbacks. Such
code may raise anything, also `SystemExit`. No function of this module raises. An error becomes the outcome of the task,
or a line in the log, so that the other tasks and the thread go on.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from mpr.errors import DeliveryError
from mpr.processes import pickling, task_pickling
from mpr.scheduler.work_item import WorkItem
from mpr.transport.messages import MIXED, RAISED, Result

_log = logging.getLogger("mpr")


class Outcome(NamedTuple):
    """The outcome of `task_count` tasks of a work item, from task `first` on: their results, or one error for all."""

    work_item: WorkItem
    first: int
    task_count: int
    values: Sequence[Any] | None
    error: BaseException | None

    @classmethod
    def of_rest(cls, work_item: WorkItem, error: BaseException | None) -> Outcome:
        """Make `error` the outcome of all tasks of `work_item` that have no outcome yet."""
        return cls(work_item, work_item.first, work_item.count - work_item.first, None, error)


def open_result(work_item: WorkItem, result: Result, count: int, failure: BaseException | None) -> list[Outcome]:
    """Unpickle the outcomes of `count` tasks in `result`. If there is a `failure`, it is the error of all of them."""
    values = None
    if failure is None:
        try:
            if result.status == RAISED:
                failure = task_pickling.load_exception(result.payload)
            else:
                values = pickling.loads(result.payload)
                if type(values) is not list or len(values) != count:
                    raise DeliveryError(f"a worker has sent no {count} results of {work_item.name(result.first)}")
        except BaseException as error:  # noqa: BLE001  # whatever a user's `__setstate__` raises
            values, failure = None, error
    if values is None or result.status != MIXED:
        return [Outcome(work_item, result.first, count, values, failure)]
    outcomes = []
    for task, value in enumerate(values, result.first):
        # Not `isinstance`, because `isinstance` asks a value for `__class__`, which may be code of a user.
        if type(value) is task_pickling.Failure:
            outcomes.append(Outcome(work_item, task, 1, None, task_pickling.load_exception(value.payload)))
        else:
            outcomes.append(Outcome(work_item, task, 1, [value], None))
    return outcomes


def start(work_item: WorkItem) -> bool:
    """Tell the caller that a worker is about to get `work_item`.

    Returns False if the caller has cancelled the work item, or if the caller's code raises.
    """
    try:
        return work_item.start()
    except BaseException:  # noqa: BLE001  # raised if the caller has set the result of the future itself
        _log_failure("the caller of task %s cannot be told that it starts", work_item.name(0))
        return False


def hand_over(outcome: Outcome) -> None:
    """Give an outcome to the caller, and run the callbacks of the caller."""
    work_item, first, count, values, error = outcome
    try:
        work_item.on_outcome(work_item.index + first, count, values, error)
    except BaseException:  # noqa: BLE001  # a user's callback, also one that calls `sys.exit`
        # The error is only logged, because it must not end this thread. In `multiprocessing.Pool` such an error ends
        # the thread that handles results, and all calls hang.
        _log_failure("a callback for task %s raised", work_item.name(first))


def _log_failure(text: str, name: str) -> None:
    # Writing the traceback may raise, because the class of the exception may be code of a user.
    with contextlib.suppress(BaseException):
        _log.exception(text, name)

"""Defines the work item: one task or several tasks of one call, which a worker gets in one message. Does no I/O.

Covers: the fields of a work item, the methods that change them, and the message for the worker.
Does not cover: which worker has a work item (`assignment.py`), what follows from an outcome (`worker_events.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mpr.processes import task_pickling
from mpr.rrd.segment import TaskCall, TaskInfo
from mpr.transport.messages import CALL, Hello, TaskBegan, Tasks
from mpr.transport.packing import Buffer
from mpr.transport.status_page import At

#: Takes the outcome of tasks of a call. The arguments are the index of the first task, the number of tasks, and either
#: their results and None, or None and one error for all of them.
OnOutcome = Callable[[int, int, Sequence[Any] | None, BaseException | None], None]


class Describe(Protocol):
    """Describes tasks for the sinks."""

    def __call__(
        self,
        function: Callable[..., Any],
        name: str,
        mode: int,
        items: Sequence[Any],
        start: int | None = None,
        length: int | None = None,
        /,
    ) -> Sequence[TaskCall]:
        """Return a description of each task, or an empty sequence if no sink needs one.

        `function` and `name` are the task function and its name, `mode` is the mode of the work item, and `items` has
        one entry of the pickled arguments per task. `start` is the index of the first task in its call, and `length` is
        the number of tasks of the call; None if it is not known.

        Raises `ConfigError` if a sink cannot take these tasks.
        """


#: The same for one function and one mode. The arguments are the items, and the index of the first of them.
DescribeItems = Callable[[Sequence[Any], int], Sequence[TaskCall]]


@dataclass(frozen=True, slots=True)
class TaskFunction:
    """A pickled task function.

    Attributes
    ----------
    name:
        The name of the function, for texts that users read.
    digest:
        A hash of the pickle (16 bytes), which identifies the function.
    code:
        The pickle.
    """

    name: str
    digest: bytes
    code: bytes

    @classmethod
    def of(cls, function: Callable[..., Any], *, by_value: bool) -> TaskFunction:
        """Return `function`, pickled. If `by_value` is True, a function of `__main__` is pickled with its code.

        Raises the errors of `dump_function` (`processes/task_pickling.py`), such as `UnpicklableTaskError`.
        """
        return cls(task_pickling.task_name(function), *task_pickling.dump_function(function, by_value=by_value))


def describe_nothing(
    _function: object,
    _name: str,
    _mode: int,
    _items: object,
    _start: int | None = None,
    _length: int | None = None,
) -> Sequence[TaskCall]:
    """Return no descriptions. This is the `Describe` of a pool whose sinks need none."""
    return ()


def _ignore(_first: int, _count: int, _values: object, _error: object) -> None:
    """Do nothing. This function is the `on_outcome` of a work item until `connect` sets another one."""


@dataclass(eq=False, slots=True, kw_only=True)
class WorkItem:
    """One task or several tasks of one call. Only the methods of this class change a work item.

    Attributes
    ----------
    function:
        The task function.
    index:
        The position of the work item's first task in its `map`, counted from 0. In a call that is no `map`, it is equal
        to `first_task`.
    count:
        How many tasks the work item has.
    mode, payload:
        How the function is called (`CALL`, `EACH` or `STAR` of `transport/messages.py`), and the pickled arguments.
    on_outcome:
        Called with the outcomes of one or more tasks. See `OnOutcome` for the arguments.
    calls:
        A description of each task for the sinks; empty if no sink needs one.
    on_start:
        Called once, before a worker gets the work item. Returns False if the caller has cancelled the work item. None
        if there is nothing to call, or if it has returned True.
    number:
        The number of the work item in the pool, from 1; 0 until the pool has accepted the work item.
    first_task:
        How many tasks the pool has accepted before the first task of the work item.
    sequence:
        The number of the work item among those that were sent to the same worker, from 1; 0 if it was not sent.
    first:
        The number of the first task without an outcome, counted from 0 in the work item.
    attempt, again:
        The next `again` tasks, from `first` on, run for the `attempt`-th time, because their worker died before. The
        tasks after them run for the first time.
    is_reported:
        True if the caller has got an error for all tasks before they ended. The caller then gets no other outcome.
    """

    function: TaskFunction
    index: int = 0
    count: int = 1
    mode: int = CALL
    payload: Sequence[Buffer]
    on_outcome: OnOutcome = _ignore
    calls: Sequence[TaskCall] = ()
    on_start: Callable[[], bool] | None = None
    number: int = 0
    first_task: int = 0
    sequence: int = 0
    first: int = 0
    attempt: int = 1
    again: int = 0
    is_reported: bool = False

    # --- changes -----------------------------------------------------------------------------------------------

    def connect(self, on_outcome: OnOutcome, on_start: Callable[[], bool]) -> None:
        """Set `on_outcome` and `on_start` (see the attributes)."""
        self.on_outcome, self.on_start = on_outcome, on_start

    def accepted(self, number: int, first_task: int) -> None:
        """Set `number` and `first_task`, because the pool has accepted the work item."""
        self.number, self.first_task = number, first_task
        if self.mode == CALL:
            # A single call has no position in a `map`. Its index is its number, so that each call has another index.
            self.index = first_task

    def start(self) -> bool:
        """Call `on_start`, because a worker is about to get the work item. If it has returned True before, do nothing.

        Returns True if the worker may get the work item, and False if the caller has cancelled it. Raises the errors of
        `on_start`, for example if the caller has set the result of the future.
        """
        if self.on_start is not None:
            if not self.on_start():
                return False
            self.on_start = None
        return True

    def assigned(self, sequence: int) -> None:
        """Set `sequence`, because the work item is sent to a worker."""
        self.sequence = sequence

    def reported(self) -> None:
        """Note that the caller gets an error for all tasks now, although the tasks may still run."""
        self.is_reported, self.on_start = True, None

    def settle(self, count: int) -> None:
        """Note that the next `count` tasks, from `first` on, have their outcome.

        This increases `first` and decreases `again`. If `again` becomes 0, `attempt` becomes 1.
        """
        self.first += count
        self.again = max(0, self.again - count)
        if not self.again:
            self.attempt = 1

    def fail(self, count: int) -> None:
        """Note that the next `count` tasks, from `first` on, have failed, because their worker has died.

        The tasks after them begin with attempt 1 again.
        """
        self.settle(count)
        self.attempt = 1

    def retry(self, begun: int) -> None:
        """Note that the tasks from `first` up to, but without, `begun` run once more, because their worker has died.

        This increases `attempt` by 1.
        """
        self.attempt += 1
        self.again = max(self.again, begun - self.first)

    # --- questions ---------------------------------------------------------------------------------------------

    def name(self, task: int) -> str:
        """Return a name for task `task` of this work item, for texts that users read.

        The name is `detect` for a single call, and `detect[3]` for the task at position 3 of a `map`.
        """
        return self.function.name if self.mode == CALL else f"{self.function.name}[{self.index + task}]"

    def task_info(self, hello: Hello, began: TaskBegan) -> TaskInfo:
        """Return a description of the task that the worker of `hello` has begun.

        `began` is the message of the worker about this task.
        """
        return TaskInfo(
            number=self.first_task + began.task,
            name=self.function.name,
            index=self.index + began.task,
            attempt=began.attempt,
            worker=hello.worker,
            pid=hello.pid,
            started_nanos=began.started_nanos,
            call=self.calls[began.task] if began.task < len(self.calls) else None,
        )

    def message(self) -> Tasks:
        """Return the message that carries this work item to a worker."""
        return Tasks(
            self.number,
            self.sequence,
            self.mode,
            self.first,
            self.again,
            self.attempt,
            self.index,
            self.function.digest,
            self.payload,
        )

    def begun(self, at: At | None) -> tuple[int, int]:
        """Return how many tasks of this item the worker had begun, and the number of the task that it ran.

        `at` is the position of the worker. The second value counts from 0; -1 if no task of this item ran. Tasks that
        have their outcome count as begun. If `at` is None, because the worker has no status page, all tasks count as
        begun, and the second value is `first`.
        """
        if at is None:
            # A worker without a status page has one work item at a time, and may have begun all tasks of this item.
            return self.count, self.first
        if at.sequence != self.sequence:
            # The worker was at a later work item, or had not reached this one.
            return (self.count if at.sequence > self.sequence else self.first), -1
        # Limited to the tasks that there are, because the worker may have overwritten its status page.
        if at.running and self.first <= at.task < self.count:
            return at.task + 1, at.task
        return min(max(at.task, self.first), self.count), -1

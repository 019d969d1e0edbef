"""What goes to a worker in one message (one task, or several of one call), and what comes back of it.

No I/O: who has a work item and what follows from its outcome is the dispatcher's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mpr.processes import pickling, task_pickling
from mpr.rrd.segment import TaskInfo
from mpr.transport.messages import CALL, MIXED, RAISED, Buffer, Hello, Result, TaskBegan, Tasks
from mpr.transport.status_page import At

#: Takes the outcome of the tasks `first` to `first + count` of a call: their results, or one error for all of them.
OnOutcome = Callable[[int, int, Sequence[Any] | None, BaseException | None], None]


@dataclass(frozen=True, slots=True)
class TaskFunction:
    """A task function, ready to travel: its name for messages, its pickle, and the digest that stands for it."""

    name: str
    digest: bytes
    code: bytes

    @classmethod
    def of(cls, function: Callable[..., Any]) -> TaskFunction:
        """Raises `UnpicklableTaskError` where `function` cannot travel."""
        return cls(task_pickling.task_name(function), *task_pickling.dump_function(function))


def _nobody(_first: int, _count: int, _values: object, _error: object) -> None:
    """Until somebody wants the outcome."""


@dataclass(eq=False, slots=True, kw_only=True)
class WorkItem:
    """Tasks of one call.

    Attributes
    ----------
    function:
        What to call.
    index:
        Index of the first task in its call.
    count:
        How many tasks these are.
    mode, payload:
        How to call it, with which arguments.
    deliver:
        Called with each part of the outcome, in the order of the tasks.
    begin:
        Called once, before a worker gets it; false: it was cancelled.
    number:
        Its number in the pool.
    serial:
        How many tasks were submitted to the pool before its first.
    turn:
        It is the so-many-th work item that its worker was sent.
    first:
        The first task without an outcome.
    attempt, again:
        The next `again` tasks are tried for the `attempt`-th time: their worker has died before.
    told:
        Whoever wants the outcome has been told before its end, and hears no more.
    """

    function: TaskFunction
    index: int = 0
    count: int = 1
    mode: int = CALL
    payload: Sequence[Buffer]
    on_outcome: OnOutcome = _nobody
    on_start: Callable[[], bool] | None = None
    number: int = 0
    first_task: int = 0
    sequence: int = 0
    first: int = 0
    attempt: int = 1
    again: int = 0
    reported: bool = False

    def name(self, task: int) -> str:
        """Task `task` of this work item, for messages: `detect[3]`."""
        return self.function.name if self.mode == CALL else f"{self.function.name}[{self.index + task}]"

    def task_info(self, hello: Hello, began: TaskBegan) -> TaskInfo:
        """The task that a worker has begun, in the words of the parent."""
        return TaskInfo(
            number=self.first_task + began.task,
            name=self.function.name,
            index=self.index + began.task,
            attempt=began.attempt,
            worker=hello.worker,
            pid=hello.pid,
            started_nanos=began.started_nanos,
        )

    def message(self) -> Tasks:
        """What is still to be done."""
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

    def settle(self, count: int) -> None:
        """The next `count` tasks have their outcome."""
        self.first += count
        self.again = max(0, self.again - count)
        if not self.again:
            self.attempt = 1

    def retry(self, begun: int) -> None:
        """The tasks before `begun` that have no outcome are tried once more."""
        self.attempt += 1
        self.again = max(self.again, begun - self.first)

    def begun(self, at: At | None) -> tuple[int, int]:
        """How many of its tasks the worker had begun that is `at`, and which of them ran (-1: none)."""
        if at is None:
            # Nobody knows; it had this work item alone.
            return self.count, self.first
        if at.sequence != self.sequence:
            # It was at the next one, or has not come to this one.
            return (self.count if at.sequence > self.sequence else self.first), -1
        if at.running:
            return at.task + 1, at.task
        return max(at.task, self.first), -1


def outcomes(
    result: Result, count: int, failure: BaseException | None
) -> Iterator[tuple[int, int, Sequence[Any] | None, BaseException | None]]:
    """The parts of a result: (first task, number of tasks, their results, or an error for all of them)."""
    values = None
    if failure is None:
        try:
            if result.status == RAISED:
                failure = task_pickling.load_exception(result.payload)
            else:
                values = pickling.loads(result.payload)
        except BaseException as error:  # noqa: BLE001  # whatever a user's `__setstate__` raises
            failure = error
    if values is None or result.status != MIXED:
        yield result.first, count, values, failure
        return
    for task, value in enumerate(values, result.first):
        if isinstance(value, task_pickling.Failure):
            yield task, 1, None, task_pickling.load_exception(value.payload)
        else:
            yield task, 1, [value], None

"""Says which task runs in the current context of `contextvars`, and holds the arguments of `@mpr.task`.

Covers: `mpr.current_task`, and setting the current task.
Does not cover: the times and the recording of a task (`context.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeAlias

from mpr.errors import ConfigError
from mpr.user_code import around


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentTask:
    """The identity of the task that runs. `mpr.current_task` returns it.

    Attributes
    ----------
    name:
        The qualified name of the task's function, or the name from `@mpr.task(name=...)`.
    index:
        In a `map`, the position of the task's item, from 0. In an `apply` or `submit`, the number of the task in the
        pool. If no pool has submitted the task, a number from 0 that is unique among such tasks of the recording, for
        example in a decorated function that an undecorated task of a pool calls. Without a recording to join, the
        number of tasks without a recording that this process has run before.
    attempt:
        1 for the first attempt, and one more for each retry of a pool or of Ray.
    worker:
        The number of the process in its recording; 0 in the process that has made the recording. None without a
        recording to join.
    """

    name: str
    index: int
    attempt: int = 1
    worker: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """The arguments of `@mpr.task`, and the qualified name of the decorated function.

    Attributes
    ----------
    function:
        The qualified name of the function.
    name:
        The name of the task.
    entity_path_prefix, timeline:
        The arguments of `mpr.task` with these names; None if they were not given.

    Raises
    ------
    ConfigError
        If the name, the prefix or the timeline is empty, or is not a `str`.
    """

    function: str
    name: str
    entity_path_prefix: str | None = None
    timeline: str | None = None

    def __post_init__(self) -> None:
        for field, value in (("name", self.name), ("timeline", self.timeline), ("prefix", self.entity_path_prefix)):
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigError(f"the {field} of a task must be a str that is not empty, got {value!r}")


# The values that the tasks of one work item (the tasks of one message to a worker) share, and a list with the position
# of the task that runs. A worker sets this variable once per work item, and then changes only the list. The reason is
# that setting a context variable takes 0.1 us per task. A position is twice the task's number plus 1. The status page
# has the same number.
_Common: TypeAlias = tuple[str, int, int, int, int | None, list[int]]
_common: ContextVar[_Common | None] = ContextVar("mpr_common_of_tasks", default=None)


def current_task() -> CurrentTask | None:
    """Return the task that runs; None outside of a task.

    A coroutine that a task starts belongs to this task. A `threading.Thread` that a task starts has no current task.
    """
    found = _common.get()
    if found is None:
        return None
    name, index, again_until, attempt, worker, (position,) = found
    task = position // 2
    return CurrentTask(name=name, index=index + task, attempt=attempt if task < again_until else 1, worker=worker)


_together: ContextVar[bool] = ContextVar("mpr_delivered_together", default=False)


@around
def delivered_together() -> Iterator[None]:
    """A context manager. Tasks in its block do not deliver their rows, because the caller delivers the rows later."""
    token = _together.set(True)
    yield
    _together.reset(token)


def is_delivered_together() -> bool:
    """Return True within a block of `delivered_together`."""
    return _together.get()


#: Set the shared values of the next tasks: `(name, index of task 0, again_until, attempt, worker, [position])`. Tasks
#: with a number below `again_until` run for the `attempt`-th time, all others for the first. None says: no task runs.
set_common: Final = _common.set


@around
def running(task: CurrentTask, position: list[int] | None = None) -> Iterator[None]:
    """Make `task` the current task within the `with` block.

    If `position` is given, it has one number. As soon as the block sets it to `2 * n`, the current task is the one with
    the index `task.index + n`.
    """
    token = _common.set((task.name, task.index, sys.maxsize, task.attempt, task.worker, position or [0]))
    yield
    _common.reset(token)

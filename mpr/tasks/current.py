"""Which task runs: its identity, seen by everything that the task starts in the same context, and its options."""

from __future__ import annotations

import string
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeAlias

from mpr.errors import ConfigError

_PREFIX_FIELDS = ("task", "name", "index", "attempt", "worker", "pid")


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentTask:
    """The task that runs.

    Attributes
    ----------
    name:
        Its function's qualified name, or the name that `@mpr.task(name=...)` gave it.
    index:
        Its index in its call of the pool; outside of a pool, how many calls of it came before in this process.
    attempt:
        1, and one more for each retry.
    worker:
        The worker's id, unique in its pool; None outside of a pool.
    """

    name: str
    index: int
    attempt: int = 1
    worker: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What `@mpr.task` was given, see there, and the qualified name of its function."""

    function: str
    name: str
    entity_path_prefix: str | None = None
    timeline: str | None = None

    def __post_init__(self) -> None:
        for field, value in (("name", self.name), ("timeline", self.timeline), ("prefix", self.entity_path_prefix)):
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigError(f"the {field} of a task must be a str that is not empty, got {value!r}")
        if self.entity_path_prefix is not None:
            self._check_prefix(self.entity_path_prefix)

    @staticmethod
    def _check_prefix(prefix: str) -> None:
        try:
            fields = [field for _, field, _, _ in string.Formatter().parse(prefix) if field is not None]
        except ValueError as error:
            raise ConfigError(f"entity_path_prefix={prefix!r} is no format string: {error}") from None
        unknown = [field for field in fields if field not in _PREFIX_FIELDS]
        if unknown:
            raise ConfigError(
                f"entity_path_prefix={prefix!r} names {{{unknown[0]}}}, and there are: "
                + ", ".join(f"{{{field}}}" for field in _PREFIX_FIELDS)
            )


# What the tasks of one work item have in common, and a list with the place of the one that runs, twice its number and
# one:
# a worker need not set a context variable for each task, which takes longer than some tasks do, nor count once more.
_Common: TypeAlias = tuple[str, int, int, int, int | None, list[int]]
_common: ContextVar[_Common | None] = ContextVar("mpr_common_of_tasks", default=None)


def current_task() -> CurrentTask | None:
    """The task that runs here; None outside of a task. What a task starts by `asyncio` knows it too."""
    found = _common.get()
    if found is None:
        return None
    name, index, again_until, attempt, worker, (position,) = found
    task = position // 2
    return CurrentTask(name=name, index=index + task, attempt=attempt if task < again_until else 1, worker=worker)


#: Tells what the next tasks have in common: `(name, index of task 0, again_until, attempt, worker, [place])`, where the
#: tasks before `again_until` are tried for the `attempt`-th time; None: there is no task any more.
set_common = _common.set


@contextmanager
def running(task: CurrentTask) -> Iterator[None]:
    """Within, `task` is the current one."""
    token = _common.set((task.name, task.index, 1, task.attempt, task.worker, [1]))
    try:
        yield
    finally:
        _common.reset(token)

"""The states of a pool and the limits of its workers."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from mpr.errors import ConfigError


def too_small(limit: int, used: int) -> ConfigError:
    """The error for a `maxmemoryperchild` that is less than what a worker needs anyway."""
    return ConfigError(
        f"maxmemoryperchild is {limit:,} bytes, but a worker has {used:,} resident before its first task: every task "
        "would need a new one. Choose more"
    )


@dataclass(frozen=True, kw_only=True)
class PoolLimits:
    """What a pool allows its tasks and workers; None: no limit.

    Attributes
    ----------
    tasks:
        Work items that a worker is given in its life.
    memory:
        Resident bytes with which a worker may be given another work item.
    task_secs:
        Seconds that a task may run.
    retries:
        How often a task is run again whose worker has died.
    """

    tasks: int | None = None
    memory: int | None = None
    task_secs: float | None = None
    retries: int = 0


class PoolState(enum.Enum):
    #: Takes tasks.
    RUNNING = "running"
    #: Takes no more tasks; those it has are worked off.
    CLOSED = "closed"
    #: Works no more; what had no result has an error.
    TERMINATED = "terminated"


@dataclass
class StartBudget:
    """How often workers may die before they were ready, in a row, until the pool gives up.

    A worker that dies at start would otherwise be replaced for ever; `multiprocessing.Pool` then writes 85,000 lines to
    stderr in 20 s.
    """

    allowed: int = 3
    _failed: int = field(default=0, init=False)

    def started(self) -> None:
        self._failed = 0

    def died_at_start(self) -> bool:
        """Whether another worker should be started all the same."""
        self._failed += 1
        return self._failed < self.allowed

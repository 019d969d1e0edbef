"""The small state machines of a pool, without I/O: events in, answers out."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


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

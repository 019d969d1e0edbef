"""A pool's workers as its dispatcher sees them: each that is ready, and whoever keeps them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from mpr.scheduler.work_item import WorkItem
from mpr.transport.function_cache import FunctionCache
from mpr.transport.status_page import At, StatusPageReader

#: Has something done in the aggregator's thread.
Soon = Callable[[Callable[[], None]], None]


class WorkerControl(Protocol):
    """Who keeps the workers. Calls come from any thread; only `end_if` may wait, for milliseconds."""

    def note_ready(self) -> None:
        """A worker takes tasks."""

    def replace(self) -> None:
        """One more worker is wanted."""

    def look_soon(self) -> None:
        """Call `Dispatcher.look` now."""

    def end_if(self, pid: int, condition: Callable[[], bool]) -> bool:
        """Stop the worker; end it where `condition()` is true while it stands still, and else let it go on."""

    def memory(self, pid: int) -> int:
        """Resident bytes of the worker."""


@dataclass(frozen=True, slots=True)
class WorkerActivity:
    """What a worker is at, for a display: `work_item` is the one that it has begun and not ended, if any.

    Its `rr.log` waits since `back_pressure_since_ns` (0: it does not), and has waited for `back_pressure_ns` before.
    """

    worker: int
    at: At
    work_item: WorkItem | None
    back_pressure_since_ns: int = 0
    back_pressure_ns: int = 0

    @property
    def runs(self) -> bool:
        """Whether a task runs."""
        return self.at.running and self.work_item is not None


@dataclass(slots=True)
class WorkerHandle:
    """A worker that is ready: how to reach it, what it is at, and which functions it has."""

    route: str
    pid: int
    status_page: StatusPageReader | None
    last_sequence: int = 0
    functions: FunctionCache[bool] = field(default_factory=FunctionCache)
    #: Why it was ended on purpose: the work item that it was at, and what its task is told.
    planned_kill: tuple[WorkItem, BaseException] | None = None

    def activities(self, worker: int, assigned: Iterable[WorkItem]) -> WorkerActivity:
        """What it is at, of the work items that it holds; it has a status page."""
        assert self.status_page is not None
        at = self.status_page.at()
        return WorkerActivity(
            worker,
            at,
            next((each for each in assigned if each.sequence == at.sequence), None),
            *self.status_page.back_pressure(),
        )

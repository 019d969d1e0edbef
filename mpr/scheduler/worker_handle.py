"""What the dispatcher knows of each ready worker, and the interface of the supervisor that starts and kills them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from mpr.scheduler.work_item import WorkItem
from mpr.transport.function_cache import FunctionCache
from mpr.transport.messages import Function, Tasks
from mpr.transport.status_page import At, StatusPageReader

#: Has a function called in the aggregator's thread.
Soon = Callable[[Callable[[], None]], None]


class WorkerControl(Protocol):
    """Keeps the worker processes. Calls come from any thread; only `kill_if` may wait, for milliseconds."""

    def note_ready(self) -> None:
        """A worker takes tasks."""

    def replace(self) -> None:
        """Start one more worker."""

    def look_soon(self) -> None:
        """Call `Dispatcher.look` now."""

    def kill_if(self, pid: int, condition: Callable[[], bool]) -> bool:
        """Stop the worker; kill it if `condition()` is true while it stands still, and else let it go on."""

    def memory(self, pid: int) -> int:
        """Resident bytes of the worker."""


@dataclass(frozen=True, slots=True)
class WorkerActivity:
    """The activity of a worker at one moment, for a display.

    Attributes
    ----------
    worker:
        Its number.
    at:
        Its position, as its status page says.
    work_item:
        The work item that it has begun and not ended, if any.
    back_pressure_since_ns:
        Since when its `rr.log` waits for the sinks (`time.monotonic_ns()`); 0 if it does not wait.
    back_pressure_ns:
        For how long its `rr.log` has waited before.
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


class WorkerHandle:
    """A worker that is ready. Only its own methods change it.

    Parameters
    ----------
    route:
        Its name on the downstream socket.
    pid:
        Its process id.
    status_page:
        Says what it does; None if the parent cannot open it.
    """

    def __init__(self, route: str, pid: int, status_page: StatusPageReader | None) -> None:
        self.route = route
        self.pid = pid
        self.status_page = status_page
        #: Why it is killed on purpose: the work item that it is at, and the error for its task.
        self.planned_kill: tuple[WorkItem, BaseException] | None = None
        self._last_sequence = 0
        self._functions: FunctionCache[bool] = FunctionCache()

    def assign(self, work_item: WorkItem) -> list[Function | Tasks]:
        """Give it `work_item`. Returns the messages for it: the task function only if it has not got that yet."""
        self._last_sequence += 1
        work_item.assigned(self._last_sequence)
        function = work_item.function
        if self._functions.use(function.digest):
            return [work_item.message()]
        self._functions.keep(function.digest, True)
        return [Function(function.digest, function.code), work_item.message()]

    def plan_kill(self, work_item: WorkItem, error: BaseException) -> None:
        """It is killed because of `work_item`, whose task gets `error`."""
        self.planned_kill = work_item, error

    def at(self) -> At | None:
        """Its position now; None if it has no status page."""
        return None if self.status_page is None else self.status_page.at()

    def revoke(self) -> At | None:
        """Revoke all work items that it has not begun. Returns its position then; None if it has no status page."""
        return None if self.status_page is None else self.status_page.revoke(self._last_sequence)

    def activity(self, worker: int, assigned: Iterable[WorkItem]) -> WorkerActivity:
        """Its present activity, with one of the work items that are `assigned` to it. It has a status page."""
        assert self.status_page is not None
        at = self.status_page.at()
        return WorkerActivity(
            worker,
            at,
            next((each for each in assigned if each.sequence == at.sequence), None),
            *self.status_page.back_pressure(),
        )

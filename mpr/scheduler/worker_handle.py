"""Defines the handle of a ready worker, and the interface of the supervisor that starts and kills workers.

A handle keeps what the pool must know to send work items to a worker: its name, its process id and its status page.

Covers: the handle, the interface of the supervisor, and the activity of a worker for a display.
Does not cover: which worker gets a work item (`assignment.py`), and starting processes (`worker_supervisor.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from mpr.scheduler.work_item import WorkItem
from mpr.transport.function_cache import FunctionCache
from mpr.transport.messages import Function, Tasks
from mpr.transport.status_page import At, StatusPageReader

#: Called with a function. The aggregator's thread then calls this function.
Soon = Callable[[Callable[[], None]], None]


class WorkerControl(Protocol):
    """Starts and kills worker processes. Any thread may call the methods.

    Only `kill_if` may wait: until other calls of `kill_if` return, up to 1 s until the worker stops, and until
    `condition` returns.
    """

    def note_ready(self) -> None:
        """Note that a worker of the pool is ready. At the first call, the other workers are started at once."""

    def replace(self) -> None:
        """Start a worker in place of one that has ended, unless the pool starts no more workers."""

    def start_obstacle(self) -> str | None:
        """Return, as text, why no worker can join the recording; None if no reason is known."""

    def look_soon(self) -> None:
        """Have the supervisor's thread call `Dispatcher.look` now."""

    def kill_if(self, pid: int, condition: Callable[[], bool]) -> bool:
        """Suspend the worker with the process id `pid`, and call `condition`. If it returns True, kill the worker.

        If `condition` returns False, resume the worker. Returns True if the worker was killed, and False if not, for
        example if it had ended. The worker is suspended, so that it cannot begin another task before the kill.
        """

    def memory(self, pid: int) -> int:
        """Return the resident memory of the worker with the process id `pid`, in bytes; 0 if it cannot be read."""


@dataclass(frozen=True, slots=True)
class WorkerActivity:
    """The activity of a worker at one moment, for a display.

    Attributes
    ----------
    worker:
        The number of the worker.
    at:
        The work item and the task that the worker runs, or will run next, as its status page says.
    work_item:
        The work item that the worker has begun and not ended; None if there is none.
    back_pressure_since_ns:
        The time since which `rr.log` waits for the sinks (`time.monotonic_ns()`); 0 if `rr.log` does not wait.
    back_pressure_ns:
        How many nanoseconds `rr.log` has waited in all earlier waits.
    """

    worker: int
    at: At
    work_item: WorkItem | None
    back_pressure_since_ns: int = 0
    back_pressure_ns: int = 0

    @property
    def runs(self) -> bool:
        """True if the worker runs a task now, and False if it waits for a work item or is between two tasks."""
        return self.at.running and self.work_item is not None


class WorkerHandle:
    """Keeps what the pool knows of a worker that can run tasks. Only the methods of this class change a handle.

    Parameters
    ----------
    route:
        The name of the worker on the downstream socket.
    pid:
        The process id of the worker.
    status_page:
        Says what the worker does; None if the parent cannot open the page.
    """

    def __init__(self, route: str, pid: int, status_page: StatusPageReader | None) -> None:
        self.route = route
        self.pid = pid
        self.status_page = status_page
        #: The work item because of which the worker is killed, and the error for its task; None if no kill is planned.
        self.planned_kill: tuple[WorkItem, BaseException] | None = None
        self._last_sequence = 0
        #: The sequence of the last work item that the parent has taken back from the worker; 0 if there is none.
        self.revoked_sequence: int = 0
        self._functions: FunctionCache[bool] = FunctionCache()

    def assign(self, work_item: WorkItem) -> list[Function | Tasks]:
        """Note that the worker gets `work_item`. Returns the messages that the caller must send to the worker.

        The first message carries the task function if the worker does not have this function yet.
        """
        self._last_sequence += 1
        work_item.assigned(self._last_sequence)
        function = work_item.function
        if self._functions.use(function.digest):
            return [work_item.message()]
        self._functions.keep(function.digest, True)
        return [Function(function.digest, function.code), work_item.message()]

    def plan_kill(self, work_item: WorkItem, error: BaseException) -> None:
        """Note that mpr kills the worker because of `work_item`. The task that the worker runs gets `error`."""
        self.planned_kill = work_item, error

    def at(self) -> At | None:
        """Return the position of the worker now (work item and task); None if the worker has no status page."""
        return None if self.status_page is None else self.status_page.at()

    def revoke(self) -> At | None:
        """Take back all work items that the worker has not begun. Returns the position of the worker at that moment.

        Does nothing and returns None if the worker has no status page.
        """
        if self.status_page is None:
            return None
        self.revoked_sequence = self._last_sequence
        return self.status_page.revoke(self._last_sequence)

    def activity(self, worker: int, assigned: Iterable[WorkItem]) -> WorkerActivity:
        """Return the activity of the worker at this moment. The worker must have a status page.

        `worker` is the number of the worker, and `assigned` are its work items.
        """
        assert self.status_page is not None
        at = self.status_page.at()
        return WorkerActivity(
            worker,
            at,
            next((each for each in assigned if each.sequence == at.sequence), None),
            *self.status_page.back_pressure(),
        )

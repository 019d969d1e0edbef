"""Defines the interface of a dispatcher, which the calls and the runtime of a pool use.

There are two kinds: `dispatcher.py` for workers of mpr, and `engines/dispatcher.py` for the workers of an engine.

Covers: the interface.
Does not cover: the methods that only one kind has.
"""

from __future__ import annotations

from typing import Protocol

from mpr.scheduler.callbacks import Callbacks
from mpr.scheduler.pending_work import PendingWork
from mpr.scheduler.state import PoolLifecycle, PoolState
from mpr.scheduler.work_item import Describe, TaskFunction, WorkItem


class TaskDispatcher(Protocol):
    """Accepts the tasks of one pool. Any thread and any signal handler may call the methods.

    Attributes
    ----------
    by_value:
        True if functions and classes of `__main__` are pickled with their code, because the workers have another
        `__main__`.
    describe:
        Describes the tasks of a call for the sinks (see `Describe` in `work_item.py`).
    callbacks:
        Runs the callbacks of the callers.
    lifecycle:
        The state of the pool, and the error that ended it; see `PoolLifecycle`.
    work:
        The work items without an outcome.
    """

    by_value: bool
    describe: Describe
    callbacks: Callbacks
    lifecycle: PoolLifecycle
    work: PendingWork

    @property
    def state(self) -> PoolState:
        """The state of the pool: running, closed or terminated."""

    def ending_error(self) -> BaseException | None:
        """Return the error for tasks that have no outcome when the pool ends; None if the pool was not terminated."""

    def announce(self, function: TaskFunction, count: int) -> None:
        """Report to the observer that a call will submit `count` tasks of `function`."""

    def submit(self, *work_items: WorkItem) -> None:
        """Submit `work_items`. If the pool has ended, all their tasks get an error as their outcome."""

    def begin_feeding(self, feeder: object) -> None:
        """Note that `feeder`, a part of an `imap` call, submits work items from now on, until `end_feeding`."""

    def end_feeding(self, feeder: object) -> None:
        """Note that `feeder` submits no more work items. A second call does nothing."""

    def cancel(self, work_item: WorkItem, *, running: bool) -> bool:
        """Cancel `work_item` if this is possible. Returns True if the work item is cancelled, and else False.

        With workers of mpr, this is possible if no worker has the work item, or if `running` is True. With an engine,
        it is possible if the future of the engine can be cancelled (see `Engine.submit` in `engines/engine.py`).
        """

    def drop_waiting(self) -> None:
        """Cancel every work item that `cancel` with `running=False` would cancel. Its tasks get a `CancelledError`."""

    def close(self) -> None:
        """Accept no new calls. The tasks of earlier calls still run. Does not wait for them."""

    def wait_until_done(self) -> None:
        """Wait until all outcomes were delivered to their callers. Call this after `close`. Ctrl-C ends the wait."""

    def terminate(self, error: BaseException | None = None) -> None:
        """End the pool. Every task without an outcome gets `error`; if `error` is None, a `PoolTerminatedError`."""

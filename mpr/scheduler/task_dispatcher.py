"""Defines what the calls of a pool need of a dispatcher, whether the workers are mpr's own or those of an engine."""

from __future__ import annotations

from typing import Protocol

from mpr.scheduler.callbacks import Callbacks
from mpr.scheduler.state import PoolState
from mpr.scheduler.work_item import TaskFunction, WorkItem


class TaskDispatcher(Protocol):
    """Takes the tasks of one pool. Any thread and any handler of a signal may call the methods.

    Attributes
    ----------
    by_value:
        Whether functions and classes of `__main__` are pickled with their code, because the workers have another
        `__main__`.
    callbacks:
        Runs the callbacks of the callers.
    """

    by_value: bool
    callbacks: Callbacks

    @property
    def state(self) -> PoolState:
        """Whether the pool is running, closed or terminated."""

    def ending_error(self) -> BaseException | None:
        """The error for calls that are not finished when the pool ends; None as long as the pool works."""

    def announce(self, function: TaskFunction, count: int) -> None:
        """Report to the observer that a call will submit `count` tasks of `function`."""

    def submit(self, *work_items: WorkItem) -> None:
        """Have `work_items` run. If the pool has ended, the work items get an error as their outcome."""

    def begin_feeding(self, feeder: object) -> None:
        """Note that `feeder`, the part of an `imap` that submits work items, will do so until `end_feeding`."""

    def end_feeding(self, feeder: object) -> None:
        """Note that `feeder` submits no more work items. A second call does nothing."""

    def cancel(self, work_item: WorkItem, *, running: bool) -> bool:
        """Cancel `work_item` if no worker has it, or with `running` in any case. Returns whether it was cancelled."""

"""Holds the shared state of a pool: its work items, workers and lifecycle, with the one lock that guards them.

Covers: the lock, and the conditions under which a pool still has work.
Does not cover: the parts of the state (`pending_work.py`, `ready_workers.py`, `state.py`), and the code that changes
them (`dispatcher.py`, `worker_events.py`, `deadlines.py`).
"""

from __future__ import annotations

import threading

from mpr.scheduler.pending_work import PendingWork
from mpr.scheduler.ready_workers import ReadyWorkers
from mpr.scheduler.state import PoolLifecycle, PoolState
from mpr.scheduler.work_item import WorkItem
from mpr.transport.sockets import DownstreamServer


class PoolBooks:
    """The shared state of one pool with workers of mpr.

    A thread holds the lock while it changes `work` or `workers`, and while it sends workers messages about the change.
    Methods of `PendingWork` that need no lock say so. A thread must not hold the lock while it unpickles a result or
    calls a callback of a user.

    Attributes
    ----------
    lock:
        Guards `work` and `workers`, and the steps by which `lifecycle` changes its state.
    all_done:
        Notified when `is_done` may have become true.
    lifecycle:
        The state of the pool (running, closed or terminated), and the error that has ended the pool.
    work:
        The work items without an outcome.
    workers:
        The workers that are ready, with the work items that they have.
    """

    def __init__(self, down: DownstreamServer) -> None:
        self.lock: threading.Lock = threading.Lock()
        self.all_done: threading.Condition = threading.Condition(self.lock)
        self.lifecycle: PoolLifecycle = PoolLifecycle()
        self.work: PendingWork = PendingWork()
        self.workers: ReadyWorkers = ReadyWorkers(down, self._forget_cancelled)
        # How many deliveries of outcomes are under way. The work items of these outcomes are no longer in `work`.
        self._deliveries = 0

    def has_work(self) -> bool:
        """Return True if a task has no outcome yet, or a feeder of an `imap` call may still submit work items.

        Feeders of a terminated pool do not count.
        """
        return self.work.has_items or (self.work.has_feeders and self.lifecycle.state is not PoolState.TERMINATED)

    def is_done(self) -> bool:
        """Return True if `has_work` returns False, and no delivery of outcomes is under way."""
        return not self._deliveries and not self.has_work()

    def begin_delivery(self) -> None:
        """Note that a delivery of outcomes to callers begins, which lasts until `end_delivery`.

        Until then, `is_done` returns False. The calling thread must hold the lock.
        """
        self._deliveries += 1

    def begin_callback(self) -> None:
        """Do the same as `begin_delivery`, for a callback of a caller. The calling thread must not hold the lock."""
        with self.lock:
            self.begin_delivery()

    def end_delivery(self) -> None:
        """Note that one delivery of outcomes has ended. The calling thread must not hold the lock."""
        with self.lock:
            self._deliveries -= 1
            if not self._deliveries and not self.work.has_items:
                self.all_done.notify_all()

    def _forget_cancelled(self, work_item: WorkItem) -> None:
        self.work.forget(work_item)
        self.all_done.notify_all()

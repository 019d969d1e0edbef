"""Passes outcomes to the callers, and reports them to the observer. An outcome is the result or the error of a task.

Covers: the order of the steps for an outcome.
Does not cover: unpickling, and errors in the code of callers (`outcomes.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

from mpr.scheduler.books import PoolBooks
from mpr.scheduler.observer import PoolObserver
from mpr.scheduler.outcomes import Outcome, hand_over


class OutcomeDelivery:
    """Passes outcomes to callers.

    A thread that calls a method must not hold the lock of `PoolBooks`, because the method runs code of a user.

    Parameters
    ----------
    books:
        The shared state of the pool.
    observer:
        Gets a call for each outcome.
    """

    def __init__(self, books: PoolBooks, observer: PoolObserver) -> None:
        self._books = books
        self._observer = observer

    def deliver(self, outcomes: Iterable[Outcome]) -> None:
        """Pass `outcomes` to their callers, and then call `PoolBooks.end_delivery`.

        `PoolBooks.begin_delivery` must be called before this method.
        """
        try:
            for outcome in outcomes:
                self.hand_over(outcome)
        finally:
            self._books.end_delivery()

    def hand_over(self, outcome: Outcome) -> None:
        """Pass `outcome` to its caller, and report it to the observer.

        Does nothing if the caller has got an error for the whole work item before (`WorkItem.is_reported`).
        """
        if not outcome.work_item.is_reported:
            self.report(outcome)

    def report(self, outcome: Outcome) -> None:
        """Report `outcome` to the observer, and pass it to its caller, even if the caller has got an error before."""
        self._observer.settled(outcome.work_item, outcome.first, outcome.task_count, outcome.error)
        hand_over(outcome)

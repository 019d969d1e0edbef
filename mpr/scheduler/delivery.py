"""Delivers outcomes to the callers, and reports them to the observer."""

from __future__ import annotations

from collections.abc import Iterable

from mpr.scheduler.books import PoolBooks
from mpr.scheduler.observer import PoolObserver
from mpr.scheduler.outcomes import Outcome, hand_over


class OutcomeDelivery:
    """Hands outcomes to callers, without the lock of `PoolBooks`, because callbacks of a user run then. Raises nothing.

    Parameters
    ----------
    books:
        The shared state of the pool.
    observer:
        Hears of each outcome.
    """

    def __init__(self, books: PoolBooks, observer: PoolObserver) -> None:
        self._books = books
        self._observer = observer

    def deliver(self, outcomes: Iterable[Outcome]) -> None:
        """Deliver `outcomes`, then call `PoolBooks.end_delivery`. Call `PoolBooks.begin_delivery` before this."""
        try:
            for outcome in outcomes:
                self.hand_over(outcome)
        finally:
            self._books.end_delivery()

    def hand_over(self, outcome: Outcome) -> None:
        """Deliver one outcome to its caller. Do nothing if the caller has already got an error for the whole work item.

        The caller has got this error if a sink has failed (`WorkerEvents.sink_failed`).
        """
        if not outcome.work_item.is_reported:
            self.report(outcome)

    def report(self, outcome: Outcome) -> None:
        """Report one outcome to the observer, and give it to the caller."""
        self._observer.settled(outcome.work_item, outcome.first, outcome.task_count, outcome.error)
        hand_over(outcome)

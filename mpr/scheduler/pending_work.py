"""Keeps the work items of a pool that have no outcome yet. Does no I/O.

Covers: work items from their submission to their outcome, and the feeders of `imap` calls.
Does not cover: which worker has a work item (`ready_workers.py`).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator

from mpr.scheduler.work_item import OnOutcome, WorkItem


class PendingWork:
    """Keeps work items from their submission to their outcome.

    Only one thread at a time may call the methods that change this object. But any thread may call `submit`,
    `begin_feeding` and `of`, and read `unfinished`, at any time, without a lock.

    A *feeder* is the part of an `imap` call that submits the work items of the call.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        # How many tasks were accepted until now.
        self._task_count = 0
        # Work items that callers have submitted, and that the aggregator's thread has not yet taken.
        self._submitted: deque[WorkItem] = deque()
        self._accepted: dict[int, WorkItem] = {}
        self._feeders: set[object] = set()

    def submit(self, work_items: Iterable[WorkItem]) -> None:
        """Add `work_items`, which `take_submitted` returns later. Any thread may call this at any time."""
        self._submitted.extend(work_items)

    def take_submitted(self) -> Iterator[WorkItem]:
        """Remove the submitted work items one by one, and yield them in the order of their submission."""
        while self._submitted:
            yield self._submitted.popleft()

    def accept(self, work_item: WorkItem) -> None:
        """Give `work_item` its number and its `first_task`, and keep it until `forget` or `forget_all`."""
        work_item.accepted(next(self._numbers), self._task_count)
        self._task_count += work_item.count
        self._accepted[work_item.number] = work_item

    def get(self, number: int) -> WorkItem | None:
        """Return the accepted work item with the number `number`; None if there is none."""
        return self._accepted.get(number)

    def accepted(self) -> list[WorkItem]:
        """Return all accepted work items that are not forgotten, in the order in which they were accepted."""
        return list(self._accepted.values())

    def of(self, on_outcome: OnOutcome) -> list[WorkItem]:
        """Return the submitted and accepted work items whose outcomes `on_outcome` gets. Any thread may call this."""
        everything = [*self._accepted.copy().values(), *self._submitted.copy()]
        return [work_item for work_item in everything if work_item.on_outcome == on_outcome]

    def __contains__(self, work_item: WorkItem) -> bool:
        return work_item.number in self._accepted

    def forget(self, work_item: WorkItem) -> None:
        """Forget the accepted `work_item`, because all its tasks have their outcome, or because it was cancelled."""
        del self._accepted[work_item.number]

    def forget_all(self) -> list[WorkItem]:
        """Forget all accepted work items, and return them."""
        forgotten = list(self._accepted.values())
        self._accepted.clear()
        return forgotten

    def report_all(self) -> list[WorkItem]:
        """Mark all accepted work items as reported: their callers get an error now, before the tasks have ended.

        Returns the work items that were not marked before, whose callers must get this error.
        """
        waiting = [work_item for work_item in self._accepted.values() if not work_item.is_reported]
        for work_item in waiting:
            work_item.reported()
        return waiting

    def begin_feeding(self, feeder: object) -> None:
        """Note that `feeder` will submit work items, until `end_feeding`."""
        self._feeders.add(feeder)

    def end_feeding(self, feeder: object) -> bool:
        """Note that `feeder` submits no more work items. Returns False if this was noted before, and else True."""
        if feeder not in self._feeders:
            return False
        self._feeders.remove(feeder)
        return True

    @property
    def has_items(self) -> bool:
        """True if a submitted or accepted work item is left, so that tasks have no outcome yet."""
        return bool(self._submitted or self._accepted)

    @property
    def has_feeders(self) -> bool:
        """True if a feeder may still submit work items."""
        return bool(self._feeders)

    @property
    def unfinished(self) -> int:
        """The number of tasks without an outcome. Any thread may read this at any time."""
        return sum(each.count - each.first for each in [*self._accepted.copy().values(), *self._submitted.copy()])

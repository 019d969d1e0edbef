"""The work items of a pool that have no outcome yet. No I/O."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator

from mpr.scheduler.work_item import WorkItem


class PendingWork:
    """Keeps work items from their submission to their outcome. The lock of the pool's books guards it.

    `submit` and `unfinished` need no lock: Ctrl-C may interrupt a caller anywhere, and the garbage collector may drop a
    pool in any thread at any time.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        # Tasks accepted until now.
        self._task_count = 0
        # Submitted by callers, and not yet seen by the aggregator's thread.
        self._submitted: deque[WorkItem] = deque()
        self._accepted: dict[int, WorkItem] = {}
        self._feeders: set[object] = set()

    def submit(self, work_items: Iterable[WorkItem]) -> None:
        """Any thread: add work items, which `take_submitted` returns."""
        self._submitted.extend(work_items)

    def take_submitted(self) -> Iterator[WorkItem]:
        """Remove and return what was submitted."""
        while self._submitted:
            yield self._submitted.popleft()

    def accept(self, work_item: WorkItem) -> None:
        """Number `work_item`, and keep it until it is forgotten."""
        work_item.accepted(next(self._numbers), self._task_count)
        self._task_count += work_item.count
        self._accepted[work_item.number] = work_item

    def get(self, number: int) -> WorkItem | None:
        """The accepted work item of that number."""
        return self._accepted.get(number)

    def __contains__(self, work_item: WorkItem) -> bool:
        return work_item.number in self._accepted

    def forget(self, work_item: WorkItem) -> None:
        """`work_item` has its outcome, or needs none."""
        del self._accepted[work_item.number]

    def forget_all(self) -> list[WorkItem]:
        """Forget all accepted work items, and return them."""
        forgotten = list(self._accepted.values())
        self._accepted.clear()
        return forgotten

    def report_all(self) -> list[WorkItem]:
        """Mark all accepted work items as reported. Returns those that were not."""
        waiting = [work_item for work_item in self._accepted.values() if not work_item.is_reported]
        for work_item in waiting:
            work_item.reported()
        return waiting

    def begin_feeding(self, feeder: object) -> None:
        """`feeder` will submit work items of its own accord, until `end_feeding`."""
        self._feeders.add(feeder)

    def end_feeding(self, feeder: object) -> bool:
        """`feeder` submits no more. Returns False if it was known before."""
        if feeder not in self._feeders:
            return False
        self._feeders.remove(feeder)
        return True

    @property
    def has_items(self) -> bool:
        """Whether a work item has no outcome."""
        return bool(self._submitted or self._accepted)

    @property
    def has_feeders(self) -> bool:
        """Whether work items will be submitted by a feeder."""
        return bool(self._feeders)

    @property
    def unfinished(self) -> int:
        """Any thread: how many tasks have no outcome."""
        return sum(each.count - each.first for each in [*self._accepted.copy().values(), *self._submitted.copy()])

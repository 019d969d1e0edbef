"""Decides which worker gets which work item, as a state machine without I/O.

A *work item* is one task, or several tasks of one `map` (`chunksize`), that a worker gets in one message. A worker runs
one work item at a time. If the last work item that has ended was short (less than 5 ms), a worker may get several work
items ahead of time, so that it need not wait for the next one.

Covers: the queue of work items, the work items that each worker has, and the choice of a worker.
Does not cover: sending (`ready_workers.py`), and when a work item is taken back (`deadlines.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mpr.limits import WORK_ITEMS_MAX

P = TypeVar("P", bound=Hashable)

#: Work items are sent ahead of time if they take less than this (microseconds).
SHORT_MICROS = 5_000
# Pairs of a limit in microseconds and a number of work items. If the work item that ended last took less than the
# limit, a worker may have up to this number of work items at a time. Measured with maps of empty tasks: a task costs
# 38 us with 16 work items at a time, 32 us with 32, and 30 us with 64.
_DEPTHS = ((200, WORK_ITEMS_MAX), (1_000, 16), (SHORT_MICROS, 3))


@dataclass(slots=True)
class _Load(Generic[P]):
    """The work items of one worker, and how many more work items the worker may get."""

    #: The work item that runs, and those that wait behind it.
    work_items: deque[P] = field(default_factory=deque)
    #: How many work items the worker may still get; None: any number.
    work_items_left: int | None = None
    retired: bool = False
    #: How many work items the worker may have at a time.
    most: int = WORK_ITEMS_MAX

    def take(self, work_item: P) -> None:
        self.work_items.append(work_item)
        if self.work_items_left is not None:
            self.work_items_left -= 1

    def give_back(self, work_items: Sequence[P]) -> None:
        """Increase `work_items_left` by 1 for each of the given `work_items` that the worker has. It will not run them.

        Call this before they are removed from the worker. Does nothing if the worker has no limit, or was retired.
        """
        if self.work_items_left is not None and not self.retired:
            self.work_items_left += sum(work_item in self.work_items for work_item in work_items)

    def retire(self) -> None:
        self.work_items_left = 0
        self.retired = True


class Assignment(Generic[P]):
    """Keeps the queue of work items, and the items that each worker has. Chooses a worker for each item.

    The methods that return pairs (worker, work item) send nothing themselves. The caller must send each work item to
    its worker.
    """

    def __init__(self) -> None:
        self._queue: deque[P] = deque()
        self._workers: dict[int, _Load[P]] = {}
        # Workers that get the next items. A worker is added when it has at most half of the items that it may have at
        # a time.
        self._idle: dict[int, None] = {}
        self._depth = 1

    def assigned(self, worker: int) -> Sequence[P]:
        """Return the work items of worker number `worker`; an empty sequence if the worker is not known.

        The first one is the item that the worker runs, or will run next.
        """
        state = self._workers.get(worker)
        return () if state is None else state.work_items

    def add(self, work_item: P) -> list[tuple[int, P]]:
        """Put `work_item` at the end of the queue. Returns the pairs (worker, work item) to send now."""
        self._queue.append(work_item)
        return self._assign()

    def add_first(self, work_items: Iterable[P]) -> list[tuple[int, P]]:
        """Put `work_items` at the front of the queue, in this order.

        Returns the pairs (worker, work item) to send now.
        """
        self._queue.extendleft(reversed(list(work_items)))
        return self._assign()

    def ready(self, worker: int, work_items: int | None, *, ahead: bool = True) -> list[tuple[int, P]]:
        """Add the worker with the number `worker`. Returns the pairs (worker, work item) to send now.

        The worker gets up to `work_items` work items in its life (None: any number). If `ahead` is False, it has only
        one of them at a time.
        """
        self._workers[worker] = _Load(work_items_left=work_items, most=WORK_ITEMS_MAX if ahead else 1)
        self._idle[worker] = None
        return self._assign()

    def done(self, worker: int, work_item: P, micros: int) -> list[tuple[int, P]]:
        """Remove `work_item`, which `worker` has finished in `micros` microseconds.

        Returns the pairs (worker, work item) to send now.
        """
        self._depth = next((depth for limit, depth in _DEPTHS if micros < limit), 1)
        self._remove(worker, [work_item])
        return self._assign()

    def take_back(self, worker: int, work_items: Sequence[P]) -> list[tuple[int, P]]:
        """Remove `work_items` from the items of `worker`, because the worker will not run them.

        They do not go back to the queue. Returns the pairs (worker, work item) to send now.
        """
        state = self._workers.get(worker)
        if state is not None:
            state.give_back(work_items)
        self._remove(worker, work_items)
        return self._assign()

    def _remove(self, worker: int, work_items: Sequence[P]) -> None:
        state = self._workers.get(worker)
        if state is None:
            return
        for work_item in work_items:
            if work_item in state.work_items:
                state.work_items.remove(work_item)
        # The worker gets new items only when it has at most half of the items that it may have at a time. So several
        # items are sent at once, and the threads on the way to the worker are woken only once. Measured: an empty task
        # costs 35 us then, and 41 us if each item is sent as soon as there is room.
        if state.work_items_left != 0 and len(state.work_items) <= min(self._depth, state.most) // 2:
            self._idle[worker] = None

    def retire(self, worker: int) -> None:
        """Give worker number `worker` no more work items. The worker keeps the items that it has."""
        self._idle.pop(worker, None)
        if worker in self._workers:
            self._workers[worker].retire()

    def lost(self, worker: int) -> list[P]:
        """Forget worker number `worker`, which has ended. Returns the work items that it had, in their order."""
        self._idle.pop(worker, None)
        state = self._workers.pop(worker, None)
        return [] if state is None else list(state.work_items)

    def exhausted(self, worker: int) -> bool:
        """Return True if `worker` is known, has no work item, and may get no more."""
        state = self._workers.get(worker)
        return state is not None and state.work_items_left == 0 and not state.work_items

    def could_take_back(self) -> bool:
        """Return True if the queue is empty, a worker that may get items has none, and another one has several."""
        if self._queue or all(self._workers[worker].work_items for worker in self._idle):
            return False
        return any(len(each.work_items) > 1 for each in self._workers.values())

    def drop(self, work_item: P) -> bool:
        """Remove `work_item` from the queue. Returns False if it is not in the queue, and else True."""
        try:
            self._queue.remove(work_item)
        except ValueError:
            return False
        return True

    def drop_waiting(self) -> list[P]:
        """Remove all work items from the queue, and return them. The items that workers have are not in the queue."""
        dropped = list(self._queue)
        self._queue.clear()
        return dropped

    def _assign(self) -> list[tuple[int, P]]:
        sends = []
        while self._queue and self._idle:
            worker = min(self._idle, key=lambda each: len(self._workers[each].work_items))
            state = self._workers[worker]
            depth = min(self._depth, state.most)
            if len(state.work_items) >= depth:
                # This worker has the fewest items of all idle workers, so no idle worker has room.
                self._idle.clear()
                break
            work_item = self._queue.popleft()
            state.take(work_item)
            if state.work_items_left == 0 or len(state.work_items) >= depth:
                del self._idle[worker]
            sends.append((worker, work_item))
        return sends

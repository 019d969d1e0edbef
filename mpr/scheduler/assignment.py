"""Which worker gets which parcel: a state machine without I/O. Each event returns what to send now.

A *parcel* is what goes to a worker in one message: one task, or several of one `map` (`chunksize`). A worker has one
parcel, and more behind it as long as parcels turn out to be short, so that it need not wait for the next. As soon as a
parcel takes long, nothing more is put behind another one, and what lies behind it can be taken back for a worker that
has nothing to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mpr.limits import WORK_ITEMS_MAX

P = TypeVar("P", bound=Hashable)

#: Parcels that take less are handed out ahead (microseconds).
SHORT_MICROS = 5_000
# How many parcels a worker has at a time where they take less than so many microseconds. Half of them go to it at once,
# and their results come back at once: measured, an empty task costs 38 us with 16 at a time, 32 with 32, 30 with 64.
_DEPTHS = ((200, WORK_ITEMS_MAX), (1_000, 16), (SHORT_MICROS, 3))


@dataclass(slots=True)
class _Worker(Generic[P]):
    #: The parcel that runs, and those behind it.
    parcels: deque[P] = field(default_factory=deque)
    #: Parcels it may still be given; None: any number.
    parcels_left: int | None = None
    retired: bool = False
    #: How many it may have at a time.
    most: int = WORK_ITEMS_MAX


class Scheduler(Generic[P]):
    """Parcels in, `(worker, parcel)` out."""

    def __init__(self) -> None:
        self._queue: deque[P] = deque()
        self._workers: dict[int, _Worker[P]] = {}
        # Workers to be filled up: each that has come down to half of what it may have.
        self._idle: dict[int, None] = {}
        self._depth = 1

    def held(self, worker: int) -> Sequence[P]:
        """The parcels of a worker, the one that it is at first."""
        state = self._workers.get(worker)
        return () if state is None else state.parcels

    def add(self, parcel: P) -> list[tuple[int, P]]:
        """A parcel was submitted."""
        self._queue.append(parcel)
        return self._hand_out()

    def add_first(self, parcels: Iterable[P]) -> list[tuple[int, P]]:
        """Parcels that had been handed out wait again, before all others, in this order."""
        self._queue.extendleft(reversed(list(parcels)))
        return self._hand_out()

    def ready(self, worker: int, parcels: int | None, *, ahead: bool = True) -> list[tuple[int, P]]:
        """A worker can take parcels: `parcels` of them in its life, and some ahead of time unless `ahead` is false."""
        self._workers[worker] = _Worker(parcels_left=parcels, most=WORK_ITEMS_MAX if ahead else 1)
        self._idle[worker] = None
        return self._hand_out()

    def done(self, worker: int, parcel: P, micros: int) -> list[tuple[int, P]]:
        """A worker has finished a parcel in `micros`."""
        self._depth = next((depth for limit, depth in _DEPTHS if micros < limit), 1)
        self._remove(worker, [parcel])
        return self._hand_out()

    def take_back(self, worker: int, parcels: Sequence[P]) -> list[tuple[int, P]]:
        """A worker has not begun these parcels and will not; who calls this knows what becomes of them."""
        state = self._workers.get(worker)
        if state is not None and state.parcels_left is not None and not state.retired:
            # They do not count for what it may do in its life.
            state.parcels_left += sum(parcel in state.parcels for parcel in parcels)
        self._remove(worker, parcels)
        return self._hand_out()

    def _remove(self, worker: int, parcels: Sequence[P]) -> None:
        state = self._workers.get(worker)
        if state is None:
            return
        for parcel in parcels:
            if parcel in state.parcels:
                state.parcels.remove(parcel)
        # Several at once wake the threads between here and the worker once: an empty task costs 35 us then, not 41.
        if state.parcels_left != 0 and len(state.parcels) <= min(self._depth, state.most) // 2:
            self._idle[worker] = None

    def retire(self, worker: int) -> None:
        """Give a worker no more parcels."""
        self._idle.pop(worker, None)
        if worker in self._workers:
            self._workers[worker].parcels_left = 0
            self._workers[worker].retired = True

    def lost(self, worker: int) -> list[P]:
        """A worker is gone. Returns the parcels that it had, the one that it was at first."""
        self._idle.pop(worker, None)
        state = self._workers.pop(worker, None)
        return [] if state is None else list(state.parcels)

    def exhausted(self, worker: int) -> bool:
        """Whether the worker has done all that it may do in its life."""
        state = self._workers.get(worker)
        return state is not None and state.parcels_left == 0 and not state.parcels

    def could_take_back(self) -> bool:
        """Whether a worker has nothing to do while parcels lie behind another one's."""
        if self._queue or all(self._workers[worker].parcels for worker in self._idle):
            return False
        return any(len(each.parcels) > 1 for each in self._workers.values())

    def drop(self, parcel: P) -> bool:
        """Forget a parcel that no worker has; False where there is none such."""
        try:
            self._queue.remove(parcel)
        except ValueError:
            return False
        return True

    def drop_waiting(self) -> list[P]:
        """Forget all parcels that no worker has, and return them."""
        dropped = list(self._queue)
        self._queue.clear()
        return dropped

    def _hand_out(self) -> list[tuple[int, P]]:
        sends = []
        while self._queue and self._idle:
            worker = min(self._idle, key=lambda each: len(self._workers[each].parcels))
            state = self._workers[worker]
            depth = min(self._depth, state.most)
            if len(state.parcels) >= depth:
                # All that are listed as idle have at least as much to do.
                self._idle.clear()
                break
            parcel = self._queue.popleft()
            state.parcels.append(parcel)
            if state.parcels_left is not None:
                state.parcels_left -= 1
            if state.parcels_left == 0 or len(state.parcels) >= depth:
                del self._idle[worker]
            sends.append((worker, parcel))
        return sends

"""Which worker gets which parcel: a state machine without I/O. Each event returns what to send now.

A *parcel* is what goes to a worker in one message: one task, or several of one `map` (`chunksize`). A worker has one
parcel, and up to two more behind it as long as parcels turn out to be short, so that it need not wait for the next. As
soon as a parcel takes long, nothing more is put behind another one; what lies there already stays there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)

# Parcels that take less are handed out ahead (microseconds).
_SHORT_MICROS = 5_000
_AHEAD = 3


@dataclass(slots=True)
class _Worker(Generic[P]):
    #: The parcel that runs, and those behind it.
    parcels: deque[P] = field(default_factory=deque)
    #: Tasks it may still be given; None: any number.
    tasks_left: int | None = None


class Scheduler(Generic[P]):
    """Parcels in, `(worker, parcel)` out."""

    def __init__(self) -> None:
        self._queue: deque[P] = deque()
        self._workers: dict[int, _Worker[P]] = {}
        # Workers with room, those with nothing to do first.
        self._idle: dict[int, None] = {}
        self._depth = 1

    @property
    def workers(self) -> Iterable[int]:
        return self._workers

    def add(self, parcel: P) -> list[tuple[int, P]]:
        """A parcel was submitted."""
        self._queue.append(parcel)
        return self._hand_out()

    def ready(self, worker: int, tasks: int | None) -> list[tuple[int, P]]:
        """A worker can take parcels, `tasks` of them in its life."""
        self._workers[worker] = _Worker(tasks_left=tasks)
        self._idle[worker] = None
        return self._hand_out()

    def done(self, worker: int, parcel: P, micros: int) -> list[tuple[int, P]]:
        """A worker has finished a parcel in `micros`."""
        self._depth = _AHEAD if micros < _SHORT_MICROS else 1
        state = self._workers.get(worker)
        if state is None:
            return []
        if parcel in state.parcels:
            state.parcels.remove(parcel)
        if state.tasks_left != 0 and len(state.parcels) < self._depth:
            self._idle[worker] = None
        return self._hand_out()

    def lost(self, worker: int) -> tuple[P | None, list[tuple[int, P]]]:
        """A worker is gone. Returns the parcel that it was at, which is not run again, and what to send now.

        Parcels that waited behind it come first in the queue again.
        """
        state = self._workers.pop(worker, None)
        self._idle.pop(worker, None)
        if state is None or not state.parcels:
            return None, []
        running = state.parcels.popleft()
        self._queue.extendleft(reversed(state.parcels))
        return running, self._hand_out()

    def exhausted(self, worker: int) -> bool:
        """Whether the worker has done all the tasks that it may do in its life."""
        state = self._workers.get(worker)
        return state is not None and state.tasks_left == 0 and not state.parcels

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
            if len(state.parcels) >= self._depth:
                # All that are listed as idle have at least as much to do.
                self._idle.clear()
                break
            parcel = self._queue.popleft()
            state.parcels.append(parcel)
            if state.tasks_left is not None:
                state.tasks_left -= 1
            if state.tasks_left == 0 or len(state.parcels) >= self._depth:
                del self._idle[worker]
            sends.append((worker, parcel))
        return sends

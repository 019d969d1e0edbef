"""The places of a pool: a worker that replaces another one takes its place in the charts and in the display."""

from __future__ import annotations

# A worker that has died keeps its state timeline, and the next one at its place gets a new one. A pool has at most
# twice as many state timelines as workers, and so many more.
_MORE_TIMELINES = 8


class Places:
    """The places of a pool, from 0, and the state timeline of each.

    Parameters
    ----------
    size:
        The number of workers at a time.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = list(range(size))
        self._timelines: dict[int, int] = {}
        self._timeline_count = 0
        #: For each place, the workers that have had it, in words.
        self.names = [""] * size

    def take(self, worker: int) -> tuple[int, int]:
        """Give a new worker a free place; returns the place, and the number of its state timeline."""
        place = self._free.pop(0) if self._free else 0
        timeline = self._timelines.get(place)
        if timeline is None:
            timeline, self._timeline_count = worker, self._timeline_count + 1
        self._timelines[place] = timeline
        self.names[place] += f", {worker}" if self.names[place] else f"worker {worker}"
        return place, timeline

    def release(self, place: int, *, lost: bool) -> None:
        """The worker at `place` has ended; `lost` says that it has died."""
        self._free.append(place)
        if lost and self._timeline_count < 2 * self._size + _MORE_TIMELINES:
            del self._timelines[place]

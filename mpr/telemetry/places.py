"""Numbers the places of a pool, and gives each place a state timeline. The package explains these words.

Covers: which place and which state timeline a worker gets.
Does not cover: the rows in a state timeline (`worker_timeline.py`).
"""

from __future__ import annotations

# If a worker has died, its state timeline ends, and the next worker at this place gets a new one. But a pool of n
# workers has at most about 2 * n + 8 state timelines. From this limit on, the next worker continues the old one.
_MORE_TIMELINES = 8


class Places:
    """Holds the places of a pool, and the state timeline of each place.

    `size` is the number of workers that the pool has at a time.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = list(range(size))
        self._timelines: dict[int, int] = {}
        self._timeline_count = 0
        #: A text for each place, which names the workers that have had the place.
        self.names: list[str] = [""] * size

    def take(self, worker: int) -> tuple[int, int]:
        """Give the worker `worker` the place that has been free for the longest time (place 0 if none is free).

        Returns (number of the place, number of its state timeline). The number of a state timeline is the number of the
        first worker that it shows.
        """
        place = self._free.pop(0) if self._free else 0
        timeline = self._timelines.get(place)
        if timeline is None:
            timeline, self._timeline_count = worker, self._timeline_count + 1
        self._timelines[place] = timeline
        self.names[place] += f", {worker}" if self.names[place] else f"worker {worker}"
        return place, timeline

    def release(self, place: int, *, lost: bool) -> None:
        """Free `place`, because the worker there has ended. The next worker there continues the state timeline.

        But if the worker has died (`lost`), the next worker gets a new state timeline, as long as the pool has fewer
        than 2 * `size` + 8 state timelines.
        """
        self._free.append(place)
        if lost and self._timeline_count < 2 * self._size + _MORE_TIMELINES:
            del self._timelines[place]

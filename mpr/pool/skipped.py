"""Defines `mpr.SKIPPED`, the result of a task that a `DirectorySink` with `resume=True` has skipped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from mpr.rrd.segment import TaskCall


class SkippedTask:
    """The class of `mpr.SKIPPED`, which is its only object."""

    def __repr__(self) -> str:
        return "mpr.SKIPPED"

    def __reduce__(self) -> str:
        return "SKIPPED"


#: The result of a task that has not run, because its recording of an earlier run is complete.
SKIPPED: Final[SkippedTask] = SkippedTask()


def spans(calls: Sequence[TaskCall], count: int, chunksize: int) -> Iterator[tuple[int, int, bool]]:
    """Divide the tasks of a call into spans. Yields (start, stop, is_skipped) for each span, in the order of the tasks.

    `calls` has a description of each of the `count` tasks. If `calls` is empty, no task is skipped. The tasks of a span
    are all skipped, or none is. A span of tasks that are not skipped has at most `chunksize` tasks.
    """
    flags = [call.is_complete for call in calls] or [False] * count
    start = 0
    for is_skipped, group in itertools.groupby(flags):
        stop = start + sum(1 for _ in group)
        for first in range(start, stop, stop - start if is_skipped else chunksize):
            yield first, stop if is_skipped else min(first + chunksize, stop), is_skipped
        start = stop

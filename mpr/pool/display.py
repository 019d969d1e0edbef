"""Holds the two displays of a pool: its progress bar, and its telemetry (rows about workers and tasks).

Covers: making the two displays, and ending them.
Does not cover: their contents (`progress.py`, `telemetry`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mpr.errors import ConfigError
from mpr.pool.options import PoolOptions
from mpr.pool.progress import Progress
from mpr.recording.runtime import RecordingRuntime
from mpr.scheduler.observer import PoolObserver, PoolObservers
from mpr.scheduler.worker_handle import WorkerActivity
from mpr.telemetry.insights import Insights
from mpr.telemetry.sampler import Sampler, Sources
from mpr.telemetry.tracker import TelemetryTracker
from mpr.threads import aside


class PoolDisplay:
    """The progress bar and the telemetry of one pool. Each of the two may be missing.

    Parameters
    ----------
    options:
        The arguments of the pool.
    size:
        The number of workers.

    Attributes
    ----------
    telemetry:
        Gets the events of workers and tasks; None if the pool has no telemetry.
    """

    def __init__(self, options: PoolOptions, size: int) -> None:
        self._kinds, self._size = options.telemetry, size
        self._rows: RecordingRuntime | None = None
        self._progress = Progress(self._counters) if options.progress else None
        self.telemetry: TelemetryTracker | None = None
        if self._kinds:
            self.telemetry = TelemetryTracker(self._kinds, size, time.monotonic_ns)
        self._sampler: Sampler | None = None

    def observer(self) -> PoolObserver | None:
        """Return the observer that gets the events of tasks and workers; None if there is no display."""
        observers = [each for each in (self._progress, self.telemetry) if each is not None]
        return PoolObservers(observers) if len(observers) > 1 else next(iter(observers), None)

    def start(
        self,
        rows: RecordingRuntime,
        activities: Callable[[], list[WorkerActivity]],
        pid: Callable[[int], int | None],
    ) -> None:
        """Connect the displays with the recording `rows`.

        The progress bar, if there is one, then counts the rows of the recording. The telemetry, if there is any, is
        then written into the recording.

        `activities()` returns the activity of each worker at this moment. `pid(worker)` returns the process id of a
        worker; None if it is not known.
        """
        self._rows = rows
        if self.telemetry is not None:
            sources = Sources(activities=activities, pid=pid, counters=self._counters, accept=rows.accept_telemetry)
            number = aside(lambda: rows.new_pool(self._size, self._kinds))
            self._sampler = Sampler(self.telemetry, number, self._size, self._kinds, sources)
            self._sampler.start()

    def _counters(self) -> tuple[int, int]:
        """Return how many rows the producers have logged, and how many bytes the sinks have."""
        if self._rows is None:
            return 0, 0
        return self._rows.aggregator.rows_logged(), self._rows.fanout.accepted_bytes

    def worker_ended(self, worker: int, exitcode: int | None) -> None:
        """Record in the telemetry, if there is any, that the process of `worker` has ended.

        `exitcode` is -N if signal number N has ended the process, and None if it is not known.
        """
        if self._sampler is not None:
            self._sampler.worker_ended(worker, exitcode)

    def insights(self) -> Insights:
        """Return a summary of the telemetry. Raises `ConfigError` if the pool has no telemetry."""
        if self.telemetry is None:
            raise ConfigError("this pool has telemetry=False, so it knows nothing of what its workers have done")
        return aside(self.telemetry.insights)

    def close(self) -> None:
        """Write the last telemetry. Does not close the progress bar, because the dispatcher does this."""
        # Writing the last rows takes a moment. Meanwhile the workers end, and the system releases their memory.
        if self._sampler is not None:
            self._sampler.close()

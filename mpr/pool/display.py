"""Shows what a pool does: its progress bar, and the telemetry that it records.

Covers: making both, and ending them.
Does not cover: what they show (`progress.py`, `telemetry`).
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
    """The progress bar and the telemetry of one pool, of which each may be missing.

    Parameters
    ----------
    options:
        The arguments of the pool.
    size:
        The number of workers.

    Attributes
    ----------
    telemetry:
        Records what the workers do; None if nothing is recorded.
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
        """Return the observer that hears of tasks and workers; None if nothing is shown."""
        observers = [each for each in (self._progress, self.telemetry) if each is not None]
        return PoolObservers(observers) if len(observers) > 1 else next(iter(observers), None)

    def start(
        self,
        rows: RecordingRuntime,
        activities: Callable[[], list[WorkerActivity]],
        pid: Callable[[int], int | None],
    ) -> None:
        """Begin to write telemetry into the recording of `rows`.

        `activities()` returns what each worker does now, and `pid(worker)` the process id of a worker, or None.
        """
        self._rows = rows
        if self.telemetry is not None:
            sources = Sources(activities=activities, pid=pid, counters=self._counters, accept=rows.accept_telemetry)
            number = aside(lambda: rows.new_pool(self._size, self._kinds))
            self._sampler = Sampler(self.telemetry, number, self._size, self._kinds, sources)
            self._sampler.start()

    def _counters(self) -> tuple[int, int]:
        """Return how many rows the workers have logged, and how many bytes the sinks have. Any thread may call this."""
        if self._rows is None:
            return 0, 0
        return self._rows.aggregator.rows_logged(), self._rows.fanout.accepted_bytes

    def worker_ended(self, worker: int, exitcode: int | None) -> None:
        """Record that the process of `worker` has ended. `exitcode` is negative for a signal, and None if unknown."""
        if self._sampler is not None:
            self._sampler.worker_ended(worker, exitcode)

    def insights(self) -> Insights:
        """Sum up the telemetry. Raises `ConfigError` if the pool records none."""
        if self.telemetry is None:
            raise ConfigError("this pool has telemetry=False, so it knows nothing of what its workers have done")
        return aside(self.telemetry.insights)

    def close(self) -> None:
        """Write the last telemetry."""
        # Writing the last rows takes a moment. Meanwhile the workers end, and the system releases their memory.
        if self._sampler is not None:
            self._sampler.close()

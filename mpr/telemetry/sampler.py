"""Observes the workers of a pool in a thread, and writes the telemetry into the recording.

No task waits for this thread. An error in the thread is logged, and ends only the telemetry. If the thread needs more
than one percent of a core, it measures and writes less often. The docstring of the package explains places, samples and
settled tasks.

Covers: how often the thread looks at the workers and writes rows, what this may cost, and measuring the workers.
Does not cover: which rows there are (`tracker.py`), how rows are encoded (`encoder.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpr import failpoints
from mpr.limits import TELEMETRY_EVERY_SECS
from mpr.scheduler.worker_handle import WorkerActivity
from mpr.telemetry import encoder
from mpr.telemetry.rows import Sample
from mpr.telemetry.tracker import TelemetryTracker
from mpr.user_code import describe, passes
from mpr.user_code import log as _log

# The shortest interval between two times at which rows are written.
_WRITE_EVERY_SECS = 0.5
# In a long run, the interval is this share of the time since the start (0 to 1). Fewer writes are enough then, because
# this share is a short distance on the viewer's time axis.
_LATE_SHARE = 0.02
# The share of a core (0 to 1) that looking at the workers may use, and the share that writing may use.
_LOOK_SHARE = 0.006
_WRITE_SHARE = 0.004
_NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Holds the functions by which the sampler reads the state of the pool and writes rows.

    Attributes
    ----------
    activities:
        Returns for each worker which task it runs, and whether its `rr.log` waits for the sinks.
    pid:
        Returns the process id of the worker with the given number, or None if its process does not run.
    counters:
        Returns how many rows all processes have logged, and how many bytes the sinks have accepted.
    accept:
        Writes an encoded stream of rows (possibly empty) into the recording, and updates the layout of the viewer.
    """

    activities: Callable[[], list[WorkerActivity]]
    pid: Callable[[int], int | None]
    counters: Callable[[], tuple[int, int]]
    accept: Callable[[bytes], None]


class Sampler:
    """Observes the workers of one pool, in a thread that `start` starts.

    Parameters
    ----------
    telemetry:
        The tracker that gets the observations and makes rows of them.
    pool:
        The number of the pool in its recording.
    size:
        The number of workers that the pool has at a time.
    kinds:
        The kinds of telemetry that are recorded, out of `TELEMETRY`.
    sources:
        The functions by which the sampler reads the state of the pool and writes rows.
    """

    def __init__(
        self, telemetry: TelemetryTracker, pool: int, size: int, kinds: frozenset[str], sources: Sources
    ) -> None:
        self._telemetry = telemetry
        self._pool = pool
        self._size = size
        self._kinds = kinds
        self._sources = sources
        self._wall_offset_ns = time.time_ns() - time.monotonic_ns()
        self._processes: dict[int, Any] = {}
        self._settled = (time.monotonic(), 0)
        self._stopping = threading.Event()
        self._closed = False
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="mpr-telemetry", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, and write the remaining rows. With the kind "pool", also write the insights.

        A second call does nothing.
        """
        if self._closed:
            return
        self._closed = True
        self._stopping.set()
        self._telemetry.urgent.set()
        self._thread.join()
        with _LogsFailures(self):
            self._write(last=True)

    def worker_ended(self, worker: int, exitcode: int | None) -> None:
        """Record that the process of the worker with the number `worker` has ended.

        `exitcode` is negative for a signal, and None if unknown.
        """
        with _LogsFailures(self):
            work = self._sources.activities() if exitcode else []
            self._telemetry.ended(worker, exitcode, next((each for each in work if each.worker == worker), None))

    def fail(self, error: BaseException) -> None:
        """Stop recording telemetry, and log `error` as the reason. Only the first call has an effect."""
        if not self._failed:
            self._failed = True
            _log.warning("mpr: the pool records nothing of itself any more: %s", describe(error))

    # --- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with _LogsFailures(self):
            began = time.monotonic()
            look_at, write_at = began + TELEMETRY_EVERY_SECS / 2, began + _WRITE_EVERY_SECS
            while not self._stopping.is_set():
                now = time.monotonic()
                if now >= look_at:
                    cost = _cost_of(self._look)
                    look_at = now + max(TELEMETRY_EVERY_SECS, cost / _LOOK_SHARE)
                if now >= write_at:
                    cost = _cost_of(self._write)
                    write_at = now + max(_WRITE_EVERY_SECS, (now - began) * _LATE_SHARE, cost / _WRITE_SHARE)
                    least_at = now + max(_WRITE_EVERY_SECS, cost / _WRITE_SHARE)
                    self._stopping.wait(max(0.0, min(look_at, least_at) - time.monotonic()))
                elif self._telemetry.urgent.wait(max(0.0, min(look_at, write_at) - now)):
                    write_at = now

    def _look(self) -> None:
        """Measure the progress of the pool and, if the kind "resources" is recorded, the workers.

        Give the measurements to the tracker as a `Sample`.
        """
        telemetry, now = self._telemetry, time.monotonic()
        places = telemetry.places
        measured = {worker: self._measured(worker) for worker in places} if "resources" in self._kinds else {}
        columns = [[_NAN] * self._size for _ in range(4)]
        for worker, values in measured.items():
            for column, value in zip(columns, values, strict=True):
                column[places[worker]] = value
        for gone in self._processes.keys() - places.keys():
            del self._processes[gone]
        cpu, memory, threads, files = columns
        (before, settled), self._settled = self._settled, (now, telemetry.settled_count)
        unsettled = telemetry.unsettled()
        running = sum(each.runs for each in self._sources.activities())
        rows, data_bytes = self._sources.counters()
        telemetry.sample(
            Sample(
                at_ns=time.monotonic_ns(),
                cpu=cpu,
                memory=memory,
                threads=threads,
                files=files,
                throughput=(telemetry.settled_count - settled) / max(now - before, 1e-9),
                waiting=max(0, unsettled - running),
                running=running,
                rows=rows,
                data_bytes=data_bytes,
            )
        )

    def _measured(self, worker: int) -> tuple[float, float, float, float]:
        """Return (CPU in percent of a core, memory in MB, threads, open files) of the worker with the number `worker`.

        Values that are unknown are NaN. The CPU is unknown at the first call for a worker.
        """
        import psutil

        pid = self._sources.pid(worker)
        if pid is None:
            return _NAN, _NAN, _NAN, _NAN
        try:
            known = worker in self._processes
            process = self._processes[worker] if known else self._processes.setdefault(worker, psutil.Process(pid))
            with process.oneshot():
                # psutil returns the CPU use since the previous call. So the result of the first call is not used.
                cpu = process.cpu_percent()
                memory = process.memory_info().rss / 1e6
                return cpu if known else _NAN, memory, process.num_threads(), process.num_fds()
        except psutil.Error:
            # psutil finds no process, because the process has just ended.
            return _NAN, _NAN, _NAN, _NAN

    def _write(self, *, last: bool = False) -> None:
        if self._failed:
            return
        failpoints.reach("parent.telemetry")
        for work in self._sources.activities():
            self._telemetry.look(work)
        rows = self._telemetry.take(last=last)
        insights = self._telemetry.insights() if last and "pool" in self._kinds else None
        stream = encoder.encoded(rows, insights, self._pool, self._wall_offset_ns, self._kinds)
        self._sources.accept(stream)


class _LogsFailures:
    """Passes an exception of a `with` block to `Sampler.fail` instead of raising it.

    The reason is that an error of the telemetry must not fail a task, or keep a pool from ending. An exception that may
    come from Ctrl-C is raised (see `passes` in `user_code.py`).
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None or passes(error):
            return False
        self._sampler.fail(error)
        return True


def _cost_of(step: Callable[[], None]) -> float:
    """Call `step`, and return the processor time of the call in seconds."""
    before = time.thread_time()
    step()
    return time.thread_time() - before

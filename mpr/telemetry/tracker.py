"""Turns the events of a pool into rows of telemetry and into insights. Reads a clock, and does no I/O.

The docstring of the package explains work items, spans, places, state timelines and settled tasks.

Covers: the list of workers, the outcomes of tasks, errors, the slowest tasks.
Does not cover: one worker's states and spans (`worker_timeline.py`), measuring the processes (`sampler.py`), how rows
are encoded (`encoder.py`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from mpr.blueprint.telemetry_names import LOST
from mpr.errors import exit_name
from mpr.scheduler.observer import PoolObserver
from mpr.scheduler.work_item import WorkItem
from mpr.scheduler.worker_handle import WorkerActivity
from mpr.telemetry.collector import RowCollector
from mpr.telemetry.insights import Insights, SlowTask, WorkerInsights
from mpr.telemetry.places import Places
from mpr.telemetry.rows import ErrorRow, Rows, Sample
from mpr.telemetry.slow_tasks import SlowTasks
from mpr.telemetry.worker_timeline import WorkerTimeline, attempt_of, display_name
from mpr.transport.messages import Hello, Result
from mpr.user_code import traceback_text

# The number of characters above which the text of an error is cut.
_TEXT_LENGTH = 20_000
# The time (nanoseconds) after the end of a worker in which its results may still come.
_LATE_RESULT_NS = 10_000_000_000

Clock: TypeAlias = Callable[[], int]


class TelemetryTracker(PoolObserver):
    """Turns the events of one pool into rows and insights. Any thread may call the methods, except `unsettled`.

    Parameters
    ----------
    kinds:
        The kinds of telemetry that are recorded, out of `TELEMETRY`.
    size:
        The number of workers that the pool has at a time.
    clock:
        A function that returns the present time in nanoseconds, such as `time.monotonic_ns`.
    """

    def __init__(self, kinds: frozenset[str], size: int, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._rows = RowCollector(kinds)
        self._places = Places(size)
        #: The workers whose processes run, by the numbers of the workers.
        self._workers: dict[int, WorkerTimeline] = {}
        #: The workers that have ended, but whose results may still come.
        self._gone: dict[int, WorkerTimeline] = {}
        self._ended: list[WorkerInsights] = []
        self._slow = SlowTasks()
        self._closing = False
        self._submitted: deque[int] = deque()
        self._submitted_count = 0
        #: The number of tasks that have their outcome: a result or an error.
        self.settled_count: int = 0
        #: Set if the sampler must write rows soon, because a task has failed or a worker has died.
        self.urgent: threading.Event = threading.Event()

    # --- workers -----------------------------------------------------------------------------------------------

    def starting(self, worker: int) -> None:
        """Give the worker with the number `worker`, which is new, a place and a state timeline."""
        with self._lock:
            place, timeline = self._places.take(worker)
            self._rows.set_names(self._places.names)
            self._workers[worker] = WorkerTimeline(worker, place, timeline, self._clock(), self._rows)

    def ready(self, hello: Hello, init_micros: int) -> None:
        with self._lock:
            worker = self._workers.get(hello.worker)
            if worker is not None:
                worker.note_ready(hello.pid, self._clock(), init_micros)

    def ended(self, worker: int, exitcode: int | None, work: WorkerActivity | None) -> None:
        """Record that the process of the worker with the number `worker` has ended.

        `exitcode` is negative for a signal, and None if unknown. The worker counts as lost if `exitcode` is neither 0
        nor None, unless the pool is closing. `work` is the last activity of the worker, or None if unknown.
        """
        with self._lock:
            found = self._workers.pop(worker, None)
            if found is None:
                return
            lost = LOST.format(exit_name(exitcode)) if exitcode and not self._closing else ""
            found.note_end(self._clock(), lost, work)
            if lost:
                self.urgent.set()
            self._gone[worker] = found
            self._places.release(found.place, lost=found.is_lost)

    def look(self, work: WorkerActivity) -> None:
        """Show the activity `work` of a worker in its state timeline, and note for how long its `rr.log` has waited.

        Does nothing if the process of the worker does not run.
        """
        with self._lock:
            found = self._workers.get(work.worker)
            if found is not None:
                found.note_activity(work, self._clock())

    @property
    def places(self) -> dict[int, int]:
        """The place of each worker whose process runs, by the number of the worker."""
        with self._lock:
            return {number: worker.place for number, worker in self._workers.items()}

    # --- tasks -------------------------------------------------------------------------------------------------

    def submitted(self, name: str, count: int) -> None:
        # The lock is not taken here, because the caller is a thread of the user. If Ctrl-C interrupted this thread at a
        # bad moment, the lock would never be free again. Appending to a deque needs no lock.
        self._submitted.append(count)

    def unsettled(self) -> int:
        """Return the number of submitted tasks that have neither a result nor an error yet.

        Only the thread of the sampler may call this method, because it counts without the lock.
        """
        while self._submitted:
            self._submitted_count += self._submitted.popleft()
        return max(0, self._submitted_count - self.settled_count)

    def settled(self, work_item: WorkItem, first: int, count: int, error: BaseException | None) -> None:
        with self._lock:
            self.settled_count += count
            if error is None or not self._rows.wants_error():
                return
            name = work_item.name(first) if count == 1 else f"{work_item.name(first)} and {count - 1} more tasks"
            text = f"{name}: {_text(error)}"
            function = work_item.function.name
            self._rows.add_error(ErrorRow(self._clock(), function, work_item.first_task + first, text))
            self.urgent.set()

    def result(self, hello: Hello, work_item: WorkItem, count: int, result: Result) -> None:
        with self._lock:
            worker = self._workers.get(hello.worker) or self._gone.get(hello.worker)
            if worker is None:
                return
            micros = worker.note_result(work_item, count, result)
            if self._slow.wants(micros):
                task = work_item.first + count - 1
                slow = SlowTask(
                    task=display_name(work_item, task),
                    worker=worker.number,
                    attempt=attempt_of(work_item, task),
                    seconds=micros / 1e6,
                    rows=result.rows,
                    data_bytes=result.data_bytes,
                )
                self._slow.add(micros, slow, work_item, task)

    # --- for the sampler -----------------------------------------------------------------------------------------

    def sample(self, sample: Sample) -> None:
        with self._lock:
            self._rows.add_sample(sample)

    def take(self, *, last: bool = False) -> Rows:
        """Return the rows since the last call.

        If `last` is true, all spans and state timelines end, and the rows about their ends are returned, too.
        """
        with self._lock:
            now = self._clock()
            self._closing = self._closing or last
            for worker in self._workers.values() if last else ():
                worker.close(now)
            for worker in [*self._workers.values(), *self._gone.values()]:
                worker.catch_up(now, last=last)
            self._slow.describe()
            late = [each.number for each in self._gone.values() if now - (each.ended_ns or now) > _LATE_RESULT_NS]
            for number in late:
                self._ended.append(self._gone.pop(number).insights(now))
            self.urgent.clear()
            return self._rows.take(now, self.settled_count)

    def close(self) -> None:
        with self._lock:
            self._closing = True

    def insights(self) -> Insights:
        """Return how all workers of the pool have spent their time until now, and the slowest tasks."""
        with self._lock:
            now = self._clock()
            self._slow.describe()
            workers = [each.insights(now) for each in [*self._gone.values(), *self._workers.values()]]
            ordered = sorted([*self._ended, *workers], key=lambda each: each.worker)
            return Insights(workers=tuple(ordered), slowest=self._slow.slowest())


def _text(error: BaseException) -> str:
    """Return `error` with the traceback as text.

    If the text has more than 20,000 characters, its middle is left out.
    """
    text = traceback_text(error).rstrip()
    return text if len(text) <= _TEXT_LENGTH else f"{text[: _TEXT_LENGTH // 2]}\n...\n{text[-_TEXT_LENGTH // 2 :]}"

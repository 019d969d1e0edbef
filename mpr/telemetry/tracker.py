"""What a pool records of itself: what its workers are at, what became of its tasks. Events in, rows out; no I/O.

Covers: the state timeline of each worker, spans of tasks, errors, what each worker has spent its time on.
Does not cover: who reads clocks and processes (`sampler.py`), how rows are encoded (`encoder.py`).

Tasks may take less than a microsecond, and a person cannot tell lines apart that are closer than a pixel. So tasks of
one function that follow each other within `SPAN_NS` in a worker share one span, which counts them: at most 20 spans per
worker and second, whatever the tasks.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from mpr.errors import exit_name
from mpr.scheduler.observer import PoolObserver
from mpr.scheduler.work_item import WorkItem
from mpr.scheduler.worker_handle import WorkerActivity
from mpr.telemetry.insights import Insights, SlowTask, WorkerInsights
from mpr.telemetry.rows import BACK_PRESSURE, ENDED, IDLE, STARTING, ErrorRow, Rows, Sample, Span, StateRow
from mpr.telemetry.slow_tasks import SlowTasks
from mpr.transport.messages import CALL, Hello, Result

#: Tasks that end within so many nanoseconds share a span, and a state that lasts less is shown with the next one.
SPAN_NS = 50_000_000
# Between two tasks, this is no idleness that anybody would want to see (nanoseconds).
_GAP_NS = 2_000_000
# So many errors are written down between two looks; the others are counted.
_ERRORS = 100
# So many characters of each.
_TEXT_LENGTH = 20_000
# A worker that has died keeps its state timeline, and the next one gets another, up to so many more than there are
# workers.
_MORE_TIMELINES = 8

Clock: TypeAlias = Callable[[], int]


@dataclass(slots=True)
class _Worker:
    number: int
    place: int
    state_timeline: int
    started_ns: int
    pid: int = 0
    ready_ns: int | None = None
    init_ns: int = 0
    ended_ns: int | None = None
    lost: str = ""
    #: When its state timeline has ended.
    left_ns: int | None = None
    span: Span | None = None
    #: The work item that it is at, and for how long it was when its last result was sent.
    work_item: int = 0
    micros: int = 0
    #: Since when it is idle, where its state timeline does not say so yet.
    idle_ns: int | None = None
    #: The last task that its state timeline shows, as (number of the work item, task).
    shown: tuple[int, int] = (0, 0)
    back_pressure_since_ns: int = 0
    #: When its last task ended that was heard of.
    heard_ns: int = 0
    tasks: int = 0
    rows: int = 0
    data_bytes: int = 0
    working_ns: int = 0
    flushing_ns: int = 0
    back_pressure_ns: int = 0
    #: What it has spent on the task that it is at.
    current_ns: int = 0


class TelemetryTracker(PoolObserver):
    """Of one pool.

    Parameters
    ----------
    kinds:
        What is recorded, out of `config.TELEMETRY`.
    size:
        How many workers there are at a time.
    clock:
        `time.monotonic_ns`.
    """

    def __init__(self, kinds: frozenset[str], size: int, clock: Clock) -> None:
        self._kinds = kinds
        self._size = size
        self._clock = clock
        self._lock = threading.Lock()
        self._rows = Rows()
        #: The workers that live, by their numbers, and those that have ended.
        self._workers: dict[int, _Worker] = {}
        self._ended: list[WorkerInsights] = []
        self._gone: dict[int, _Worker] = {}
        self._free = list(range(size))
        self._timeline_of_place: dict[int, int] = {}
        self._names = [""] * size
        self._state_timelines = 0
        self._errors_left = _ERRORS
        self._closing = False
        self._slow = SlowTasks()
        self._submitted: deque[int] = deque()
        self._submitted_count = 0
        #: Tasks that have their outcome.
        self.settled_count = 0
        #: Whether something has happened that is to be seen at once.
        self.urgent = threading.Event()

    # --- workers -----------------------------------------------------------------------------------------------

    def starting(self, worker: int) -> None:
        """The process of a worker is about to be started."""
        with self._lock:
            now = self._clock()
            place = self._free.pop(0) if self._free else 0
            state_timeline = self._timeline_of_place.get(place)
            if state_timeline is None:
                state_timeline, self._state_timelines = worker, self._state_timelines + 1
            self._timeline_of_place[place] = state_timeline
            found = self._workers[worker] = _Worker(worker, place, state_timeline, now)
            self._names[place] += f", {worker}" if self._names[place] else f"worker {worker}"
            self._rows.names = list(self._names)
            self._show(found, now, STARTING)

    def ready(self, hello: Hello, init_micros: int) -> None:
        with self._lock:
            worker = self._workers.get(hello.worker)
            if worker is not None:
                worker.pid, worker.ready_ns, worker.init_ns = hello.pid, self._clock(), init_micros * 1000
                worker.idle_ns = worker.ready_ns

    def ended(self, worker: int, exitcode: int | None, work: WorkerActivity | None) -> None:
        """The process of a worker has ended, in the middle of `work`, if that is known."""
        with self._lock:
            found = self._workers.pop(worker, None)
            if found is None:
                return
            now = found.ended_ns = self._clock()
            if exitcode and not self._closing:
                if work is not None:
                    self._show_running(found, work, now, after_ns=0)
                found.lost = f"lost ({exit_name(exitcode)})"
                self.urgent.set()
            self._end_state_timeline(found, now)
            self._gone[worker] = found
            self._free.append(found.place)
            if found.lost and self._state_timelines < 2 * self._size + _MORE_TIMELINES:
                del self._timeline_of_place[found.place]

    def _end_state_timeline(self, worker: _Worker, now_ns: int) -> None:
        if worker.left_ns is None:
            worker.left_ns = now_ns
            self._close(worker)
            self._show_idle(worker, now_ns)
            self._show(worker, now_ns, worker.lost or ENDED)

    def unsettled(self) -> int:
        """Tasks that have no outcome; the sampler's thread asks."""
        while self._submitted:
            self._submitted_count += self._submitted.popleft()
        return max(0, self._submitted_count - self.settled_count)

    @property
    def places(self) -> dict[int, int]:
        """The place of each worker that lives."""
        with self._lock:
            return {number: worker.place for number, worker in self._workers.items()}

    # --- tasks -------------------------------------------------------------------------------------------------

    def submitted(self, name: str, count: int) -> None:
        # In the caller's thread, which Ctrl-C may end anywhere: without the lock.
        self._submitted.append(count)

    def settled(self, work_item: WorkItem, first: int, count: int, error: BaseException | None) -> None:
        with self._lock:
            self.settled_count += count
            if error is None or "tasks" not in self._kinds:
                return
            self._errors_left -= 1
            if self._errors_left >= 0:
                name = work_item.name(first) if count == 1 else f"{work_item.name(first)} and {count - 1} more tasks"
                text = f"{name}: {_text(error)}"
                row = ErrorRow(self._clock(), work_item.function.name, work_item.first_task + first, text)
                self._rows.errors.append(row)
                self.urgent.set()

    def result(self, hello: Hello, work_item: WorkItem, count: int, result: Result) -> None:
        with self._lock:
            worker = self._workers.get(hello.worker) or self._gone.get(hello.worker)
            if worker is None:
                return
            now = result.ended_nanos
            micros = result.micros - (worker.micros if worker.work_item == work_item.number else 0)
            worker.work_item, worker.micros = (0, 0) if result.last else (work_item.number, result.micros)
            begin = now - micros * 1000
            micros -= result.flush_micros
            end = begin + micros * 1000
            worker.tasks += count
            worker.rows += result.rows
            worker.data_bytes += result.data_bytes
            worker.heard_ns = end
            worker.working_ns += end - begin
            worker.flushing_ns += result.flush_micros * 1000
            worker.current_ns = 0
            if self._slow.wants(micros):
                self._add_slow(worker, work_item, count, result, micros)
            span = worker.span
            if (
                span is not None
                and span.function == work_item.function.name
                and end - span.begin_ns <= SPAN_NS
                and begin - span.end_ns < _GAP_NS
            ):
                span.end_ns, span.count = end, span.count + count
                span.number, span.index = (
                    work_item.first_task + work_item.first + count - 1,
                    work_item.index + work_item.first,
                )
                span.micros += micros
                span.rows += result.rows
                span.data_bytes += result.data_bytes
                return
            self._begin_span(worker, work_item, count, result, begin, end)

    def _begin_span(
        self, worker: _Worker, work_item: WorkItem, count: int, result: Result, begin_ns: int, end_ns: int
    ) -> None:
        self._close(worker)
        task = work_item.first + count - 1
        worker.span = Span(
            function=work_item.function.name,
            name=_name(work_item, task),
            begin_ns=begin_ns,
            end_ns=end_ns,
            worker=worker.number,
            number=work_item.first_task + task,
            index=work_item.index + task,
            attempt=_attempt(work_item, task),
            count=count,
            micros=(end_ns - begin_ns) // 1000,
            rows=result.rows,
            data_bytes=result.data_bytes,
            shown=end_ns - begin_ns >= SPAN_NS and worker.shown == (work_item.number, task),
        )
        if worker.span.shown:
            worker.idle_ns = None
        else:
            self._show_idle(worker, begin_ns)

    def _add_slow(self, worker: _Worker, work_item: WorkItem, count: int, result: Result, micros: int) -> None:
        task = work_item.first + count - 1
        slow = SlowTask(
            task=_name(work_item, task),
            worker=worker.number,
            attempt=_attempt(work_item, task),
            seconds=micros / 1e6,
            rows=result.rows,
            data_bytes=result.data_bytes,
        )
        self._slow.add(micros, slow, work_item, task)

    def _close(self, worker: _Worker) -> None:
        """The open span of `worker` is complete."""
        span, worker.span = worker.span, None
        if span is None:
            return
        worker.idle_ns = span.end_ns
        if not span.shown:
            self._show(worker, span.begin_ns, _state(span))
        if "tasks" in self._kinds:
            self._rows.spans.setdefault(span.function, []).append(span)

    # --- state timelines
    # -------------------------------------------------------------------------------------------------

    def _show(self, worker: _Worker, at_ns: int, state: str) -> None:
        if "workers" in self._kinds:
            self._rows.state_timelines.setdefault(worker.state_timeline, []).append(
                StateRow(at_ns, state, worker.number)
            )

    def _show_idle(self, worker: _Worker, until_ns: int) -> None:
        """It was idle until then, where that is long enough to be seen."""
        since, worker.idle_ns = worker.idle_ns, None
        if since is not None and until_ns - since > _GAP_NS:
            self._show(worker, since, IDLE)

    def _show_running(self, worker: _Worker, work: WorkerActivity, now_ns: int, after_ns: int = SPAN_NS) -> None:
        """A task runs that nobody has heard of yet."""
        at, work_item = work.at, work.work_item
        if work_item is None or not at.running or at.task < work_item.first:
            return
        # It may have begun before the result of the one before it had come here.
        since_ns = max(at.since_ns, worker.heard_ns)
        if now_ns - since_ns < after_ns:
            return
        worker.current_ns = now_ns - since_ns
        if worker.shown != (work_item.number, at.task) and at.task < work_item.count:
            worker.shown = work_item.number, at.task
            self._close(worker)
            self._show_idle(worker, since_ns)
            self._show(worker, since_ns, _name(work_item, at.task))

    def look(self, work: WorkerActivity) -> None:
        """What a worker is at, now."""
        with self._lock:
            found = self._workers.get(work.worker)
            if found is None:
                return
            now, since_ns = self._clock(), work.back_pressure_since_ns
            found.back_pressure_ns = work.back_pressure_ns + (now - since_ns if since_ns else 0)
            self._show_running(found, work, now)
            # Less than that comes and goes as the sinks take data.
            if since_ns and now - since_ns > _GAP_NS and not found.back_pressure_since_ns:
                found.back_pressure_since_ns = since_ns
                self._show(found, since_ns, BACK_PRESSURE)
            elif not since_ns and found.back_pressure_since_ns:
                found.back_pressure_since_ns = 0
                if work.work_item is not None and work.at.running:
                    self._show(found, now, _name(work.work_item, work.at.task))

    # --- what comes out ----------------------------------------------------------------------------------------

    def sample(self, sample: Sample) -> None:
        with self._lock:
            self._rows.samples.append(sample)

    def take(self, *, last: bool = False) -> Rows:
        """The rows since the last time; with `last`, those of all that is over, and the ends of all state timelines."""
        with self._lock:
            now = self._clock()
            self._closing = self._closing or last
            for worker in self._workers.values() if last else ():
                self._end_state_timeline(worker, now)
            for worker in [*self._workers.values(), *self._gone.values()]:
                if worker.span is not None and (last or now - worker.span.end_ns > SPAN_NS):
                    self._close(worker)
                if worker.ended_ns is None and worker.idle_ns is not None and now - worker.idle_ns > SPAN_NS:
                    self._show_idle(worker, now)
            if self._errors_left < 0:
                text = f"{-self._errors_left} more errors are not written down one by one"
                self._rows.errors.append(ErrorRow(now, "", self.settled_count, text))
            self._errors_left = _ERRORS
            self._slow.describe()
            # Those that have ended long ago send no results any more.
            for number in [each.number for each in self._gone.values() if now - (each.ended_ns or now) > 10**10]:
                self._ended.append(self._insights_of(self._gone.pop(number), now))
            rows, self._rows = self._rows, Rows()
            self.urgent.clear()
            return rows

    def close(self) -> None:
        with self._lock:
            self._closing = True

    def insights(self) -> Insights:
        """What the workers have spent their time on until now."""
        with self._lock:
            now = self._clock()
            self._slow.describe()
            workers = [self._insights_of(each, now) for each in [*self._gone.values(), *self._workers.values()]]
            ordered = sorted([*self._ended, *workers], key=lambda each: each.worker)
            return Insights(workers=tuple(ordered), slowest=self._slow.slowest())

    def _insights_of(self, worker: _Worker, now_ns: int) -> WorkerInsights:
        end = worker.left_ns or now_ns
        ready = worker.ready_ns if worker.ready_ns is not None else end
        working = worker.working_ns + worker.current_ns
        return WorkerInsights(
            worker=worker.number,
            pid=worker.pid,
            ended=worker.lost or ("runs" if worker.left_ns is None else "ended"),
            tasks=worker.tasks,
            rows=worker.rows,
            data_bytes=worker.data_bytes,
            start_up_secs=max(0, ready - worker.started_ns - worker.init_ns) / 1e9,
            init_secs=worker.init_ns / 1e9,
            waiting_secs=max(0, end - ready - working - worker.flushing_ns) / 1e9,
            working_secs=working / 1e9,
            flushing_secs=worker.flushing_ns / 1e9,
            held_back_secs=worker.back_pressure_ns / 1e9,
        )


def _name(work_item: WorkItem, task: int) -> str:
    """A task in a state timeline: `detect[3]`, or `detect #3` by its number in the pool where it has no index."""
    return (
        f"{work_item.function.name} #{work_item.first_task + task}" if work_item.mode == CALL else work_item.name(task)
    )


def _attempt(work_item: WorkItem, task: int) -> int:
    """The how many-th time it is that this task runs, from 1."""
    return work_item.attempt + 1 if task < work_item.first + work_item.again else 1


def _text(error: BaseException) -> str:
    """`error` with its traceback, shortened in the middle."""
    try:
        text = "".join(traceback.format_exception(error)).rstrip()
    except Exception as failure:  # noqa: BLE001  # whatever a user's exception raises when it is looked at
        return f"{type(error).__name__} ({type(failure).__name__} while it was described)"
    return text if len(text) <= _TEXT_LENGTH else f"{text[: _TEXT_LENGTH // 2]}\n...\n{text[-_TEXT_LENGTH // 2 :]}"


def _state(span: Span) -> str:
    """What a state timeline says of a span: the task that takes long, or what function many short ones are of."""
    return span.name if span.count == 1 or span.end_ns - span.begin_ns > SPAN_NS else span.function

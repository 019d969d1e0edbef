"""Follows one worker: its state timeline, the spans of its tasks, and how it spends its time.

A task may take less than a microsecond, so a row for each task would be too much. Tasks of one function that a worker
runs one after another, within `SPAN_NS`, share one span. The docstring of the package explains work items, spans,
places and state timelines.

Covers: when tasks share a span, which states are long enough to be shown, times and counts for the insights.
Does not cover: which workers there are (`tracker.py`), how rows are encoded (`encoder.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from mpr.blueprint.telemetry_names import BACK_PRESSURE, ENDED, IDLE, STARTING
from mpr.scheduler.work_item import WorkItem
from mpr.scheduler.worker_handle import WorkerActivity
from mpr.telemetry.collector import RowCollector
from mpr.telemetry.insights import WorkerInsights
from mpr.telemetry.rows import Span
from mpr.transport.messages import CALL, Result

#: The longest span (nanoseconds) that several tasks share. If a task runs for longer than this, the state timeline
#: shows the task while it runs. It shows a shorter task after its end. The same holds for the time in which a worker is
#: idle.
SPAN_NS = 50_000_000
# A shorter pause between two tasks is not shown, and neither is a shorter wait of `rr.log` (nanoseconds).
_GAP_NS = 2_000_000


@dataclass(slots=True)
class WorkerTotals:
    """Counts the tasks of one worker until now, and sums up their times.

    All times are in nanoseconds. `started_ns` and `ready_ns` are times of the monotonic clock. The other attributes
    with `_ns` are durations.

    Attributes
    ----------
    started_ns, ready_ns:
        The start of the process, and the time since which the worker accepts tasks (None: it is not ready yet).
    pid:
        The process id; 0 if the worker is not ready yet.
    init_ns:
        The time in the initializer.
    tasks, rows, data_bytes:
        How many tasks have ended, how many rows these tasks have logged, and the size of these rows in encoded bytes.
    working_ns:
        The time in tasks that have ended.
    flushing_ns:
        The time in which the worker waited after its tasks until the SDK had encoded their rows.
    back_pressure_ns:
        The time in which `rr.log` waited for the sinks.
    current_ns:
        The time for which the present task had run when it was observed last. 0 if no task runs, or if the task had
        run for less than `SPAN_NS`.
    """

    started_ns: int
    pid: int = 0
    ready_ns: int | None = None
    init_ns: int = 0
    tasks: int = 0
    rows: int = 0
    data_bytes: int = 0
    working_ns: int = 0
    flushing_ns: int = 0
    back_pressure_ns: int = 0
    current_ns: int = 0

    def note_ready(self, pid: int, now_ns: int, init_micros: int) -> None:
        self.pid, self.ready_ns, self.init_ns = pid, now_ns, init_micros * 1000

    def add(self, count: int, working_ns: int, result: Result) -> None:
        """Add `count` tasks that have ended, and that took `working_ns` nanoseconds together.

        `result` has their numbers of rows and bytes, and the time in which the worker waited for the SDK to encode the
        rows.
        """
        self.tasks += count
        self.rows += result.rows
        self.data_bytes += result.data_bytes
        self.working_ns += working_ns
        self.flushing_ns += result.flush_micros * 1000
        self.current_ns = 0

    def note_current(self, current_ns: int) -> None:
        self.current_ns = current_ns

    def note_back_pressure(self, back_pressure_ns: int) -> None:
        self.back_pressure_ns = back_pressure_ns

    def insights(self, worker: int, end_ns: int, ended: str) -> WorkerInsights:
        """Return the insights about the worker with the number `worker` for its time until `end_ns`.

        `end_ns` is in nanoseconds of the monotonic clock. `ended` is the value for `WorkerInsights.ended`.
        """
        ready_ns = self.ready_ns if self.ready_ns is not None else end_ns
        working_ns = self.working_ns + self.current_ns
        return WorkerInsights(
            worker=worker,
            pid=self.pid,
            ended=ended,
            tasks=self.tasks,
            rows=self.rows,
            data_bytes=self.data_bytes,
            start_up_secs=max(0, ready_ns - self.started_ns - self.init_ns) / 1e9,
            init_secs=self.init_ns / 1e9,
            waiting_secs=max(0, end_ns - ready_ns - working_ns - self.flushing_ns) / 1e9,
            working_secs=working_ns / 1e9,
            flushing_secs=self.flushing_ns / 1e9,
            held_back_secs=self.back_pressure_ns / 1e9,
        )


class WorkerTimeline:
    """Makes the rows and insights of one worker from its events. `TelemetryTracker` holds a lock during each call.

    Parameters
    ----------
    number:
        The number of the worker.
    place:
        The place of the worker in the pool.
    timeline:
        The number of the state timeline.
    now_ns:
        The time at which the process is started. All times here are nanoseconds of the monotonic clock.
    rows:
        The collector that gets the rows.
    """

    def __init__(self, number: int, place: int, timeline: int, now_ns: int, rows: RowCollector) -> None:
        self.number = number
        self.place = place
        self._timeline = timeline
        self._rows = rows
        self._totals = WorkerTotals(now_ns)
        #: The time at which the process has ended. None while the process runs.
        self.ended_ns: int | None = None
        #: The time at which the state timeline has ended, which may be before the end of the process.
        self._closed_ns: int | None = None
        self._lost = ""
        self._span: Span | None = None
        #: The number of the work item that the worker has begun and not ended (0: none). After it, the microseconds for
        #: which this work item had run when its latest result was sent.
        self._work_item, self._work_item_micros = 0, 0
        #: The time since which the worker is idle. None if the worker is not idle, or is shown as idle already.
        self._idle_ns: int | None = None
        #: The last task that the state timeline has shown while it ran: (number of the work item, index of the task).
        self._shown = (0, 0)
        self._back_pressure_since_ns = 0
        #: The end of the last task whose result has come.
        self._last_result_ns = 0
        self._show(now_ns, STARTING)

    @property
    def is_lost(self) -> bool:
        """True if the process of the worker has died, and did not end as usual."""
        return bool(self._lost)

    def note_ready(self, pid: int, now_ns: int, init_micros: int) -> None:
        """Record that the worker accepts tasks from the time `now_ns` on.

        `pid` is its process id. Its initializer took `init_micros` microseconds.
        """
        self._totals.note_ready(pid, now_ns, init_micros)
        self._idle_ns = now_ns

    def note_result(self, work_item: WorkItem, count: int, result: Result) -> int:
        """Record that the next `count` tasks of `work_item` have ended, as the worker's `result` says.

        Returns the time in microseconds that these tasks took together, without the time in which the SDK encoded rows.
        """
        is_same = self._work_item == work_item.number
        micros = result.micros - (self._work_item_micros if is_same else 0)
        self._work_item, self._work_item_micros = (0, 0) if result.last else (work_item.number, result.micros)
        begin_ns = result.ended_nanos - micros * 1000
        micros -= result.flush_micros
        end_ns = begin_ns + micros * 1000
        self._last_result_ns = end_ns
        self._totals.add(count, end_ns - begin_ns, result)
        span = self._span
        if (
            span is not None
            and span.function == work_item.function.name
            and end_ns - span.begin_ns <= SPAN_NS
            and begin_ns - span.end_ns < _GAP_NS
        ):
            last = work_item.first + count - 1
            span.extend(end_ns, count, work_item.first_task + last, work_item.index + last, micros, result)
        else:
            self._begin_span(work_item, count, result, begin_ns, end_ns)
        return micros

    def note_activity(self, work: WorkerActivity, now_ns: int) -> None:
        """Show what the worker does at `now_ns` according to `work`: a task or a wait of `rr.log`.

        A task is shown if it has run for 50 ms or more, and a wait if it has taken more than 2 ms. Also record for how
        long `rr.log` has waited in this worker.
        """
        since_ns = work.back_pressure_since_ns
        self._totals.note_back_pressure(work.back_pressure_ns + (now_ns - since_ns if since_ns else 0))
        self._show_running(work, now_ns)
        # Shorter waits are not shown, because there are many of them whenever the sinks take data.
        if since_ns and now_ns - since_ns > _GAP_NS and not self._back_pressure_since_ns:
            self._back_pressure_since_ns = since_ns
            self._show(since_ns, BACK_PRESSURE)
        elif not since_ns and self._back_pressure_since_ns:
            self._back_pressure_since_ns = 0
            if work.work_item is not None and work.at.running:
                self._show(now_ns, display_name(work.work_item, work.at.task))

    def note_end(self, now_ns: int, lost: str = "", work: WorkerActivity | None = None) -> None:
        """Record that the process has ended at `now_ns`.

        If the process has died, `lost` is the state to show, such as 'lost (SIGKILL)', and `work` is the last activity
        of the worker (None: unknown). Otherwise `lost` is empty.
        """
        self.ended_ns = now_ns
        self._lost = lost
        if lost and work is not None:
            self._show_running(work, now_ns, after_ns=0)
        self.close(now_ns)

    def close(self, now_ns: int) -> None:
        """End the latest span and the state timeline at `now_ns`. A second call does nothing."""
        if self._closed_ns is None:
            self._closed_ns = now_ns
            self._end_span()
            self._show_idle(now_ns)
            self._show(now_ns, self._lost or ENDED)

    def catch_up(self, now_ns: int, *, last: bool) -> None:
        """Make the rows that are due at `now_ns`.

        The latest span gets its row if its last task ended more than `SPAN_NS` ago, or if `last` is true. A running
        worker is shown as idle if it has been idle for more than `SPAN_NS`.
        """
        if self._span is not None and (last or now_ns - self._span.end_ns > SPAN_NS):
            self._end_span()
        if self.ended_ns is None and self._idle_ns is not None and now_ns - self._idle_ns > SPAN_NS:
            self._show_idle(now_ns)

    def insights(self, now_ns: int) -> WorkerInsights:
        """Return how the worker has spent its time until `now_ns`, or until its state timeline has ended."""
        ended = self._lost or ("runs" if self._closed_ns is None else "ended")
        return self._totals.insights(self.number, self._closed_ns or now_ns, ended)

    def _begin_span(self, work_item: WorkItem, count: int, result: Result, begin_ns: int, end_ns: int) -> None:
        self._end_span()
        task = work_item.first + count - 1
        self._span = Span(
            function=work_item.function.name,
            name=display_name(work_item, task),
            begin_ns=begin_ns,
            end_ns=end_ns,
            worker=self.number,
            number=work_item.first_task + task,
            index=work_item.index + task,
            attempt=attempt_of(work_item, task),
            count=count,
            micros=(end_ns - begin_ns) // 1000,
            rows=result.rows,
            data_bytes=result.data_bytes,
            shown=end_ns - begin_ns >= SPAN_NS and self._shown == (work_item.number, task),
        )
        if self._span.shown:
            self._idle_ns = None
        else:
            self._show_idle(begin_ns)

    def _end_span(self) -> None:
        span, self._span = self._span, None
        if span is None:
            return
        self._idle_ns = span.end_ns
        if not span.shown:
            # A long task, or a single one, is shown by its own name. Other spans are shown by the name of the function.
            is_long = span.count == 1 or span.end_ns - span.begin_ns > SPAN_NS
            self._show(span.begin_ns, span.name if is_long else span.function)
        self._rows.add_span(span)

    def _show(self, at_ns: int, state: str) -> None:
        self._rows.add_state(self._timeline, at_ns, state, self.number)

    def _show_idle(self, until_ns: int) -> None:
        """Show that the worker was idle until `until_ns`, if it was idle for more than 2 ms."""
        since_ns, self._idle_ns = self._idle_ns, None
        if since_ns is not None and until_ns - since_ns > _GAP_NS:
            self._show(since_ns, IDLE)

    def _show_running(self, work: WorkerActivity, now_ns: int, after_ns: int = SPAN_NS) -> None:
        """Show the task that runs according to `work`, if there is one, in the state timeline.

        The task is shown only if it has run for at least `after_ns` nanoseconds at the time `now_ns`, and has no result
        yet. In this case, also record for how long it has run.
        """
        at, work_item = work.at, work.work_item
        if work_item is None or not at.running or at.task < work_item.first:
            return
        # If short tasks ran before this task, `at.since_ns` may be too early. The task began after their end.
        since_ns = max(at.since_ns, self._last_result_ns)
        if now_ns - since_ns < after_ns:
            return
        self._totals.note_current(now_ns - since_ns)
        if self._shown != (work_item.number, at.task) and at.task < work_item.count:
            self._shown = work_item.number, at.task
            self._end_span()
            self._show_idle(since_ns)
            self._show(since_ns, display_name(work_item, at.task))


def display_name(work_item: WorkItem, task: int) -> str:
    """Return the name under which a state timeline shows the task with the index `task` in `work_item`.

    A task of a `map` is shown with its index in the call, such as `detect[3]`. A task of `apply` or `submit` is shown
    with its number in the pool, such as `detect #7`.
    """
    if work_item.mode == CALL:
        return f"{work_item.function.name} #{work_item.first_task + task}"
    return work_item.name(task)


def attempt_of(work_item: WorkItem, task: int) -> int:
    """Return the number of the present run of the task with the index `task` in `work_item`, counted from 1."""
    return work_item.attempt if task < work_item.first + work_item.again else 1

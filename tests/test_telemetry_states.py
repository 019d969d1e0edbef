"""State timelines, spans and insights as a state machine, with any order of events.

The test sets the clock.
"""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from mpr.scheduler.work_item import TaskFunction, WorkItem
from mpr.scheduler.worker_handle import WorkerActivity
from mpr.telemetry.rows import TELEMETRY, StateRow
from mpr.telemetry.tracker import TelemetryTracker
from mpr.transport import messages
from mpr.transport.messages import EACH, Hello, Result
from mpr.transport.status_page import At

_ALL = frozenset(TELEMETRY)
_MS = 1_000_000


class _Clock:
    """A clock that stands still until the test sets it."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def __call__(self) -> int:
        return self.now_ns


def _hello(worker: int) -> Hello:
    return Hello("", worker, 1000 + worker, "", "")


def _work_item(number: int, count: int, name: str = "f") -> WorkItem:
    function = TaskFunction(name, b"", b"")
    return WorkItem(
        function=function, count=count, mode=EACH, payload=[b"no pickle"], number=number, first_task=number * 100
    )


def _end(
    found: TelemetryTracker,
    clock: _Clock,
    work_item: WorkItem,
    worker: int,
    micros: int,
    *,
    count: int = 1,
    last: bool = True,
    flush: int = 0,
    late_millis: int = 0,
) -> None:
    """Report a result that was ready at the present time, and arrives `late_millis` milliseconds later."""
    numbers = (work_item.number, work_item.first, count, messages.RETURNED, last, micros)
    result = Result(*numbers, [], flush, 2, 30, ended_nanos=clock.now_ns)
    clock.now_ns += late_millis * _MS
    found.result(_hello(worker), work_item, count, result)
    work_item.settle(count)
    found.settled(work_item, 0, count, None)


def _ready(found: TelemetryTracker, worker: int) -> None:
    found.starting(worker)
    found.ready(_hello(worker), 0)


def _states(rows: list[StateRow]) -> list[str]:
    return [row.state for row in sorted(rows, key=lambda row: row.at_ns)]


def test_short_tasks_share_a_span_and_long_ones_have_their_own() -> None:
    clock = _Clock()
    found = TelemetryTracker(_ALL, 1, clock)
    _ready(found, 1)
    for number in range(1, 1001):
        clock.now_ns += _MS
        _end(found, clock, _work_item(number, 1), 1, 1000)
    clock.now_ns += 200 * _MS
    _end(found, clock, _work_item(2000, 1), 1, 200_000)
    rows = found.take(last=True)
    spans = rows.spans["f"]
    # A second of tasks of a millisecond each, in spans of 50 ms.
    assert 21 == len(spans)
    assert 1001 == sum(span.count for span in spans)
    assert 2002 == sum(span.rows for span in spans)
    assert ("f[0]", 1, 200_000) == (spans[-1].name, spans[-1].count, spans[-1].micros)
    assert ["starting", *["f"] * 20, "f[0]", ""] == _states(rows.state_timelines[1])


def test_each_result_of_one_work_item_has_its_own_span() -> None:
    clock = _Clock()
    found = TelemetryTracker(_ALL, 1, clock)
    _ready(found, 1)
    work_item = _work_item(1, 3)
    start = clock.now_ns
    # The time in a result counts from the beginning of its work item.
    for elapsed in (100, 300, 600):
        clock.now_ns = start + elapsed * _MS
        _end(found, clock, work_item, 1, elapsed * 1000, last=elapsed == 600, flush=10_000)
    spans = found.take(last=True).spans["f"]
    assert [("f[0]", 90_000), ("f[1]", 190_000), ("f[2]", 290_000)] == [(each.name, each.micros) for each in spans]
    (worker,) = found.insights().workers
    assert (0.57, 0.03) == (worker.working_secs, worker.flushing_secs)


def test_a_running_task_is_shown_once_before_its_result_arrives() -> None:
    clock = _Clock()
    found = TelemetryTracker(_ALL, 1, clock)
    _ready(found, 1)
    work_item = _work_item(1, 1)
    began = clock.now_ns
    at = At(sequence=1, begun_ns=began, task=0, running=True, since_ns=began)
    for _ in range(3):
        clock.now_ns += 400 * _MS
        found.look(WorkerActivity(1, at, work_item))
    rows = found.take().state_timelines[1]
    assert ["starting", "f[0]"] == _states(rows)
    assert began == rows[-1].at_ns
    assert 1.2 == found.insights().workers[0].working_secs
    clock.now_ns += 400 * _MS
    _end(found, clock, work_item, 1, 1_600_000)
    clock.now_ns += 400 * _MS
    rows = found.take().state_timelines[1]
    assert [("idle", began + 1600 * _MS)] == [(row.state, row.at_ns) for row in rows]


def test_a_task_that_runs_behind_another_of_its_work_item_is_shown_too() -> None:
    clock = _Clock()
    found = TelemetryTracker(_ALL, 1, clock)
    _ready(found, 1)
    work_item = _work_item(1, 2)
    clock.now_ns += 100 * _MS
    # The worker begins the next task before the result is here.
    began = clock.now_ns - _MS
    _end(found, clock, work_item, 1, 100_000, last=False)
    heard = clock.now_ns
    clock.now_ns += 400 * _MS
    found.look(WorkerActivity(1, At(sequence=1, begun_ns=0, task=0, running=True, since_ns=0), work_item))
    found.look(WorkerActivity(1, At(sequence=1, begun_ns=0, task=1, running=True, since_ns=began), work_item))
    rows = found.take(last=True).state_timelines[1]
    assert ["starting", "f[0]", "f[1]", ""] == _states(rows)
    assert [heard] == [row.at_ns for row in rows if row.state == "f[1]"]


def test_slowest_lists_each_of_the_short_tasks_that_share_a_span() -> None:
    clock = _Clock()
    found = TelemetryTracker(_ALL, 1, clock)
    _ready(found, 1)
    work_item = _work_item(1, 20)
    elapsed = 0
    for micros in range(1, 21):
        clock.now_ns += micros * 1000
        elapsed += micros
        _end(found, clock, work_item, 1, elapsed, last=micros == 20)
    assert 1 == len(found.take(last=True).spans["f"])
    expected = [(f"f[{task}]", (task + 1) / 1e6, 2, 30) for task in reversed(range(10, 20))]
    assert expected == [(each.task, each.seconds, each.rows, each.data_bytes) for each in found.insights().slowest]


def test_waiting_for_credit_is_a_state_of_its_own() -> None:
    clock = _Clock()
    found = TelemetryTracker(_ALL, 1, clock)
    _ready(found, 1)
    work_item = _work_item(1, 1)
    began = clock.now_ns
    at = At(sequence=1, begun_ns=began, task=0, running=True, since_ns=began)
    clock.now_ns += 400 * _MS
    found.look(WorkerActivity(1, at, work_item, began + 300 * _MS, 0))
    clock.now_ns += 400 * _MS
    found.look(WorkerActivity(1, at, work_item, 0, 450 * _MS))
    assert ["starting", "f[0]", "waiting for credit", "f[0]"] == _states(found.take().state_timelines[1])
    assert 0.45 == found.insights().workers[0].held_back_secs


def test_errors_beyond_a_number_are_counted() -> None:
    found = TelemetryTracker(_ALL, 1, _Clock())
    _ready(found, 1)
    for number in range(1, 1001):
        found.settled(_work_item(number, 1), 0, 1, ValueError(number))
    texts = [error.text for error in found.take().errors]
    assert len(texts) <= 101
    assert 1000 == len(texts) - 1 + int(texts[-1].partition(" ")[0])


class StateTimelines(RuleBasedStateMachine):
    """Workers start, work, die and are replaced in any order."""

    live = Bundle("live")
    SIZE = 3

    def __init__(self) -> None:
        super().__init__()
        self.clock = _Clock()
        self.found = TelemetryTracker(_ALL, self.SIZE, self.clock)
        self.next_worker = 1
        self.work_items = 1
        self.alive: set[int] = set()
        self.ready: set[int] = set()
        self.lost: set[int] = set()
        self.ended_tasks: Counter[int] = Counter()
        self.state_timelines: dict[int, list[StateRow]] = {}
        self.span_count: Counter[int] = Counter()

    def take(self, *, last: bool = False) -> None:
        rows = self.found.take(last=last)
        for state_timeline, states in rows.state_timelines.items():
            self.state_timelines.setdefault(state_timeline, []).extend(states)
        for spans in rows.spans.values():
            for span in spans:
                assert span.begin_ns <= span.end_ns
                self.span_count[span.worker] += span.count

    @precondition(lambda self: len(self.alive) < self.SIZE)
    @rule(target=live)
    def start(self) -> int:
        worker, self.next_worker = self.next_worker, self.next_worker + 1
        self.alive.add(worker)
        self.found.starting(worker)
        return worker

    @rule(worker=live, init=st.integers(0, 5))
    def becomes_ready(self, worker: int, init: int) -> None:
        if worker in self.alive - self.ready:
            self.ready.add(worker)
            self.clock.now_ns += 20 * _MS
            self.found.ready(_hello(worker), init * 1000)

    @rule(
        worker=live,
        micros=st.integers(0, 300_000),
        count=st.integers(1, 5),
        name=st.sampled_from("fg"),
        late=st.sampled_from([0, 0, 10, 700]),
    )
    def ends_a_work_item(self, worker: int, micros: int, count: int, name: str, late: int) -> None:
        if worker in self.ready & self.alive:
            self.work_items += 1
            self.clock.now_ns += micros * 1000 + 1000
            work_item = _work_item(self.work_items, count, name)
            _end(self.found, self.clock, work_item, worker, micros, count=count, late_millis=late)
            self.ended_tasks[worker] += count

    @rule(worker=live, millis=st.integers(1, 300))
    def is_looked_at(self, worker: int, millis: int) -> None:
        if worker in self.ready & self.alive:
            self.work_items += 1
            at = At(sequence=1, begun_ns=0, task=0, running=True, since_ns=self.clock.now_ns)
            self.clock.now_ns += millis * _MS
            self.found.look(WorkerActivity(worker, at, _work_item(self.work_items, 1)))

    @rule(worker=live, exitcode=st.sampled_from([0, -9, -11, 3]))
    def ends(self, worker: int, exitcode: int) -> None:
        if worker in self.alive:
            self.alive.remove(worker)
            self.clock.now_ns += _MS
            self.found.ended(worker, exitcode, None)
            if exitcode:
                self.lost.add(worker)

    @rule(worker=live, count=st.integers(1, 3))
    def a_late_result_of_one_that_has_ended(self, worker: int, count: int) -> None:
        if worker in self.ready - self.alive:
            self.work_items += 1
            _end(self.found, self.clock, _work_item(self.work_items, count), worker, 0, count=count)
            self.ended_tasks[worker] += count

    @rule(millis=st.integers(0, 1000))
    def time_passes(self, millis: int) -> None:
        self.clock.now_ns += millis * _MS

    @rule()
    def is_written(self) -> None:
        self.take()

    @invariant()
    def shares_are_of_one_life(self) -> None:
        for each in self.found.insights().workers:
            parts = (each.start_up_secs, each.init_secs, each.waiting_secs, each.working_secs, each.flushing_secs)
            assert all(part >= 0 for part in parts)
            assert each.tasks == self.ended_tasks[each.worker]
            assert each.ended.startswith("lost") == (each.worker in self.lost)

    def teardown(self) -> None:
        self.take(last=True)
        # Every task is in exactly one span.
        assert +self.ended_tasks == +self.span_count
        # No more state timelines than there is room for, each worker in one of them.
        assert len(self.state_timelines) <= 2 * self.SIZE + 8
        of_worker: dict[int, set[int]] = {}
        for state_timeline, rows in self.state_timelines.items():
            for row in rows:
                of_worker.setdefault(row.worker, set()).add(state_timeline)
        assert all(len(state_timelines) == 1 for state_timelines in of_worker.values())
        states = {(row.worker, row.state) for rows in self.state_timelines.values() for row in rows}
        assert {worker for worker, state in states if state.startswith("lost (")} == self.lost
        # The numbers of workers are those that were given.
        assert set(of_worker) == set(range(1, self.next_worker))


StateTimelines.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestStateTimelines = StateTimelines.TestCase

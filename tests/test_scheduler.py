"""The assignment of work items, compared with a model of what its callers may rely on, in any order of events."""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mpr.scheduler.assignment import Assignment

_TINY = st.integers(0, 199)
_SHORT = st.integers(200, 4_999)
_LONG = st.integers(5_000, 10_000_000)
# A worker never has more work items than this: the one that runs, and those behind it.
_MOST = 32


class _Worker:
    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.given = 0
        self.retired = False
        self.work_items: list[int] = []

    @property
    def spent(self) -> bool:
        return self.limit is not None and self.given == self.limit


class SchedulerMachine(RuleBasedStateMachine):
    """Check every answer to every event against a model of the queue and the workers."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler: Assignment[int] = Assignment()
        self.work_item_count = 0
        self.worker_count = 0
        self.waiting: deque[int] = deque()
        self.workers: dict[int, _Worker] = {}
        self.handed_out: Counter[int] = Counter()
        self.requeued: Counter[int] = Counter()
        # The number of work items that a worker may have. It depends on the time of the last one.
        self.depth = 1

    def check(self, sends: list[tuple[int, int]]) -> None:
        """Each hand-out comes from the front of the queue and goes to a worker that may have it."""
        for number, work_item in sends:
            assert self.waiting.popleft() == work_item
            worker = self.workers[number]
            assert not worker.spent
            if worker.work_items:
                assert len(worker.work_items) < self.depth, "more behind a running work item than their length allows"
                free = [each for each in self.workers.values() if not each.work_items and not each.spent]
                assert free == [], "behind a running work item although a worker is free"
            worker.work_items.append(work_item)
            worker.given += 1
            self.handed_out[work_item] += 1

    @rule()
    def add(self) -> None:
        work_item = self.work_item_count
        self.work_item_count += 1
        self.waiting.append(work_item)
        self.check(self.scheduler.add(work_item))

    @precondition(lambda self: len(self.workers) < 4)
    @rule(limit=st.none() | st.integers(1, 5))
    def ready(self, limit: int | None) -> None:
        number = self.worker_count
        self.worker_count += 1
        self.workers[number] = _Worker(limit)
        self.check(self.scheduler.ready(number, limit))

    def finish(self, data: st.DataObject, micros: int) -> None:
        number = data.draw(st.sampled_from([n for n, each in self.workers.items() if each.work_items]))
        work_item = self.workers[number].work_items.pop(0)
        self.depth = 32 if micros < 200 else 16 if micros < 1_000 else 3 if micros < 5_000 else 1
        self.check(self.scheduler.done(number, work_item, micros))

    @precondition(lambda self: any(each.work_items for each in self.workers.values()))
    @rule(data=st.data(), micros=_TINY | _SHORT)
    def done_soon(self, data: st.DataObject, micros: int) -> None:
        self.finish(data, micros)

    @precondition(lambda self: any(each.work_items for each in self.workers.values()))
    @rule(data=st.data(), micros=_LONG)
    def done_late(self, data: st.DataObject, micros: int) -> None:
        self.finish(data, micros)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def lost(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.workers)))
        worker = self.workers.pop(number)
        assert worker.work_items == self.scheduler.lost(number)
        self.wait_again(worker.work_items[1:])

    @rule()
    def lost_before_it_was_ready(self) -> None:
        assert [] == self.scheduler.lost(10_000)

    @rule()
    def done_by_a_worker_that_is_gone(self) -> None:
        # The last result of a worker can arrive after its end. The time is one that does not change the depth.
        micros = {32: 0, 16: 200, 3: 1_000, 1: 5_000}[self.depth]
        assert [] == self.scheduler.done(10_000, 10_000, micros)

    def wait_again(self, work_items: list[int]) -> None:
        self.waiting.extendleft(reversed(work_items))
        self.requeued.update(work_items)
        self.check(self.scheduler.add_first(work_items))

    @precondition(lambda self: any(len(each.work_items) > 1 for each in self.workers.values()))
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        """Take back all work items behind the first one of a worker, or the last of them."""
        number = data.draw(st.sampled_from([n for n, each in self.workers.items() if len(each.work_items) > 1]))
        work_items = self.workers[number].work_items
        taken = work_items[data.draw(st.integers(1, len(work_items) - 1)) :]
        del work_items[-len(taken) :]
        if not self.workers[number].retired:
            # A work item that has not begun does not count.
            self.workers[number].given -= len(taken)
        self.check(self.scheduler.take_back(number, taken))
        self.wait_again(taken)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.workers)))
        self.workers[number].limit = self.workers[number].given
        self.workers[number].retired = True
        self.scheduler.retire(number)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        work_item = data.draw(st.sampled_from(list(self.waiting)))
        self.waiting.remove(work_item)
        assert self.scheduler.drop(work_item)

    @rule()
    def drop_a_work_item_that_does_not_wait(self) -> None:
        assert not self.scheduler.drop(10_000)

    @rule()
    def drop_waiting(self) -> None:
        assert list(self.waiting) == self.scheduler.drop_waiting()
        self.waiting.clear()

    @invariant()
    def no_worker_has_too_many(self) -> None:
        assert all(len(each.work_items) <= _MOST for each in self.workers.values())

    @invariant()
    def no_worker_is_idle_while_work_items_wait(self) -> None:
        idle = [number for number, each in self.workers.items() if not each.work_items and not each.spent]
        assert not self.waiting or idle == []

    @invariant()
    def a_work_item_is_handed_out_once_unless_it_waited_behind_a_lost_one(self) -> None:
        assert all(count <= 1 + self.requeued[work_item] for work_item, count in self.handed_out.items())

    @invariant()
    def no_worker_gets_more_than_its_limit(self) -> None:
        assert all(each.limit is None or each.given <= each.limit for each in self.workers.values())

    @invariant()
    def exhausted_is_true_for_idle_workers_at_their_limit(self) -> None:
        for number, worker in self.workers.items():
            assert (worker.spent and not worker.work_items) == self.scheduler.exhausted(number)

    @invariant()
    def the_workers_are_those_that_are_ready_and_not_lost(self) -> None:
        assert sorted(self.workers) == sorted(self.scheduler._workers)


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def _short_work_items_were_seen(scheduler: Assignment[str], worker: int) -> None:
    scheduler.add("first")
    scheduler.done(worker, "first", 1_000)


def test_a_worker_gets_two_work_items_behind_a_running_one_when_work_items_are_short() -> None:
    scheduler: Assignment[str] = Assignment()
    scheduler.ready(1, None)
    _short_work_items_were_seen(scheduler, 1)
    assert [[(1, "a")], [(1, "b")], [(1, "c")], []] == [scheduler.add(each) for each in "abcd"]


def test_a_worker_gets_one_work_item_at_a_time_when_work_items_are_long() -> None:
    scheduler: Assignment[str] = Assignment()
    scheduler.ready(1, None)
    assert [[(1, "a")], [], []] == [scheduler.add(each) for each in "abc"]
    assert [(1, "b")] == scheduler.done(1, "a", 60_000)


def test_one_long_work_item_ends_handing_out_ahead() -> None:
    scheduler: Assignment[str] = Assignment()
    scheduler.ready(1, None)
    scheduler.ready(2, None)
    _short_work_items_were_seen(scheduler, 1)
    held = dict(scheduler.add("a") + scheduler.add("b"))
    assert {1, 2} == set(held)
    # This frees worker 1. A worker may have a second work item only while work items are short.
    scheduler.done(1, held[1], 60_000)
    assert [[(1, "c")], [], []] == [scheduler.add(each) for each in "cde"]


def test_work_items_behind_a_lost_one_come_first_and_in_order() -> None:
    scheduler: Assignment[str] = Assignment()
    scheduler.ready(1, None)
    _short_work_items_were_seen(scheduler, 1)
    for each in "abcd":
        scheduler.add(each)
    assert ["a", "b", "c"] == scheduler.lost(1)
    assert [] == scheduler.add_first(["b", "c"])
    assert ["b", "c", "d"] == scheduler.drop_waiting()


def test_a_worker_that_may_do_two_tasks_is_exhausted_after_the_second() -> None:
    scheduler: Assignment[str] = Assignment()
    scheduler.ready(1, 2)
    scheduler.add("a")
    scheduler.add("b")
    scheduler.add("c")
    scheduler.done(1, "a", 60_000)
    assert not scheduler.exhausted(1)
    assert [] == scheduler.done(1, "b", 60_000)
    assert scheduler.exhausted(1)
    assert ["c"] == scheduler.drop_waiting()

"""What a pool makes of results, deaths and ends: each task has one outcome, and none is forgotten.

No process runs here: the test plays the workers, with real status pages.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.aggregator.listener import SurvivingRows
from mpr.processes import pickling
from mpr.scheduler.dispatcher import Dispatcher
from mpr.scheduler.state import PoolLimits
from mpr.scheduler.work_item import TaskFunction, WorkItem
from mpr.transport.messages import EACH, RETURNED, Hello, Result, Skipped
from mpr.transport.packing import MessageError
from mpr.transport.sockets import Sockets
from mpr.transport.status_page import StatusPage, StatusPageReader


class _Control:
    """Counts what the pool wants of its supervisor."""

    def __init__(self) -> None:
        self.replaced = 0
        self.killed: list[int] = []

    def note_ready(self) -> None: ...

    def replace(self) -> None:
        self.replaced += 1

    def start_obstacle(self) -> str | None:
        return None

    def look_soon(self) -> None: ...

    def kill_if(self, pid: int, condition: Callable[[], bool]) -> bool:
        if condition():
            self.killed.append(pid)
            return True
        return False

    def memory(self, pid: int) -> int:
        return 0


class _Pool:
    """A dispatcher whose workers are played by the test. Outcomes are kept in order."""

    def __init__(self, folder: Path, retries: int = 0) -> None:
        self._folder = folder
        self.sockets = Sockets()
        self.control = _Control()
        limits = PoolLimits(retries=retries)
        self.dispatcher = Dispatcher(self.sockets.down, limits, self.control, lambda step: step())
        self.listener = self.dispatcher.listener
        self.outcomes: list[Any] = []
        self.pages: dict[int, tuple[StatusPage, StatusPageReader]] = {}

    def worker(self, number: int) -> StatusPage:
        page = StatusPage(self._folder)
        reader = StatusPageReader(page.address, self._folder)
        self.pages[number] = page, reader
        self.listener.worker_ready(self.hello(number), reader, 0)
        return page

    def hello(self, number: int) -> Hello:
        return Hello("secret", number, 1000 + number, f"route{number}", "", "")

    def submit(self, count: int = 1) -> WorkItem:
        item = WorkItem(
            function=TaskFunction("f", b"digest", b"code"),
            mode=EACH,
            payload=[b"arguments"],
            count=count,
            on_outcome=lambda *outcome: self.outcomes.append(outcome),
        )
        self.dispatcher.submit(item)
        return item

    def result(self, item: WorkItem, first: int, values: list[Any], *, worker: int = 1, last: bool = True) -> None:
        payload = pickling.dumps(values)
        result = Result(item.number, first, len(values), RETURNED, last, 10, payload)
        self.listener.result(self.hello(worker), result, None)

    def died(self, worker: int, rows: int | None = None) -> list[str]:
        return self.listener.worker_ended(worker, -signal.SIGKILL, False, lambda: SurvivingRows(rows, 1.0))

    def errors(self) -> list[Any]:
        return [(first, count, error) for first, count, _, error in self.outcomes if error is not None]

    def values(self) -> list[Any]:
        return [value for _, _, values, error in self.outcomes if error is None for value in values]

    def close(self) -> None:
        self.dispatcher.terminate()
        for page, reader in self.pages.values():
            reader.close()
            page.close()
        self.sockets.close()


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[_Pool]:
    made = _Pool(tmp_path)
    yield made
    made.close()


@pytest.fixture
def retrying(tmp_path: Path) -> Iterator[_Pool]:
    made = _Pool(tmp_path, retries=2)
    yield made
    made.close()


# --- results ------------------------------------------------------------------------------------------------------


def test_a_task_has_one_outcome_though_a_sink_fails_while_it_runs(pool: _Pool) -> None:
    pool.worker(1)
    item = pool.submit()
    error = mpr.SinkError("full")
    pool.listener.sink_failed(error)
    pool.result(item, 0, ["late"])
    assert pool.outcomes == [(0, 1, None, error)]


def test_a_result_that_comes_twice_counts_once(pool: _Pool) -> None:
    pool.worker(1)
    item = pool.submit(count=3)
    pool.result(item, 0, ["a", "b"], last=False)
    pool.result(item, 0, ["a", "b"], last=False)
    pool.result(item, 2, ["c"])
    pool.result(item, 2, ["c"])
    assert pool.values() == ["a", "b", "c"]


def test_a_worker_cannot_settle_the_task_of_another_one(pool: _Pool) -> None:
    pool.worker(1)
    pool.worker(2)
    item = pool.submit()
    holder = pool.dispatcher._books.workers.holder(item)
    with pytest.raises(MessageError, match="does not have"):
        pool.result(item, 0, ["a"], worker=3 - holder)
    assert pool.outcomes == []


def test_a_worker_that_skips_what_was_not_taken_back_is_refused(pool: _Pool) -> None:
    pool.worker(1)
    item = pool.submit()
    with pytest.raises(MessageError, match="not taken back"):
        pool.listener.skipped(pool.hello(1), Skipped(item.sequence))


# --- deaths -------------------------------------------------------------------------------------------------------


def test_the_task_that_ran_fails_and_all_behind_it_run_elsewhere(pool: _Pool) -> None:
    page = pool.worker(1)
    item, behind = pool.submit(count=3), pool.submit()
    assert page.begin_work_item(item.sequence, 0)
    page.begin(0, 5)
    pool.died(1, rows=7)
    ((first, count, error),) = pool.errors()
    assert (first, count, error.task, error.ended, error.rows) == (0, 1, "f[0]", False, 7)
    assert pool.control.replaced == 1
    pool.worker(2)
    # The first item waits in front, with its other two tasks.
    assert list(pool.dispatcher._books.workers.assigned(2)) == [item]
    pool.result(item, 1, ["b", "c"], worker=2)
    pool.result(behind, 0, ["d"], worker=2)
    assert pool.values() == ["b", "c", "d"]


def test_rows_are_not_counted_for_one_of_several_tasks(pool: _Pool) -> None:
    page = pool.worker(1)
    item = pool.submit(count=3)
    assert page.begin_work_item(item.sequence, 0)
    page.begin(0, 5)
    page.end(0)
    page.begin(1, 5)
    pool.died(1, rows=7)
    found = [(first, error.ended, error.rows) for first, _, error in pool.errors()]
    assert found == [(0, True, None), (1, False, None)]


def test_a_task_runs_again_as_often_as_the_user_wants(retrying: _Pool) -> None:
    item = retrying.submit()
    for attempt in (1, 2, 3):
        page = retrying.worker(attempt)
        assert item.attempt == attempt
        assert page.begin_work_item(item.sequence, 0)
        page.begin(0, 5)
        retrying.died(attempt)
    assert [error.worker for *_, error in retrying.errors()] == [3]


def test_only_tasks_that_run_again_have_a_higher_attempt(retrying: _Pool) -> None:
    page = retrying.worker(1)
    item = retrying.submit(count=4)
    assert page.begin_work_item(item.sequence, 0)
    page.begin(0, 5)
    page.end(0)
    page.begin(1, 5)
    retrying.died(1)
    retrying.worker(2)
    # The first two run for the second time. The others run for the first time.
    assert (item.message().first, item.message().again, item.message().attempt) == (0, 2, 2)
    retrying.result(item, 0, ["a", "b"], worker=2, last=False)
    assert (item.message().first, item.message().again, item.message().attempt) == (2, 0, 1)


# --- ends ---------------------------------------------------------------------------------------------------------


def test_a_cancelled_task_leaves_the_tasks_behind_it_to_others(pool: _Pool) -> None:
    page = pool.worker(1)
    warm = pool.submit()
    assert page.begin_work_item(warm.sequence, 0)
    pool.result(warm, 0, ["warm"])
    # Short tasks are sent ahead, so the worker has all three.
    items = [pool.submit() for _ in range(3)]
    assert list(pool.dispatcher._books.workers.assigned(1)) == items
    assert page.begin_work_item(items[0].sequence, 0)
    page.begin(0, 5)
    assert pool.dispatcher.cancel(items[1], running=True)
    assert [type(error) for *_, error in pool.errors()] == [CancelledError]
    pool.result(items[0], 0, ["a"])
    pool.result(items[2], 0, ["c"])
    assert pool.values() == ["warm", "a", "c"]


def test_a_task_that_comes_when_the_pool_has_ended_has_an_error(pool: _Pool) -> None:
    pool.dispatcher.terminate()
    pool.submit()
    assert [type(error) for *_, error in pool.errors()] == [mpr.PoolTerminatedError]


def test_a_pool_that_is_terminated_twice_gives_each_task_one_error(pool: _Pool) -> None:
    pool.worker(1)
    pool.submit(count=2)
    pool.dispatcher.terminate()
    pool.dispatcher.terminate()
    assert [(first, count) for first, count, _ in pool.errors()] == [(0, 2)]


def test_no_page_is_read_after_the_recording_has_ended(pool: _Pool) -> None:
    pool.worker(1)
    pool.submit()
    assert len(pool.dispatcher.activities()) == 1
    pool.listener.recording_ended()
    # The aggregator has closed the pages.
    for _, reader in pool.pages.values():
        reader.close()
    assert pool.dispatcher.activities() == []
    assert [type(error) for *_, error in pool.errors()] == [mpr.RecordingClosedError]
    for page, _ in pool.pages.values():
        page.close()
    pool.pages.clear()


def test_a_call_of_another_thread_may_come_just_when_the_recording_ends(pool: _Pool) -> None:
    pool.worker(1)
    end = pool.listener.recording_ended

    def submit_first(error: BaseException | None = None) -> None:
        # The recording has ended, and the pool has not yet.
        pool.submit()
        pool.dispatcher.drop_waiting()

    pool.listener._terminate = submit_first  # type: ignore[attr-defined]  # the moment between two locks
    end()
    assert [type(error) for *_, error in pool.errors()] == [CancelledError]

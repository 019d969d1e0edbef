"""Limits of a pool for its tasks and workers: time, memory, and tasks that the user cancels."""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.transport import function_cache
from tests import support, tasks


@pytest.mark.parametrize("hang", [tasks.log_then_sleep, tasks.log_then_hold_the_gil])
def test_a_task_that_takes_too_long_fails_alone(hang: Any, tmp_path: Path) -> None:
    """This holds also for native code that never releases the GIL. Rows that the task had logged are there."""
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, task_timeout=4.0) as pool:
        hung = pool.apply_async(hang, (0,))
        others = [pool.apply_async(tasks.log_number, (number,)) for number in range(1, 5)]
        with pytest.raises(mpr.TaskTimeoutError, match=f"task {hang.__name__} ran for more than 4 s") as caught:
            hung.get(60)
        assert [each.get(60) for each in others] == [1, 2, 3, 4]
        assert pool.apply(tasks.pid) != caught.value.pid
    assert isinstance(caught.value, TimeoutError)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(5))


def test_the_time_is_that_of_each_task_and_not_of_a_chunk(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", task_timeout=4.0) as pool:
        # Together these tasks take longer than the limit. Only the task that hangs fails.
        results = pool.imap(tasks.sleep, [*[0.5] * 10, 1000, 0], chunksize=12)
        assert [next(results) for _ in range(10)] == [0.5] * 10
        with pytest.raises(mpr.TaskTimeoutError, match=r"sleep\[10\]"):
            next(results)
        assert next(results) == 0


def test_a_task_that_waits_for_another_one_is_not_late_because_of_the_one_before(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", task_timeout=4.0) as pool:
        assert pool.map(tasks.sleep, [1.2] * 5, chunksize=1) == [1.2] * 5


@pytest.mark.parametrize("value", [0, -1, "soon", True, float("inf")])
def test_a_bad_task_timeout_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(mpr.ConfigError, match="task_timeout"):
        mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", task_timeout=value)


@pytest.mark.parametrize("options", [{"retries": -1}, {"retries": 1.5}, {"maxmemoryperchild": 10}])
def test_a_bad_limit_is_refused(options: Any, tmp_path: Path) -> None:
    with pytest.raises(mpr.ConfigError, match=next(iter(options))):
        mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", **options)


def test_a_worker_that_has_grown_too_large_is_replaced(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    own = 0
    if start_method == "fork":
        # A forked worker begins with a part of the memory of this process.
        with mpr.Pool("app", 1, sinks=tmp_path / "own.rrd", start_method=start_method) as pool:
            own = pool.apply(tasks.resident_bytes)
    limit = own + 600 * 1024 * 1024
    with mpr.Pool("app", 1, sinks=path, start_method=start_method, maxmemoryperchild=limit) as pool:
        first = [pool.apply(tasks.log_and_keep, (number, 1)) for number in range(3)]
        pids = pool.map(tasks.log_and_keep_much, range(3, 6), chunksize=1)
    assert len(set(first)) == 1
    # The first large task still ran in the first worker. No two large tasks ran in the same worker.
    assert (pids[0], len(set(pids))) == (first[0], 3)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(6))


def test_a_memory_limit_below_the_need_of_an_idle_worker_is_an_error_at_once(tmp_path: Path) -> None:
    pool = mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", maxmemoryperchild=2 * 1024 * 1024)
    with pytest.raises(mpr.ConfigError, match="before its first task"):
        pool.apply(tasks.pid)
    pool.terminate()


def test_tasks_that_no_worker_has_yet_can_be_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        running = pool.submit(tasks.log_then_wait, 0, tmp_path / "started", tmp_path / "go on")
        waiting = [pool.submit(tasks.log_number, number) for number in range(1, 5)]
        support.wait_for((tmp_path / "started").exists)
        assert not running.cancel()
        assert waiting[1].cancel()
        assert waiting[3].cancel()
        (tmp_path / "go on").touch()
        done, _ = concurrent.futures.wait([running, *waiting], 60)
        assert done == {running, *waiting}
        assert [each.cancelled() for each in waiting] == [False, True, False, True]
        with pytest.raises(concurrent.futures.CancelledError):
            waiting[1].result()
    assert support.numbers(path) == Counter([0, 1, 3])


def test_a_task_that_runs_is_cancelled_with_its_worker(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=start_method, retries=3) as pool:
        running = pool.submit(tasks.log_then_wait, 0, tmp_path / "started", tmp_path / "never")
        behind = pool.submit(tasks.log_number, 1)
        support.wait_for((tmp_path / "started").exists)
        assert running.cancel(running=True)
        with pytest.raises(concurrent.futures.CancelledError):
            running.result(60)
        assert running.cancelled()
        assert not running.cancel(running=True)
        assert behind.result(60) == 1
    support.check_file(path)
    assert set(support.numbers(path)) - {0} == {1}


def test_tasks_behind_a_long_task_run_in_a_free_worker(tmp_path: Path) -> None:
    """A worker is sent many tiny tasks at a time. A long task among them delays none of the others."""
    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd") as pool:
        for _ in range(5):
            pool.map(tasks.square, range(200), chunksize=1)
            go_on = tmp_path / "go on"
            results = [pool.apply_async(tasks.square, (number,)) for number in range(50)]
            long = pool.apply_async(tasks.wait_for_file, (go_on,))
            results += [pool.apply_async(tasks.square, (number,)) for number in range(50, 100)]
            assert [each.get(60) for each in results] == [number * number for number in range(100)]
            go_on.touch()
            long.get(60)
            go_on.unlink()


def test_the_executor_of_a_pool_works_as_one_of_concurrent_futures(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool, pool.executor as executor:
        futures = {executor.submit(tasks.log_number, number): number for number in range(5)}
        for future in concurrent.futures.as_completed(futures, 60):
            assert future.result() == futures[future]
        assert list(executor.map(tasks.add, range(10), range(10), chunksize=3)) == [2 * each for each in range(10)]
    with pytest.raises(RuntimeError, match="closed"):
        executor.submit(tasks.pid)
    assert support.numbers(path) == Counter(range(5))


def test_an_executors_map_reads_no_further_than_its_buffer(tmp_path: Path) -> None:
    read: list[int] = []

    def endless() -> Any:
        number = 0
        while True:
            read.append(number)
            yield number
            number += 1

    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd") as pool:
        results = pool.executor.map(tasks.square, endless(), buffersize=5)
        assert [next(results) for _ in range(10)] == [number * number for number in range(10)]
        assert len(read) == 15
        results.close()  # type: ignore[attr-defined]  # a generator, as with every executor


def test_an_error_in_a_chunk_is_that_of_its_task_alone(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        results = pool.imap(tasks.raise_if_odd, range(6), chunksize=6)
        found: list[Any] = []
        for _ in range(6):
            try:
                found.append(next(results))
            except ValueError as error:
                found.append(str(error))
        assert found == [0, "1 is odd", 2, "3 is odd", 4, "5 is odd"]
        with pytest.raises(StopIteration):
            next(results)
        with pytest.raises(multiprocessing.TimeoutError):
            pool.apply_async(tasks.sleep, (0.5,)).get(0.001)


def test_callbacks_of_a_future_run_in_no_thread_of_the_caller(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        called = threading.Event()
        future = pool.submit(tasks.sleep, 0.2)
        future.add_done_callback(lambda _: called.set())
        assert called.wait(60)


def test_cancelled_tasks_do_not_count_for_maxtasksperchild(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", maxtasksperchild=1) as pool:
        for number in range(20):
            pool.submit(tasks.square, number).cancel(running=True)
        assert pool.submit(tasks.square, 3).result(60) == 9


def test_a_call_whose_input_outlasts_the_pool_raises_pool_closed_error(tmp_path: Path) -> None:
    pool = mpr.Pool("app", 1, sinks=tmp_path / "run.rrd")
    begun, closed = threading.Event(), threading.Event()
    caught: list[BaseException] = []

    def items() -> Any:
        begun.set()
        closed.wait(60)
        yield 1

    def call() -> None:
        try:
            pool.map(tasks.square, items())
        except mpr.PoolClosedError as error:
            caught.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert begun.wait(60)
    pool.close()
    pool.join()
    closed.set()
    caller.join(60)
    assert not caller.is_alive()
    assert len(caught) == 1


def test_a_timeout_in_a_chunk_costs_no_task_before_it(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", task_timeout=4.0) as pool:
        results = pool.imap(tasks.sleep, [0, 0, 0, 1000, 0], chunksize=5)
        assert [next(results) for _ in range(3)] == [0, 0, 0]
        with pytest.raises(mpr.TaskTimeoutError, match=r"sleep\[3\]"):
            next(results)
        assert next(results) == 0


def test_each_task_of_a_chunk_has_its_own_retries(tmp_path: Path) -> None:
    markers = [tmp_path / name for name in ("one", "two", "three")]
    items = [(number, markers[number // 2]) for number in range(6)]
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", retries=1) as pool:
        # Tasks 0, 2 and 4 kill the worker once.
        pool.starmap(tasks.die_once, items, chunksize=6)
    assert all(marker.exists() for marker in markers)


def test_a_worker_keeps_only_the_functions_that_were_used_last(tmp_path: Path) -> None:
    """New functions in each call do not fill its memory, and a function that was dropped works again."""
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        functions = [functools.partial(tasks.keep_alive, tasks.Tracked(number)) for number in range(200)]
        for sequence in (functions, functions[:5], functions[::-1]):
            assert [pool.apply(each) for each in sequence] == [each.args[0].number for each in sequence]
        assert pool.apply(tasks.count_tracked) <= function_cache.FUNCTIONS_KEPT

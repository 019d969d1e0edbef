"""What a pool can do beyond `multiprocessing.Pool`: errors among results, time limits of a call, coroutines."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

import mpr
from tests import support, tasks

_FAR = 10**6


@pytest.fixture(params=["workers", "engine"])
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "workers":
        yield None
    else:
        with ProcessPoolExecutor(2, multiprocessing.get_context("forkserver")) as executor:
            yield executor


def _sum(first: int, second: int = 0) -> int:
    return tasks.log_number(first + second)


def _wait(marker: Path) -> int:
    support.wait_for(marker.exists)
    return tasks.log_number(1)


def _log_pid_and_stay(folder: Path) -> None:
    tasks.log_number(_FAR)
    rr.get_data_recording().flush()
    (folder / str(os.getpid())).touch()
    time.sleep(3600)


def _pids(folder: Path) -> list[int]:
    return [int(each.name) for each in folder.iterdir()]


# --- maps -------------------------------------------------------------------------------------------------------------


def test_a_map_returns_the_errors_of_its_tasks_in_order(tmp_path: Path, engine: Any) -> None:
    with mpr.Pool("app", sinks=tmp_path / "run.rrd", engine=engine) as pool:
        for chunksize in (1, 3, None):
            results = pool.map(tasks.raise_if_odd, range(7), chunksize, return_exceptions=True)
            assert [0, 2, 4, 6] == results[::2]
            assert ["1 is odd", "3 is odd", "5 is odd"] == [str(each) for each in results[1::2]]
            notes = [each.__notes__[0] for each in results[1::2] if isinstance(each, ValueError)]
            for number, note in zip((1, 3, 5), notes, strict=True):
                assert f"raise_if_odd[{number}]" in note
        assert pool.map(tasks.raise_if_odd, [], return_exceptions=True) == []
        done: list[Any] = []
        pool.starmap_async(_sum, [(1, 2), (1, 2, 3)], 1, done.append, done.append, return_exceptions=True).wait()
        assert done[0][0] == 3
        assert isinstance(done[0][1], TypeError)
        with pytest.raises(ValueError, match="1 is odd"):
            pool.map(tasks.raise_if_odd, [1], return_exceptions=False)
    assert support.numbers(tmp_path / "run.rrd") == {3: 1}
    support.check_file(tmp_path / "run.rrd")


def test_a_worker_that_dies_is_an_error_among_the_results(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        first, died, last = pool.map(tasks.log_slowly_or_die, [1, -2, 3], 3, return_exceptions=True)
        assert (first, last) == (1, 3)
        assert isinstance(died, mpr.WorkerDiedError)
        assert "log_slowly_or_die[1]" in str(died)
    assert support.numbers(tmp_path / "run.rrd") == {1: 1, -2: 1, 3: 1}
    support.check_file(tmp_path / "run.rrd")


def test_the_items_of_a_starmap_may_be_dicts(tmp_path: Path, engine: Any) -> None:
    with mpr.Pool("app", sinks=tmp_path / "run.rrd", engine=engine) as pool:
        assert [3, 5, 9] == pool.starmap(_sum, [{"first": 1, "second": 2}, (5,), {"first": 9}], 1)
        assert {each.arguments for each in pool.insights().slowest} == {"first=1, second=2", "5", "first=9"}
        with pytest.raises(TypeError, match="unexpected keyword") as caught:
            pool.starmap(_sum, [{"third": 1}])
        assert "_sum(third=1)" in caught.value.__notes__[0]
    assert support.numbers(tmp_path / "run.rrd") == {3: 1, 5: 1, 9: 1}


def test_a_map_that_takes_too_long_drops_what_has_not_begun(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        pool.apply(tasks.pid)
        with pytest.raises(multiprocessing.TimeoutError, match=r"not ended within 0.05 s.*were cancelled"):
            pool.map(_wait, [marker] * 50, 1, timeout=0.05)
        marker.touch()
        assert pool.map(tasks.square, [3], timeout=600) == [9]
    rows = support.numbers(tmp_path / "run.rrd").get(1, 0)
    # The worker had got some of the tasks already.
    assert rows < 50
    support.check_file(tmp_path / "run.rrd")


def test_a_map_is_cancelled_also_where_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()
    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd") as pool:
        result = pool.map_async(_log_pid_and_stay, [folder] * 20, 1)
        support.wait_for(lambda: len(_pids(folder)) == 2)
        assert result.cancel(running=True)
        with pytest.raises(CancelledError):
            result.get(60)
        assert not result.cancel(running=True)
        support.wait_for(lambda: not any(map(support.lives, _pids(folder))))
        assert len(_pids(folder)) == 2
        assert pool.map(tasks.square, range(4)) == [0, 1, 4, 9]
    assert support.numbers(tmp_path / "run.rrd") == {_FAR: 2}
    support.check_file(tmp_path / "run.rrd")


# --- worker_exit ------------------------------------------------------------------------------------------------------


def _leave() -> None:
    tasks.log_number(_FAR)


def _leave_badly() -> None:
    tasks.log_number(_FAR)
    raise SystemExit("the camera is gone")


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_each_worker_calls_worker_exit_after_its_last_task(tmp_path: Path, method: Any) -> None:
    script = f"""
import sys, mpr
from tests import tasks
from tests.test_pool_calls import _leave

if __name__ == "__main__":
    with mpr.Pool("app", 1, maxtasksperchild=2, sinks=sys.argv[1], worker_exit=_leave, start_method={method!r}) as pool:
        pool.map(tasks.log_number, range(4), 1)
        # The replacement of the second worker runs a task, too, so three workers end.
        pool.apply(tasks.log_number, (4,))
"""
    done = support.run_python(script, tmp_path / "run.rrd")
    assert done.returncode == 0, done.stderr
    assert support.numbers(tmp_path / "run.rrd") == {**dict.fromkeys(range(5), 1), _FAR: 3}
    support.check_file(tmp_path / "run.rrd")


def test_an_error_of_worker_exit_is_in_the_recording(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", worker_exit=_leave_badly) as pool:
        assert pool.map(tasks.log_number, range(3)) == [0, 1, 2]
    assert support.numbers(tmp_path / "run.rrd") == {0: 1, 1: 1, 2: 1, _FAR: 1}
    (text,) = [each for each in support.texts(tmp_path / "run.rrd") if "the camera is gone" in each.text]
    assert (text.entity, text.level) == ("/mpr/tasks/_leave_badly", "ERROR")
    support.check_file(tmp_path / "run.rrd")


def test_a_pool_that_is_terminated_does_not_call_worker_exit(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", worker_exit=_leave) as pool:
        pool.map(tasks.log_number, range(3))
        pool.terminate()
    assert support.numbers(tmp_path / "run.rrd") == {0: 1, 1: 1, 2: 1}


def test_a_wrong_worker_exit_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="worker_exit must be callable, got 7"):
        mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", worker_exit=7)  # type: ignore[arg-type]
    with pytest.raises(mpr.UnpicklableTaskError, match="worker_exit cannot be sent to a worker"):
        mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", worker_exit=threading.Lock().release)
    assert not (tmp_path / "run.rrd").exists()


# --- coroutines -------------------------------------------------------------------------------------------------------


def test_a_coroutine_waits_for_results_and_for_the_end(tmp_path: Path, engine: Any) -> None:
    marker = tmp_path / "marker"

    async def touch() -> None:
        marker.touch()

    async def work() -> Any:
        async with mpr.Pool("app", sinks=tmp_path / "run.rrd", engine=engine) as pool:
            # The task ends only if the event loop runs the other coroutine meanwhile.
            waits = asyncio.ensure_future(pool.submit(_wait, marker))
            results = [(await asyncio.gather(waits, touch()))[0]]
            results += await pool.map_async(tasks.log_number, [2, 3])
            results.append(await asyncio.wait_for(pool.apply_async(tasks.log_number, (4,)), 60))
            with pytest.raises(ValueError, match="1 is odd"):
                await pool.map_async(tasks.raise_if_odd, [1])
            with pytest.raises(ValueError, match="1 is odd"):
                await pool.submit(tasks.raise_if_odd, 1)
            marker.unlink()
            last = pool.map_async(_wait, [marker])
            leaving = asyncio.ensure_future(touch())
        # Leaving the block has let the other coroutine run, or the last task would not have ended.
        await leaving
        return results + last.get(0)

    assert asyncio.run(work()) == [1, 2, 3, 4, 1]
    assert support.numbers(tmp_path / "run.rrd") == {1: 2, 2: 1, 3: 1, 4: 1}
    support.check_file(tmp_path / "run.rrd")


@pytest.mark.parametrize("call", ["submit", "map_async"])
def test_cancelling_the_wait_ends_the_task(tmp_path: Path, call: str) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()

    async def work() -> None:
        async with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
            if call == "submit":
                waits: Any = asyncio.ensure_future(pool.submit(_log_pid_and_stay, folder))
            else:
                waits = asyncio.ensure_future(pool.map_async(_log_pid_and_stay, [folder] * 9, 1))
            await asyncio.to_thread(support.wait_for, lambda: any(map(support.lives, _pids(folder))))
            waits.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits
            await asyncio.to_thread(support.wait_for, lambda: not any(map(support.lives, _pids(folder))))
            assert await pool.map_async(tasks.log_number, [5]) == [5]

    asyncio.run(work())
    assert support.numbers(tmp_path / "run.rrd")[5] == 1
    support.check_file(tmp_path / "run.rrd")


def test_a_block_that_is_cancelled_while_it_ends_kills_the_workers(tmp_path: Path) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()

    async def work() -> None:
        async with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
            pool.apply_async(_log_pid_and_stay, (folder,))
            await asyncio.to_thread(support.wait_for, lambda: _pids(folder))

    async def cancel() -> None:
        running = asyncio.ensure_future(work())
        await asyncio.to_thread(support.wait_for, lambda: _pids(folder))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancel())
    assert not any(map(support.lives, _pids(folder)))
    assert support.numbers(tmp_path / "run.rrd") == {_FAR: 1}
    support.check_file(tmp_path / "run.rrd")

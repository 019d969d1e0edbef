"""A wrapped function has the process only while it runs. Plain functions there see what is theirs."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.transport import connection_info
from tests import functions, guests, support, tasks

# Python warns of `fork` in a process with threads since 3.12. These tests show that it works all the same.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

_TIMEOUT_SECS = 60
_OWN = ("own", None)
MB = 1_000_000


class _Engine:
    """One worker that mpr did not start, and that knows no recording."""

    def __init__(self, start_method: str) -> None:
        context: Any = multiprocessing.get_context(start_method)
        self._executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=context)
        self.run(tasks.pid)

    def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        return self._executor.submit(function, *args, **kwargs).result(_TIMEOUT_SECS)

    def close(self) -> None:
        self._executor.shutdown()


@pytest.fixture
def engine(start_method: str) -> Iterator[_Engine]:
    made = _Engine(start_method)
    yield made
    made.close()


@pytest.fixture
def spawned() -> Iterator[_Engine]:
    made = _Engine("spawn")
    yield made
    made.close()


def _numbers_of_unfinished(path: Path, entity: str = "/n") -> Counter[int]:
    """Return the numbers in a file without an end, such as a file of the worker's own."""
    with support.whole_frames_of(path) as copy:
        return support.numbers(copy, entity)


def test_plain_tasks_before_between_and_after_see_what_is_theirs(engine: _Engine, tmp_path: Path) -> None:
    assert engine.run(guests.current) == (None, None)
    assert engine.run(guests.log_own, 0) == (None, None)
    for run in ("first", "second"):
        with mpr.SharedRecording("app", sinks=tmp_path / f"{run}.rrd", recording_id=run) as recording:
            wrapped = recording.wrap(guests.work)
            assert engine.run(wrapped, 0) == (run, True)
            # The worker has no recording of its own yet. Then it has one.
            assert engine.run(guests.current) == ((None, None) if run == "first" else _OWN)
            engine.run(guests.begin_own, tmp_path / f"own-{run}.rrd")
            assert engine.run(guests.log_own, 1) == _OWN
            assert engine.run(wrapped, 1) == (run, True)
            assert support.numbers_of_growing(tmp_path / f"{run}.rrd") == Counter([0, 1])
            with pytest.raises(ValueError, match="task 2 failed"):
                engine.run(recording.wrap(guests.fail), 2)
            assert engine.run(guests.log_own, 2) == _OWN
            # A decorated function finds no recording to join, and says nothing.
            assert engine.run(guests.log_decorated, 3) == ""
            engine.run(recording.wrap(guests.change_everything), 3)
            assert engine.run(guests.log_own, 4) == _OWN
        assert engine.run(guests.log_own, 5) == _OWN
        assert engine.run(guests.log_decorated, 6) == ""
        with pytest.raises(mpr.RecordingClosedError):
            engine.run(wrapped, 9)
        assert engine.run(guests.log_own, 7) == _OWN
    engine.close()
    for run in ("first", "second"):
        support.check_file(tmp_path / f"{run}.rrd")
        assert support.numbers(tmp_path / f"{run}.rrd") == Counter([0, 1, 2, 3])
        assert support.numbers(tmp_path / f"{run}.rrd", "/thread") == Counter([0, 1, 2])
        assert _numbers_of_unfinished(tmp_path / f"own-{run}.rrd") == Counter([1, 2, 3, 4, 5, 6, 7])
        assert _numbers_of_unfinished(tmp_path / f"own-{run}.rrd", "/thread") == Counter([1, 2, 4, 5, 7])


def test_rr_init_of_a_plain_task_is_its_own(spawned: _Engine, tmp_path: Path) -> None:
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd", recording_id="run") as recording:
        assert spawned.run(recording.wrap(guests.work), 0) == ("run", True)
        assert spawned.run(guests.init_and_log, 1, tmp_path / "own.rrd") == _OWN
        assert spawned.run(recording.wrap(guests.work), 2) == ("run", True)
        assert spawned.run(guests.log_own, 3) == _OWN
    assert support.numbers(tmp_path / "run.rrd") == Counter([0, 2])
    assert _numbers_of_unfinished(tmp_path / "own.rrd") == Counter([1, 3])


def test_the_recording_of_the_thread_stays(spawned: _Engine, tmp_path: Path) -> None:
    spawned.run(guests.begin_own, tmp_path / "own.rrd", of_thread=True)
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd", recording_id="run") as recording:
        assert spawned.run(recording.wrap(guests.work), 0) == ("run", True)
        assert spawned.run(guests.log_own, 1) == _OWN
        spawned.run(recording.wrap(guests.change_everything), 2)
        assert spawned.run(guests.log_own, 3) == _OWN
    assert support.numbers(tmp_path / "run.rrd") == Counter([0, 2])
    assert _numbers_of_unfinished(tmp_path / "own.rrd") == Counter([1, 3])


def test_children_of_a_wrapped_function_join(spawned: _Engine, tmp_path: Path) -> None:
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        spawned.run(recording.wrap(guests.work_with_child), 1)
        assert spawned.run(guests.current) == (None, None)
    assert support.numbers(tmp_path / "run.rrd", "/child") == Counter([1])


def test_calls_of_two_recordings_at_the_same_time(spawned: _Engine, tmp_path: Path) -> None:
    spawned.run(guests.begin_own, tmp_path / "own.rrd")
    recordings = {run: mpr.SharedRecording("app", sinks=tmp_path / f"{run}.rrd", recording_id=run) for run in "ab"}
    first, second = (each.wrap(guests.wait_in_turn) for each in recordings.values())
    assert spawned.run(guests.overlap, first, second) == ["own", "a", "b", "own"]
    # The same recording twice.
    assert spawned.run(guests.overlap, first, first) == ["own", "a", "a", "own"]
    assert spawned.run(guests.current) == _OWN
    for each in recordings.values():
        each.close()
    assert support.numbers(tmp_path / "a.rrd") == Counter([10, 11, 10, 11, 20, 21])
    assert support.numbers(tmp_path / "b.rrd") == Counter([20, 21])


def test_generators_and_coroutines(spawned: _Engine, tmp_path: Path) -> None:
    spawned.run(guests.begin_own, tmp_path / "own.rrd")
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path, recording_id="run") as recording:
        assert spawned.run(guests.between_steps, recording.wrap(guests.steps)) == [_OWN] * 2
        assert support.numbers_of_growing(path) == Counter([0, 1])
        assert spawned.run(guests.between_values, recording.wrap(guests.stream)) == [_OWN] * 2
        assert spawned.run(guests.gather, recording.wrap(guests.later)) == ["run"] * 3
        assert spawned.run(guests.log_own, 5) == _OWN
    support.check_file(path)
    assert support.numbers(path) == Counter([0, 1, 0, 1, 0, 1, 2])
    # Threads log for a coroutine while it waits.
    assert support.numbers(path, "/thread") == Counter([0, 1, 0, 1, 2])
    assert _numbers_of_unfinished(tmp_path / "own.rrd") == Counter([100, 101, 100, 101, 5])


def test_a_thread_that_goes_on_after_the_function(spawned: _Engine, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path, recording_id="run") as recording:
        wrapped = recording.wrap(guests.leave_a_thread)
        spawned.run(wrapped, 10)
        # What it had logged is there. What it logs then is lost, and mpr says that.
        assert _numbers_of_unfinished(path, "/thread") == Counter([10])
        (text,) = spawned.run(guests.let_the_thread_go_on)
        assert text.startswith("thread 'left' was started while a function of SharedRecording.wrap ran")
        # If a recording is current, the row goes there.
        spawned.run(guests.begin_own, tmp_path / "own.rrd")
        spawned.run(wrapped, 20)
        assert spawned.run(guests.let_the_thread_go_on) == []
        assert spawned.run(guests.log_own, 1) == _OWN
    assert support.numbers(path, "/thread") == Counter([10, 20])
    assert _numbers_of_unfinished(tmp_path / "own.rrd", "/thread") == Counter([21, 1])


def test_a_stream_as_an_argument_changes_nothing_else(spawned: _Engine, tmp_path: Path) -> None:
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        assert spawned.run(guests.own_id, recording.stream) == (None, None)
    spawned.close()
    assert support.numbers(tmp_path / "run.rrd") == Counter([7])


def test_a_process_that_has_joined_goes_on_with_its_recording(tmp_path: Path) -> None:
    joined = mpr.SharedRecording("app", sinks=tmp_path / "joined.rrd", recording_id="joined")
    other = mpr.SharedRecording("app", sinks=tmp_path / "other.rrd", recording_id="other")
    with joined:
        engine = _Engine("spawn")
        seen = engine.run(guests.join_then_call, other.wrap(guests.work), (1, 2, 3))
        assert seen == (("other", True), "joined")
        engine.close()
    other.close()
    assert support.numbers(tmp_path / "joined.rrd") == Counter([1, 3])
    assert support.numbers(tmp_path / "other.rrd") == Counter([2])
    assert support.numbers(tmp_path / "other.rrd", "/thread") == Counter([2])


def test_a_recording_that_is_closed_and_left_during_a_call_takes_no_rows_and_no_memory_afterwards(
    tmp_path: Path,
) -> None:
    second = mpr.SharedRecording("app", sinks=tmp_path / "second.rrd", recording_id="second")
    third = mpr.SharedRecording("app", sinks=tmp_path / "third.rrd", recording_id="third")
    with mpr.SharedRecording("app", sinks=tmp_path / "joined.rrd", recording_id="joined"):
        engine = _Engine("spawn")
        engine.run(guests.join_and_begin_a_call, second.wrap(guests.wait_in_turn))
    # Joining the third recording, the process leaves the first one, because it is closed.
    (text,), grown = engine.run(guests.end_the_call, third.wrap(tasks.log_number))
    assert "logs to Rerun when it has left the recording" in text
    assert grown < 60 * MB
    engine.close()
    for recording in (second, third):
        recording.close()
    assert support.numbers(tmp_path / "second.rrd") == Counter([1, 2])
    assert support.numbers(tmp_path / "third.rrd") == Counter([3])


def _call_and_look(wrapped: Any, number: int) -> Any:
    tasks.log_number(number)
    return wrapped(number + 1), os.environ[connection_info.VARIABLE]


def test_a_worker_of_a_pool_goes_on_with_its_recording(tmp_path: Path) -> None:
    other = mpr.SharedRecording("app", sinks=tmp_path / "other.rrd", recording_id="other")
    with other, mpr.Pool("app", 1, sinks=tmp_path / "pool.rrd", recording_id="pool") as pool:
        for number in (1, 3):
            found, variable = pool.apply(_call_and_look, (other.wrap(guests.work), number))
            assert found == ("other", True)
            assert '"recording_id": "pool"' in variable
    assert support.numbers(tmp_path / "pool.rrd") == Counter([1, 3])
    assert support.numbers(tmp_path / "pool.rrd", "/thread") == Counter([2, 4])
    assert support.numbers(tmp_path / "other.rrd") == Counter([2, 4])


def test_rr_init_in_a_wrapped_function_of_another_recording_keeps_the_recording_of_the_task(tmp_path: Path) -> None:
    with mpr.SharedRecording("other", sinks=tmp_path / "other.rrd", recording_id="other") as recording:
        wrapped = recording.wrap(guests.init_and_log_wrapped)
        with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
            pool.apply(guests.log_around, (wrapped,))
    for name, numbers in (("run", [0, 2]), ("other", [1])):
        support.check_file(tmp_path / f"{name}.rrd")
        assert support.numbers(tmp_path / f"{name}.rrd") == Counter(numbers)
    assert support.numbers(tmp_path / "run.rrd", "/thread") == Counter([3])


def test_a_decorated_function_after_the_recording_is_closed_says_so_once(spawned: _Engine, tmp_path: Path) -> None:
    """Also if its process has joined the recording before."""
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        assert executor.submit(functions.log_number, 1).result(_TIMEOUT_SECS) == 1
        del recording
    with executor:
        assert "is closed, or its process has ended" in executor.submit(guests.log_decorated, 2).result(_TIMEOUT_SECS)
        assert executor.submit(guests.log_decorated, 3).result(_TIMEOUT_SECS) == ""
    assert support.numbers(tmp_path / "run.rrd") == Counter([1])


_OUTLIVES = """
import pickle, sys
for line in sys.stdin:
    function, argument = pickle.loads(bytes.fromhex(line))
    print(function(argument), flush=True)
"""


def test_a_worker_that_outlives_the_recording_says_nothing_at_its_exit(tmp_path: Path) -> None:
    """All its rows are there, so nothing is lost."""
    import cloudpickle

    engine = subprocess.Popen(
        [sys.executable, "-c", _OUTLIVES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert engine.stdin is not None
    assert engine.stdout is not None
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        engine.stdin.write(cloudpickle.dumps((recording.wrap(tasks.log_number), 1)).hex() + "\n")
        engine.stdin.flush()
        assert engine.stdout.readline() == "1\n"
    _, errors = engine.communicate(timeout=_TIMEOUT_SECS)
    assert errors == ""
    assert support.numbers(tmp_path / "run.rrd") == Counter([1])


def test_decorated_functions_in_other_threads_keep_the_inherited_recording(tmp_path: Path) -> None:
    other = mpr.SharedRecording("app", sinks=tmp_path / "other.rrd", recording_id="other")
    with other, mpr.SharedRecording("app", sinks=tmp_path / "own.rrd", recording_id="own"):
        engine = _Engine("spawn")
        engine.run(guests.decorated_beside_wrapped, other.wrap(guests.let_others_log))
        engine.close()
    for name, numbers in (("own", [1, 2, 3]), ("other", [10, 11])):
        support.check_file(tmp_path / f"{name}.rrd")
        assert support.numbers(tmp_path / f"{name}.rrd") == Counter(numbers)


_IN_THE_PARENT = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
import mpr, rerun as rr

def log(number):
    rr.log("n", rr.Scalars(number))

def work(number):
    log(number)
    rr.init("of the task", strict=True)
    log(number + 1)
    rr.init("of the task", default_enabled=False)
    log(-1)

def choose(number):
    rr.set_global_data_recording(rr.RecordingStream("dropped"))
    rr.set_global_data_recording(own)
    log(number)
    log(number + 1)

decorated = mpr.task(work)

@mpr.task
def generated():
    work(20)
    yield
    log(-1)

@mpr.task
async def awaited():
    log(30)
    rr.init("of the task")
    await asyncio.sleep(0)
    log(31)

own = rr.RecordingStream("own", default_enabled=False)
rr.init("of the caller", recording_id="of the caller")
rr.save("caller.rrd")
with mpr.SharedRecording("app", sinks="run.rrd") as recording:
    log(100)
    decorated(0)
    log(101)
    recording.wrap(work)(10)
    log(102)
    for _ in generated():
        log(103)
    log(104)
    asyncio.run(awaited())
    log(105)
    mpr.task(choose)(60)
    recording.wrap(choose)(70)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(decorated, 40).result()
        threads.submit(log, 106).result()
    assert rr.get_recording_id() == "of the caller"
    assert not rr.strict_mode()
with ThreadPoolExecutor(1) as threads, mpr.Pool("app", sinks="pool.rrd", engine=threads) as pool:
    pool.apply(work, (50,))
    log(107)
"""


def test_what_was_current_is_current_again_after_a_task_in_the_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rr.init` and `rr.set_global_data_recording` of the task are undone. Threads log to the caller's recording."""
    monkeypatch.chdir(tmp_path)
    finished = support.run_python(_IN_THE_PARENT)
    assert finished.returncode == 0, finished.stderr
    found = {
        "run": [number + step for number in (0, 10, 20, 30, 40, 60, 70) for step in (0, 1)],
        "pool": [50, 51],
        "caller": range(100, 108),
    }
    for name, numbers in found.items():
        support.check_file(tmp_path / f"{name}.rrd")
        assert support.numbers(tmp_path / f"{name}.rrd") == Counter(numbers)

"""`mpr.Pool(engine=...)`: another engine runs the tasks. The calls, rows and errors are those of other pools."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

import mpr
from mpr.errors import ConfigError, PoolClosedError, PoolTerminatedError, UnpicklableTaskError, WorkerDiedError
from tests import functions, support

_ROOT = Path(__file__).parent.parent
_EXECUTORS = ("spawn", "forkserver", "fork", "threads", "loky")


@contextlib.contextmanager
def _engine(name: str) -> Iterator[Any]:
    """Make a value for `engine=`."""
    if name in ("ray", "dask"):
        module = pytest.importorskip({"ray": "ray", "dask": "distributed"}[name], reason=f"{name} is not installed")
        if name == "ray":
            module.init(num_cpus=2, include_dashboard=False)
            yield "ray"
            module.shutdown()
        else:
            options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
            with module.LocalCluster(**options) as cluster, module.Client(cluster) as client:
                yield client
    elif name == "threads":
        with ThreadPoolExecutor(2) as threads:
            yield threads
    elif name == "loky":
        loky = pytest.importorskip("joblib.externals.loky")
        executor = loky.get_reusable_executor(2)
        yield executor
        executor.shutdown(wait=True)
        # loky keeps the process that looks after its semaphores. Its own tests end it in this way.
        from joblib.externals.loky.backend.resource_tracker import _resource_tracker

        _resource_tracker._stop()
    else:
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(name)) as processes:
            yield processes


@pytest.fixture(scope="module", params=[*_EXECUTORS, "dask", "ray"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        # The workers of Ray and Dask import the tests.
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        # Without this, Ray writes a token into the home of the user.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        with _engine(request.param) as made:
            if isinstance(made, Executor):
                # The workers start now, because each test ends with a census of processes and threads.
                list(made.map(functions.meet, [tmp_path_factory.mktemp("meeting")] * 2))
            yield made


# --- tasks of one chunk ----------------------------------------------------------------------------------------------


def _set_time(folder: Path) -> None:
    rr.set_time("frame", sequence=7)


def _set_strict(folder: Path) -> None:
    rr.set_strict_mode(not rr.strict_mode())


def _enter_own_stream(folder: Path) -> None:
    rr.set_thread_local_data_recording(_own(folder))


def _make_own_global(folder: Path) -> None:
    rr.set_global_data_recording(_own(folder))


def _init(folder: Path) -> None:
    rr.init("other", spawn=False)
    rr.set_time("frame", sequence=8)


def _switch_log_time_off(folder: Path) -> None:
    rr.set_log_time_enabled(False)


def _raise(folder: Path) -> None:
    rr.set_time("frame", sequence=9)
    raise LookupError("this task")


def _own(folder: Path) -> rr.RecordingStream:
    own = rr.RecordingStream("own")
    own.save(folder / f"{own.get_recording_id()}.rrd")
    return own


_CHANGES = [_set_time, _set_strict, _enter_own_stream, _make_own_global, _init, _switch_log_time_off, _raise]


def _change_or_look(item: tuple[int, Path]) -> tuple[bool, int]:
    """In every second task, change what belongs to the SDK. In the others, return what is seen of it, and log a row."""
    task = mpr.current_task()
    assert task is not None
    number, folder = item
    if number % 2 == 0:
        _CHANGES[number // 2](folder)
    rr.log("n", rr.Scalars(float(number)))
    return rr.strict_mode(), task.index


def test_the_tasks_of_one_chunk_see_nothing_of_each_other(engine: Any, tmp_path: Path) -> None:
    path, others = tmp_path / "run.rrd", tmp_path / "others"
    others.mkdir()
    items = [(number, others) for number in range(2 * len(_CHANGES))]
    seen = []
    with mpr.Pool("app", engine=engine, sinks=path) as pool:
        results = pool.imap(_change_or_look, items, chunksize=len(items))
        for number in range(len(items)):
            if number == 2 * _CHANGES.index(_raise):
                with pytest.raises(LookupError, match="this task"):
                    next(results)
            else:
                seen.append(next(results))
    looks = range(1, len(items), 2)
    assert [each for each in seen if each[1] % 2] == [(seen[0][0], number) for number in looks]
    support.check_file(path)
    # One of the tasks that change something logs into a recording of its own, and one raises before it logs.
    gone = {2 * _CHANGES.index(each) for each in (_enter_own_stream, _raise)}
    assert support.numbers(path) == Counter(number for number, _ in items if number not in gone)
    timelines = _timelines(path)
    assert [timelines[number] for number in looks] == [{"log_time"}] * len(looks)
    assert "frame" in timelines[0]
    assert any("this task" in str(text) for text in support.texts(path))


def _timelines(path: Path) -> dict[int, set[str]]:
    """Return the timelines of each row of the entity `n`, by the number that the row holds."""
    found: dict[int, set[str]] = {}
    for chunk in support.chunks(path):
        batch = chunk.to_record_batch()
        if str(chunk.entity_path) == "/n":
            names = {field.name for field in batch.schema if field.metadata[b"rerun:kind"] == b"index"}
            found |= {int(number): names for (number,) in batch.column("Scalars:scalars").to_pylist()}
    return found


# --- calls -----------------------------------------------------------------------------------------------------------


def _is_threads(engine: Any) -> bool:
    return isinstance(engine, ThreadPoolExecutor)


def test_every_call_has_its_result_and_its_rows(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", engine=engine, sinks=path) as pool:
        assert pool.map(functions.log_number, range(10)) == list(range(10))
        assert list(pool.imap(functions.log_number, iter(range(10, 15)), chunksize=2)) == list(range(10, 15))
        assert sorted(pool.imap_unordered(functions.log_number, range(15, 20))) == list(range(15, 20))
        assert pool.starmap(functions.log_number, [(20,), (21,)]) == [20, 21]
        assert pool.apply(functions.log_number, (22,)) == 22
        assert pool.apply_async(functions.log_number, (23,)).get(60) == 23
        assert pool.submit(functions.log_number, 24).result(60) == 24
        assert list(pool.executor.map(functions.log_number, [25, 26], chunksize=2)) == [25, 26]
        # The recording is still open.
        with support.whole_frames_of(path) as copy:
            assert support.numbers(copy) == Counter(range(27))
    support.check_file(path)
    assert support.numbers(path) == Counter(range(27))


def _fail(number: int) -> int:
    rr.log("n", rr.Scalars(float(number)))
    if number % 2:
        raise LookupError(f"odd: {number}")
    return number


def test_an_error_is_that_of_its_task_and_rows_stay(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    errors: list[BaseException] = []
    with mpr.Pool("app", engine=engine, sinks=path) as pool:
        with pytest.raises(LookupError, match="odd: 1") as caught:
            pool.map(_fail, range(4), chunksize=4)
        assert "in _fail" in str(caught.value.__cause__)
        results = pool.imap(_fail, range(4, 7))
        assert next(results) == 4
        with pytest.raises(LookupError, match="odd: 5"):
            next(results)
        assert next(results) == 6
        failed = pool.apply_async(_fail, (7,), error_callback=errors.append)
        with pytest.raises(LookupError, match="odd: 7"):
            failed.get(60)
        with pytest.raises(UnpicklableTaskError, match="argument"):
            pool.map(_fail, [threading.Lock()])
    assert [str(error) for error in errors] == ["odd: 7"]
    support.check_file(path)
    assert support.numbers(path) == Counter(range(8))


def _identity(number: int) -> tuple[str, int, int]:
    task = mpr.current_task()
    assert task is not None
    rr.log("n", rr.Scalars(float(number)))
    return task.name, task.index, task.attempt


@mpr.task(entity_path_prefix="item/{index}", timeline="item")
def _decorated(number: int) -> int:
    rr.log("n", rr.Scalars(float(number)))
    return number


def test_a_task_knows_itself_and_decorators_count(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", engine=engine, sinks=path) as pool:
        assert pool.map(_identity, range(3), chunksize=2) == [("_identity", index, 1) for index in range(3)]
        assert pool.map(_decorated, range(3)) == [0, 1, 2]
    assert support.numbers(path) == Counter(range(3))
    for index in range(3):
        assert support.numbers(path, f"/item/{index}/n") == Counter([index])


def test_classes_of_the_main_module_come_back_as_themselves(engine: Any, tmp_path: Path) -> None:
    if not isinstance(engine, Executor):
        pytest.skip("the next test runs a program with this engine")
    made = functions.log_number
    with mpr.Pool("app", engine=engine, sinks=tmp_path / "run.rrd") as pool:
        # A closure is pickled with its code.
        assert pool.map(lambda number: made(number) + 1, range(3)) == [1, 2, 3]


_PROGRAM = """
import mpr, os, rerun as rr, sys

class Pair:
    def __init__(self, number):
        self.numbers = (number, number)

def work(pair):
    rr.log("n", rr.Scalars(pair.numbers[0]))
    return Pair(pair.numbers[0] + 1)

def die(number):
    rr.log("n", rr.Scalars(number))
    os._exit(3)

if __name__ == "__main__":
    with mpr.Pool("app", 1, engine=sys.argv[1], sinks=sys.argv[2]) as pool:
        found = pool.map(work, [Pair(number) for number in range(3)])
        assert all(type(each) is Pair for each in found), found
        assert [each.numbers[0] for each in found] == [1, 2, 3], found
        try:
            pool.apply(die, (3,))
        except mpr.WorkerDiedError as error:
            assert "died while it had task die" in str(error), error
        else:
            raise AssertionError("nobody died")
        assert pool.apply(work, (Pair(4),)).numbers[0] == 5
    print("whole")
"""


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_a_program_that_names_its_engine_starts_and_ends_it(name: str, tmp_path: Path) -> None:
    pytest.importorskip({"ray": "ray", "dask": "distributed"}[name], reason=f"{name} is not installed")
    script, path = tmp_path / "program.py", tmp_path / "run.rrd"
    script.write_text(_PROGRAM)
    done = subprocess.run(
        [sys.executable, str(script), name, str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "RAY_AUTH_MODE": "disabled",
            # A cluster with this gives every worker up that has died.
            "DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "1ms",
        },
    )
    assert done.stdout.endswith("whole\n"), done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    support.check_file(path)
    # The SDK may not have written the row of the task that has ended its worker. Dask runs this task four times.
    assert {number: count for number, count in support.numbers(path).items() if number != 3} == {0: 1, 1: 1, 2: 1, 4: 1}


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_the_example(name: str, tmp_path: Path) -> None:
    pytest.importorskip({"ray": "ray", "dask": "distributed"}[name], reason=f"{name} is not installed")
    path = tmp_path / "run.rrd"
    done = subprocess.run(
        [sys.executable, str(_ROOT / "examples" / "engines.py"), str(path), f"--engine={name}", "--side=2"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )
    assert done.returncode == 0, done.stderr
    assert "4 tiles, mean height" in done.stdout
    support.check_file(path)
    assert support.row_counts(path, "tile") == {(f"/tiles/{number}", number): 1 for number in range(4)}


def _die(number: int) -> int:
    rr.log("n", rr.Scalars(float(number)))
    if number == 1:
        os._exit(3)
    return number


def test_a_death_breaks_an_executor(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with _engine("spawn") as executor, mpr.Pool("app", engine=executor, sinks=path) as pool:
        assert pool.apply(_die, (0,)) == 0
        for number in (1, 2):
            with pytest.raises(WorkerDiedError, match=r"died while it had task _die\b") as caught:
                pool.apply(_die, (number,))
            assert caught.value.__cause__ is not None
    support.check_file(path)
    # The worker had not flushed the row of the task that has ended it.
    assert set(support.numbers(path)) - {1} == {0}


def test_results_of_a_closed_recording_are_errors(tmp_path: Path) -> None:
    recording = mpr.SharedRecording("app", sinks=tmp_path / "run.rrd")
    with ThreadPoolExecutor(1) as threads, mpr.Pool("app", engine=threads, recording=recording) as pool:
        assert pool.apply(functions.log_number, (1,)) == 1
        recording.close()
        with pytest.raises(mpr.RecordingError):
            pool.apply(functions.log_number, (2,))


def _wait_for(event: threading.Event) -> None:
    assert event.wait(60)


def test_what_has_not_begun_can_be_cancelled(tmp_path: Path) -> None:
    go_on, began = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        _wait_for(go_on)

    _HELD.append(hold)
    with ThreadPoolExecutor(1) as threads, mpr.Pool("app", engine=threads, sinks=tmp_path / "run.rrd") as pool:
        first = pool.submit(_run_held)
        _wait_for(began)
        second, third = pool.submit(functions.log_number, 1), pool.submit(functions.log_number, 2)
        assert not first.cancel()
        assert second.cancel()
        with pytest.raises(CancelledError):
            second.result(60)
        pool.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(CancelledError):
            third.result(60)
        go_on.set()
        assert first.result(60) is None
    _HELD.clear()
    with pytest.raises(PoolClosedError):
        pool.apply(functions.log_number, (3,))
    assert support.numbers(tmp_path / "run.rrd") == Counter()


# What `_run_held` calls. Threads have the globals of the test.
_HELD: list[Callable[[], None]] = []


def _run_held() -> None:
    _HELD[0]()


def test_terminate_gives_every_waiting_call_an_error(tmp_path: Path) -> None:
    go_on, began = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        _wait_for(go_on)

    _HELD.append(hold)
    with ThreadPoolExecutor(1) as threads:
        pool = mpr.Pool("app", engine=threads, sinks=tmp_path / "run.rrd")
        calls = [pool.apply_async(_run_held), pool.apply_async(functions.log_number, (1,))]
        _wait_for(began)
        pool.terminate()
        for call in calls:
            with pytest.raises(PoolTerminatedError):
                call.get(60)
        go_on.set()
        pool.join()
    _HELD.clear()


def test_a_callback_cannot_wait_for_its_own_pool(tmp_path: Path) -> None:
    raised: list[BaseException] = []

    def wait(_value: object) -> None:
        pool.close()
        try:
            pool.join()
        except RuntimeError as error:
            raised.append(error)

    with ThreadPoolExecutor(1) as threads, mpr.Pool("app", engine=threads, sinks=tmp_path / "run.rrd") as pool:
        assert pool.apply_async(functions.log_number, (1,), callback=wait).get(60) == 1
    assert ["a callback cannot wait for its own pool" in str(error) for error in raised] == [True]


def test_the_table_of_workers_has_those_of_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with ProcessPoolExecutor(2) as processes:
        with mpr.Pool("app", engine=processes, sinks=path) as pool:
            pool.map(functions.log_number, range(8), chunksize=1)
        insights = pool.insights()
    assert sum(worker.tasks for worker in insights.workers) == 8
    assert sum(worker.rows for worker in insights.workers) == 8
    assert all(worker.pid for worker in insights.workers)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"engine": "spark"}, "engine must be"),
        ({"engine": 7}, "engine must be"),
        ({"engine_options": {"num_cpus": 1}}, "give engine="),
        ({"engine_options": {"num_cpus": 1}, "engine": ThreadPoolExecutor(1)}, "engine_options are for Ray and Dask"),
        ({"engine_options": 3, "engine": ThreadPoolExecutor(1)}, "must be a dict"),
        ({"processes": 3, "engine": ThreadPoolExecutor(1)}, "processes cannot be used"),
        ({"retries": 3, "engine": ThreadPoolExecutor(1)}, "retries=3 cannot be used"),
        ({"task_timeout": 3.0, "engine": ThreadPoolExecutor(1)}, "task_timeout cannot be used"),
        ({"initializer": print, "engine": ThreadPoolExecutor(1)}, "initializer cannot be used"),
        ({"worker_exit": print, "engine": ThreadPoolExecutor(1)}, "worker_exit cannot be used"),
        ({"maxtasksperchild": 3, "engine": ThreadPoolExecutor(1)}, "maxtasksperchild cannot be used"),
        ({"maxmemoryperchild": 10**9, "engine": ThreadPoolExecutor(1)}, "maxmemoryperchild cannot be used"),
        ({"start_method": "spawn", "engine": ThreadPoolExecutor(1)}, "start_method cannot be used"),
        ({"capture_output": True, "engine": ThreadPoolExecutor(1)}, "capture_output cannot be used"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_at_once(arguments: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        mpr.Pool("app", sinks=tmp_path / "run.rrd", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    for engine, package in (("ray", "ray"), ("dask", "distributed")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(mpr.MissingDependencyError, match=f"pip install {package}"):
                mpr.Pool("app", sinks=tmp_path / "run.rrd", engine=engine)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_refuses_work_fails_its_tasks_only(tmp_path: Path) -> None:
    threads = ThreadPoolExecutor(1)
    with mpr.Pool("app", engine=threads, sinks=tmp_path / "run.rrd") as pool:
        assert pool.apply(functions.log_number, (1,)) == 1
        threads.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.apply(functions.log_number, (2,))
    assert support.numbers(tmp_path / "run.rrd") == Counter([1])

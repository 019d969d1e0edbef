"""Unusual uses of a pool that users nevertheless try."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import psutil
import pytest

import mpr
from tests import support, tasks

# --- several pools ------------------------------------------------------------------------------------------------


def _log_in_a_pool(path: Path, numbers: Iterable[int], start_method: Any = None) -> list[int]:
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        return pool.map(tasks.log_number, numbers)


def _check(path: Path, numbers: Iterable[int]) -> None:
    support.check_file(path)
    assert Counter(numbers) == support.numbers(path)


_FOUR_THREADS = """
import sys, threading
from pathlib import Path
from tests.test_odd_uses import _log_in_a_pool

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    jobs = [(folder / f"{number}.rrd", range(100 * number, 100 * number + 50)) for number in range(4)]
    threads = [threading.Thread(target=_log_in_a_pool, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_four_threads_each_with_a_pool(tmp_path: Path) -> None:
    # Python prints the exception of a thread to stderr.
    done = support.run_python(_FOUR_THREADS, tmp_path, env=_OURS)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    for number in range(4):
        _check(tmp_path / f"{number}.rrd", range(100 * number, 100 * number + 50))


def test_two_pools_at_once_keep_their_rows_apart(start_method: Any, tmp_path: Path) -> None:
    paths = [tmp_path / "one.rrd", tmp_path / "two.rrd"]
    with (
        mpr.Pool("app", 1, sinks=paths[0], start_method=start_method) as one,
        mpr.Pool("app", 1, sinks=paths[1], start_method=start_method) as two,
    ):
        results = [pool.apply_async(tasks.log_number, (n,)) for n in range(0, 40, 2) for pool in (one, two)]
        assert [n for n in range(0, 40, 2) for _ in range(2)] == [result.get() for result in results]
    for path in paths:
        _check(path, range(0, 40, 2))


def _log_and_make_a_pool(number: int, folder: Path, start_method: Any) -> int:
    tasks.log_number(number)
    inner = _log_in_a_pool(folder / f"inner-{number}.rrd", range(10), start_method)
    return tasks.log_number(sum(inner) + number)


@pytest.mark.parametrize("start_method", ["forkserver", "fork"])
def test_a_task_makes_a_pool_of_its_own(start_method: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "outer.rrd"
    with mpr.Pool("outer", 2, sinks=path, start_method=start_method) as pool:
        task = functools.partial(_log_and_make_a_pool, folder=tmp_path, start_method=start_method)
        assert [45, 46, 47] == pool.map(task, range(3), chunksize=1)
    _check(path, [0, 1, 2, 45, 46, 47])
    for number in range(3):
        _check(tmp_path / f"inner-{number}.rrd", range(10))
    # No warning says that rows of the inner pool's forked workers are lost, because they are not.
    assert "" == capfd.readouterr().err


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("exit", 7), ("raise", 1)])
def test_a_forked_child_that_leaves_its_task_is_no_second_worker(
    how: str, code: int, start_method: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        results = pool.map(functools.partial(tasks.fork_and_leave, how=how), range(20), chunksize=5)
        # A child that lives on is found only as long as the workers live.
        assert [] == [child for _, child, _ in results if psutil.pid_exists(child)]
    assert [("parent", code)] * 20 == [(who, ended) for who, _, ended in results]
    _check(path, range(20))
    # The fork server has the stderr of an earlier time, not that of this test.
    if start_method != "forkserver":
        assert (20 if how == "raise" else 0) == capfd.readouterr().err.count("ValueError: in the forked child")


def _fork_in_initializer(how: str) -> None:
    child = os.fork()
    if child == 0:
        if how == "exit":
            sys.exit(7)
        return
    assert os.waitpid(child, 0)[1] == (7 << 8 if how == "exit" else 0)


@pytest.mark.parametrize("how", ["return", "exit"])
def test_a_forked_child_that_leaves_the_initializer_is_no_worker(how: str, start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, _fork_in_initializer, (how,), sinks=path, start_method=start_method) as pool:
        assert list(range(20)) == pool.map(tasks.log_number, range(20))
    _check(path, range(20))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_of_multiprocessing_makes_a_pool(method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    process = multiprocessing.get_context(method).Process(target=_log_in_a_pool, args=(path, range(10)))
    process.start()
    process.join(60)
    assert 0 == process.exitcode
    _check(path, range(10))


def test_two_hundred_pools_leave_nothing_behind(tmp_path: Path) -> None:
    me = psutil.Process()
    before = (0, 0, 0)
    for number in range(200):
        with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
            assert number == pool.apply(tasks.log_number, (number,))
        if number == 20:
            before = (me.num_threads(), me.num_fds(), me.memory_info().rss)
    # One or two threads of the SDK and of pyzmq come and go.
    assert me.num_threads() <= before[0] + 3
    assert me.num_fds() <= before[1] + 3
    assert me.memory_info().rss <= before[2] + 16 * 1024 * 1024


def test_sixty_four_workers_on_few_cores_run_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 64, sinks=path) as pool:
        meet = functools.partial(tasks.pid_after_meeting, count=64)
        pids = pool.map(meet, [tmp_path / "here"] * 64, chunksize=1)
        pool.map(tasks.log_number, range(1000), chunksize=1)
    assert 64 == len(set(pids))
    _check(path, [*pids, *range(1000)])


@pytest.mark.parametrize("thread", ["mpr-aggregator", "mpr-workers"])
def test_a_pool_that_cannot_have_its_threads_leaves_nothing_behind(
    thread: str, start_method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.rrd"
    start = threading.Thread.start

    def start_others(self: threading.Thread) -> None:
        if self.name == thread:
            raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start_others)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            mpr.Pool("app", 1, sinks=path, start_method=start_method)
    assert [] == list(tmp_path.iterdir())
    assert [1] == _log_in_a_pool(path, [1], start_method)
    _check(path, [1])


# --- programs -----------------------------------------------------------------------------------------------------

# A program of these tests imports this checkout, even if another one is installed.
_OURS = {"PYTHONPATH": str(Path(__file__).parents[1])}

_PROGRAM = """
import dataclasses, enum, sys
import mpr, rerun as rr

class Kind(enum.Enum):
    SMALL = 1

@dataclasses.dataclass(frozen=True)
class Item:
    number: int
    kind: Kind = Kind.SMALL

class OwnError(Exception):
    pass

def work(item):
    assert isinstance(item, Item) and item.kind is Kind.SMALL
    rr.log("n", rr.Scalars(float(item.number)))
    if item.number == 7:
        raise OwnError(item)
    return Item(2 * item.number)

if __name__ == "__main__":
    with mpr.Pool("app", 2, sinks=sys.argv[1], start_method=sys.argv[2]) as pool:
        assert pool.map(work, map(Item, range(5))) == [Item(2 * number) for number in range(5)]
        try:
            pool.apply(work, (Item(7),))
        except OwnError as error:
            print(error.args[0] == Item(7))
        print(pool.map(lambda number: Item(number).number, range(3)))
"""

_WAYS: dict[str, list[str]] = {
    "-c": ["-c", _PROGRAM],
    "standard input": ["-"],
    "-X dev": ["-X", "dev", "-W", "error", "program.py"],
    "-m": ["-m", "program"],
}


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
@pytest.mark.parametrize("way", _WAYS)
def test_functions_and_classes_of_a_program_work_in_its_workers(way: str, start_method: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(_PROGRAM)
    done = subprocess.run(
        [sys.executable, *_WAYS[way], "run.rrd", start_method],
        input=_PROGRAM if way == "standard input" else "",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **_OURS},
    )
    assert (0, "True\n[0, 1, 2]\n", "") == (done.returncode, done.stdout, done.stderr)
    _check(tmp_path / "run.rrd", [*range(5), 7])


_WITHOUT_A_PLACE = """
import os, sys
import mpr
from tests import tasks

def lose(what):
    if what == "script":
        os.unlink(__file__)
    else:
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir(os.getcwd())

def log(path, method, number, loses=None):
    with mpr.Pool("app", 1, sinks=path, start_method=method) as pool:
        pool.apply(tasks.log_number, (number,))
        if loses:
            lose(loses)
            # The next worker cannot start.
            for end in (os._exit, tasks.log_number):
                try:
                    pool.apply(end, (number,))
                except mpr.MprError as error:
                    print(type(error).__name__, error, sep=": ")

if __name__ == "__main__":
    path, method, what, when = sys.argv[1:]
    if when == "before":
        lose(what)
    try:
        log(path, method, 1, what if when == "later" else None)
    except mpr.MprError as error:
        print(type(error).__name__, error, sep=": ")
"""
_WHAT_IS_GONE = {"script": "the main script ", "folder": "the working directory of this process was deleted"}


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
@pytest.mark.parametrize("when", ["before", "later"])
@pytest.mark.parametrize("what", _WHAT_IS_GONE)
def test_a_pool_whose_workers_cannot_start_because_something_is_deleted_says_what(
    what: str, when: str, start_method: str, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(_WITHOUT_A_PLACE)
    done = subprocess.run(
        [sys.executable, "program.py", tmp_path / "run.rrd", start_method, what, when],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **_OURS},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    if when == "later":
        assert lines.pop(0).startswith("WorkerDiedError")
    # The end of a broken pool raises the error once more.
    (said,) = set(lines)
    assert said.startswith(f"WorkerStartError: workers cannot start: {_WHAT_IS_GONE[what]}")
    assert "Traceback" not in done.stderr


_LEAVES_EARLY = """
import sys, threading
import mpr
from pathlib import Path
from tests import tasks

def work(folder):
    (folder / "begun").touch()
    tasks.wait_for_file(folder / "go on")
    tasks.log_number(1)
    print("done", flush=True)

if __name__ == "__main__":
    folder, how = Path(sys.argv[1]), sys.argv[2]
    pool = mpr.Pool("app", 1, sinks=folder / "run.rrd")
    future = pool.submit(work, folder)
    tasks.wait_for_file(folder / "begun")
    if how == "shutdown":
        # Called when the main thread has ended; `atexit` itself is called after all threads.
        threading._register_atexit((folder / "go on").touch)
        pool.shutdown(wait=False)
    del pool
"""


def test_after_shutdown_a_program_does_not_exit_before_its_tasks_are_done(tmp_path: Path) -> None:
    done = support.run_python(_LEAVES_EARLY, tmp_path, "shutdown", env=_OURS)
    assert (0, "done\n", "") == (done.returncode, done.stdout, done.stderr)
    _check(tmp_path / "run.rrd", [1])


def test_a_dropped_pool_prints_how_many_tasks_had_no_result(tmp_path: Path) -> None:
    done = support.run_python(_LEAVES_EARLY, tmp_path, "drop", env=_OURS)
    assert (0, "") == (done.returncode, done.stdout)
    assert "while 1 of its tasks had no result" in done.stderr


@pytest.mark.parametrize("folder", ["long", "missing"])
@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_a_tmpdir_with_a_long_path_or_a_missing_one_works(folder: str, start_method: str, tmp_path: Path) -> None:
    place = tmp_path / ("x" * 150 if folder == "long" else "missing")
    if folder == "long":
        place.mkdir()
    done = support.run_python(_PROGRAM, tmp_path / "run.rrd", start_method, env={**_OURS, "TMPDIR": str(place)})
    assert (0, "True\n[0, 1, 2]\n", "") == (done.returncode, done.stdout, done.stderr)
    assert not place.exists() or [] == list(place.iterdir())


# --- arguments ----------------------------------------------------------------------------------------------------


def _keep(*things: Any) -> None:
    tasks.remember(things)


def _put(number: int) -> int:
    queue, lock = tasks.recall()
    with lock:
        queue.put(number)
    return number


def test_a_queue_and_a_lock_of_multiprocessing_are_arguments_of_the_initializer(
    start_method: Any, tmp_path: Path
) -> None:
    context = multiprocessing.get_context(start_method)
    queue = context.Queue()
    with mpr.Pool(
        "app", 2, _keep, (queue, context.Lock()), sinks=tmp_path / "run.rrd", start_method=start_method
    ) as pool:
        assert list(range(20)) == pool.map(_put, range(20))
        assert list(range(20)) == sorted(queue.get(timeout=30) for _ in range(20))
        # A queue cannot be an argument of a task, as in `multiprocessing`. The error names the task.
        with pytest.raises(RuntimeError, match="through inheritance") as caught:
            pool.map(_put, [queue])
    assert "an argument of task '_put[0]' cannot be sent to a worker" in caught.value.__notes__[0]
    queue.close()
    queue.join_thread()


class _NoRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


_THE_ONE = ValueError("always the same object")


def _refuses(*_values: object, **_named: object) -> None:
    raise _THE_ONE


def _notes(call: Callable[[], object]) -> list[str]:
    with pytest.raises(ValueError, match="always the same") as caught:
        call()
    return [re.sub(r"\(pid \d+\)", "(pid)", each.partition("; log_time ")[0]) for each in caught.value.__notes__]


def test_an_error_names_its_task_and_the_arguments(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", retries=1) as pool:
        where = "in worker 1 (pid): _refuses"
        # The worker raises one object again and again. It gets no more notes from that.
        for _ in range(2):
            assert _notes(lambda: pool.map(_refuses, [5])) == [f"mpr: task _refuses[0] {where}(5)"]
        assert _notes(lambda: pool.starmap(_refuses, [(1, "two")])) == [f"mpr: task _refuses[0] {where}(1, 'two')"]
        assert _notes(lambda: list(pool.imap(_refuses, [b"x" * 999]))) == [
            f"mpr: task _refuses[0] {where}(b'{'x' * 36}...{'x' * 38}')"
        ]
        assert _notes(lambda: pool.apply(_refuses, (1,), {"size": 2})) == [f"mpr: task _refuses {where}(1, size=2)"]
        assert _notes(pool.submit(_refuses, _NoRepr()).result)[0].startswith(f"mpr: task _refuses {where}(<_NoRepr")
        with pytest.raises(TypeError, match="iterable") as caught:
            pool.starmap(_refuses, [7])
        assert caught.value.__notes__[0].partition(";")[0].endswith(": _refuses(...)")
        assert set(pool.map(os.path.basename, ["a/b"])) == {"b"}


def test_a_lock_for_forked_processes_is_refused_by_a_pool_of_others(tmp_path: Path) -> None:
    lock = multiprocessing.get_context("fork").Lock()
    with pytest.raises(RuntimeError, match="use the same context") as caught:
        mpr.Pool("app", 1, _keep, (lock,), sinks=tmp_path / "run.rrd")
    assert "the initializer cannot be sent to a worker" in caught.value.__notes__[0]


class _KillsOnLoad:
    def __reduce__(self) -> Any:
        return _die_unless_parent, (os.getpid(),)


def _die_unless_parent(pid: int) -> None:
    assert os.getpid() != pid
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_argument_that_kills_every_worker_that_loads_it_costs_its_own_task(
    start_method: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        before = [pool.apply_async(tasks.log_number, (number,)) for number in range(10)]
        poison = pool.apply_async(print, (_KillsOnLoad(),))
        after = [pool.apply_async(tasks.log_number, (number,)) for number in range(10, 20)]
        with pytest.raises(mpr.WorkerDiedError, match="SIGKILL"):
            poison.get(60)
        assert list(range(20)) == [result.get(60) for result in before + after]
    _check(path, range(20))


# --- time ---------------------------------------------------------------------------------------------------------


def test_an_iterator_over_endless_input_that_is_dropped_lets_the_pool_end(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        results = pool.imap(tasks.log_number, itertools.count())
        assert list(range(5)) == [next(results) for _ in range(5)]
        del results
    support.check_file(path)
    assert set(range(5)) <= set(support.numbers(path))


def test_tasks_whose_results_are_not_read_still_run_before_the_pool_ends(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        results = pool.imap(tasks.log_number, range(500))
        assert 0 == next(results)
    assert list(range(1, 500)) == list(results)
    _check(path, range(500))


def test_a_stopped_worker_costs_time_and_nothing_else(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        pid = pool.apply(os.getpid)
        os.kill(pid, signal.SIGSTOP)
        results = pool.map_async(tasks.log_number, range(20))
        with pytest.raises(multiprocessing.TimeoutError):
            results.get(0.1)
        os.kill(pid, signal.SIGCONT)
        assert list(range(20)) == results.get(60)
        assert pid == pool.apply(os.getpid)
    _check(path, range(20))


def test_a_stopped_worker_does_not_keep_a_pool_from_being_terminated(start_method: Any, tmp_path: Path) -> None:
    pool = mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", start_method=start_method)
    os.kill(pool.apply(os.getpid), signal.SIGSTOP)
    ending = threading.Thread(target=pool.terminate)
    ending.start()
    ending.join(30)
    assert not ending.is_alive()


# --- hosts --------------------------------------------------------------------------------------------------------


def test_a_notebook_makes_pools_for_functions_of_its_cells(tmp_path: Path) -> None:
    cells = [
        """
        import asyncio, dataclasses
        import mpr, rerun as rr

        @dataclasses.dataclass
        class Item:
            number: int

        factor = 3

        def work(item):
            rr.log("n", rr.Scalars(float(item.number)))
            return Item(factor * item.number)

        with mpr.Pool("app", 2, sinks="one.rrd") as pool:
            assert pool.map(work, map(Item, range(20))) == [Item(3 * number) for number in range(20)]
        """,
        """
        pool = mpr.Pool("app", 2, sinks="two.rrd")
        assert pool.apply(work, (Item(1),)) == Item(3)
        """,
        """
        factor = 5
        assert pool.apply(work, (Item(2),)) == Item(10)
        """,
        """
        loop = asyncio.get_running_loop()
        calls = (loop.run_in_executor(pool.executor, work, Item(number)) for number in (3, 4))
        assert await asyncio.gather(*calls) == [Item(15), Item(20)]
        pool.close()
        pool.join()
        """,
    ]
    code = [nbformat.v4.new_code_cell("\n".join(line[8:] for line in cell.splitlines())) for cell in cells]
    notebook = nbformat.v4.new_notebook(cells=code)
    client = nbclient.NotebookClient(
        notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env={**os.environ, **_OURS})
    assert [[]] * len(cells) == [cell.outputs for cell in notebook.cells]
    _check(tmp_path / "one.rrd", range(20))
    _check(tmp_path / "two.rrd", [1, 2, 3, 4])


_TESTS_WITH_POOLS = """
import mpr, pytest
from tests import tasks

@pytest.mark.parametrize("number", range(6))
def test_with_a_pool(number, tmp_path, pytestconfig):
    with mpr.Pool("app", 2, sinks=pytestconfig.rootpath / f"{number}.rrd") as pool:
        assert list(range(10)) == pool.map(tasks.log_number, range(10))
        assert [1] == pool.map(lambda each: each + 1, [0])
"""


def test_tests_that_are_distributed_over_processes_use_pools(tmp_path: Path) -> None:
    (tmp_path / "test_pools.py").write_text(_TESTS_WITH_POOLS)
    # If pytest-asyncio is installed, it warns of an option that is not set.
    options = ["-n", "2", "-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio", f"--rootdir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **_OURS},
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "6 passed" in done.stdout
    for number in range(6):
        _check(tmp_path / f"{number}.rrd", range(10))


# --- functions with a cache ---------------------------------------------------------------------------------------

_CACHE_AT_A_PROMPT = """
import functools, sys
import mpr

@functools.lru_cache(maxsize=None)
def fibonacci(number):
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

class Table:
    @functools.lru_cache
    def square(self, number):
        return number * number

with mpr.Pool("app", 2, sinks=sys.argv[1]) as pool:
    print(pool.map(fibonacci, range(10)), pool.map(Table().square, range(3)))
"""


def test_a_function_with_a_cache_that_is_defined_at_a_prompt(tmp_path: Path) -> None:
    # Workers import neither a notebook nor the program of `python -c`.
    ran = subprocess.run(
        [sys.executable, "-c", _CACHE_AT_A_PROMPT, str(tmp_path / "run.rrd")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[0, 1, 1, 2, 3, 5, 8, 13, 21, 34] [0, 1, 4]\n", "")

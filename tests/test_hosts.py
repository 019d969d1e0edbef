"""Pools and recordings inside of other frameworks that change the process around them."""

from __future__ import annotations

import importlib.util
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

import mpr
from tests import support, tasks

_OURS = {"PYTHONPATH": str(Path(__file__).parents[1])}

# --- the default start method ---------------------------------------------------------------------------------------

_POOLS_IN_JOBS = """
import sys
from pathlib import Path

import joblib
from tests.test_hosts import run_pool_in_job

if __name__ == "__main__":
    path, method = sys.argv[1:]
    jobs = [joblib.delayed(run_pool_in_job)(Path(path, f"{number}.rrd"), method, number) for number in range(2)]
    print(joblib.Parallel(n_jobs=2)(jobs))
"""


def run_pool_in_job(path: Path, method: Any, number: int) -> tuple[list[int], str]:
    """Run a pool, and return its results and the default start method of this process."""
    with mpr.Pool("app", 2, sinks=path, start_method=method) as pool:
        results = pool.map(tasks.log_number, range(10 * number, 10 * number + 10))
    return results, multiprocessing.get_start_method()


def test_a_pool_runs_in_a_job_of_joblib(start_method: Any, tmp_path: Path) -> None:
    done = support.run_python(_POOLS_IN_JOBS, tmp_path, start_method, env=_OURS)
    expected = [(list(range(10 * number, 10 * number + 10)), "loky") for number in range(2)]
    assert (0, f"{expected}\n", "") == (done.returncode, done.stdout, done.stderr)
    for number in range(2):
        support.check_file(tmp_path / f"{number}.rrd")
        assert support.numbers(tmp_path / f"{number}.rrd").keys() == set(range(10 * number, 10 * number + 10))


_POOLS_IN_DAEMONS = """
import multiprocessing, sys
import mpr
from pathlib import Path
from tests import tasks

def job(number):
    path = Path(sys.argv[1]) / f"{number}.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=sys.argv[2]) as pool:
        # A worker is no daemonic process, so a task may start processes.
        assert not any(pool.map(is_daemon, range(2)))
        return pool.map(tasks.log_number, range(5))

def is_daemon(_):
    return multiprocessing.current_process().daemon

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[3]).Pool(2) as pool:
        print(pool.map(job, range(2)))
"""


@pytest.mark.parametrize("outer", ["fork", "spawn"])
def test_a_pool_runs_in_a_daemonic_process(outer: str, start_method: Any, tmp_path: Path) -> None:
    done = support.run_python(_POOLS_IN_DAEMONS, tmp_path, start_method, outer, env=_OURS)
    assert (0, f"{[[0, 1, 2, 3, 4]] * 2}\n", "") == (done.returncode, done.stdout, done.stderr)
    for number in range(2):
        support.check_file(tmp_path / f"{number}.rrd")
        assert support.numbers(tmp_path / f"{number}.rrd").keys() == set(range(5))


_DEFAULT_AFTER_A_POOL = """
import multiprocessing, sys
import mpr
from tests import tasks

default_in_main = multiprocessing.get_start_method(allow_none=True)

def default(_):
    return default_in_main

if __name__ == "__main__":
    path, method, own = sys.argv[1:]
    with mpr.Pool("app", 1, sinks=path, start_method=method) as pool:
        pool.apply(tasks.log_number, (1,))
    multiprocessing.set_start_method(own)
    with mpr.Pool("app", 1, sinks=path, start_method=method) as pool:
        print(*pool.map(default, range(1)), multiprocessing.get_start_method())
"""


@pytest.mark.parametrize("own", ["spawn", "forkserver", "fork"])
def test_a_program_chooses_its_default_start_method_after_a_pool(own: str, start_method: Any, tmp_path: Path) -> None:
    done = support.run_python(_DEFAULT_AFTER_A_POOL, tmp_path / "run.rrd", start_method, own, env=_OURS)
    # With `fork`, workers do not import the main script again.
    in_main = None if start_method == "fork" else own
    assert (0, f"{in_main} {own}\n", "") == (done.returncode, done.stdout, done.stderr)


# --- threads that are none ------------------------------------------------------------------------------------------

_GREEN = """
import sys
path, patch, make, method = sys.argv[1:]
exec(patch)
import mpr
from tests import tasks

if __name__ == "__main__":
    try:
        if make == "pool":
            with mpr.Pool("app", 2, sinks=path, start_method=method) as pool:
                print(pool.map(tasks.log_number, range(10)))
        else:
            with mpr.SharedRecording("app", sinks=path) as recording:
                recording.flush()
    except mpr.ConfigError as error:
        print(error)
"""
_PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


def _need(package: str) -> None:
    """Skip the test if `package` is not installed, without importing it, because eventlet then warns at each fork."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


@pytest.mark.parametrize("make", ["pool", "recording"])
@pytest.mark.parametrize("package", _PATCHES)
def test_a_recording_in_a_process_without_real_threads_is_refused(package: str, make: str, tmp_path: Path) -> None:
    _need(package)
    env = {**_OURS, "PYTHONWARNINGS": "ignore"}
    done = support.run_python(_GREEN, tmp_path / "run.rrd", _PATCHES[package], make, "forkserver", env=env)
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith(f"a recording needs real threads, but {package} has replaced")
    assert ("patch_all(thread=False)" in done.stdout) is (package == "gevent")
    assert [] == list(tmp_path.iterdir())


def test_a_pool_runs_in_a_process_of_gevent_that_keeps_its_threads(start_method: Any, tmp_path: Path) -> None:
    _need("gevent")
    patch = "from gevent import monkey; monkey.patch_all(thread=False)"
    path = tmp_path / "run.rrd"
    done = support.run_python(_GREEN, path, patch, "pool", start_method, env=_OURS)
    assert (0, "") == (done.returncode, done.stderr)
    if start_method == "fork":
        assert "start_method='fork' does not work if gevent" in done.stdout
    else:
        assert f"{list(range(10))}\n" == done.stdout
        support.check_file(path)
        assert support.numbers(path).keys() == set(range(10))


_JOINS = """
import sys
exec(sys.argv[1])
import mpr
from tests import functions

if __name__ == "__main__":
    for call in (lambda: functions.log_number(1), mpr.join):
        try:
            call()
        except mpr.JoinError as error:
            print(error)
"""


@pytest.mark.parametrize("package", _PATCHES)
def test_a_process_without_real_threads_cannot_join_and_says_why(package: str, tmp_path: Path) -> None:
    _need(package)
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        env = {**recording.environ(), **_OURS, "PYTHONWARNINGS": "ignore"}
        done = support.run_python(_JOINS, _PATCHES[package], env=env)
    assert (0, "") == (done.returncode, done.stderr)
    assert 2 == done.stdout.count(f"a recording needs real threads, but {package} has replaced")


# --- processes that were forked with everything in place ------------------------------------------------------------

_PREFORKED = """
import os, sys
import rerun as rr
import mpr
from tests import functions

path, before, end = sys.argv[1:]

def serve(number):
    functions.log_number(number)
    if end == "own recording":
        stream = rr.RecordingStream("own")
        stream.save(f"{path}.{number}")
        stream.log("own", rr.Scalars(1.0))
        stream.disconnect()
        os._exit(0)
    os._exit(0) if end == "_exit" else sys.exit(0)

if __name__ == "__main__":
    with mpr.SharedRecording("app", sinks=path) as recording:
        if before == "task":
            functions.log_number(100)
        elif before == "stream":
            recording.stream.log("other", rr.Scalars(1.0))
        elif before == "init":
            rr.init("of the program")
            rr.log("other", rr.Scalars(1.0))
        children = []
        for number in range(3):
            child = os.fork()
            if child == 0:
                serve(number)
            children.append(child)
        codes = [os.waitpid(child, 0)[1] for child in children]
    print(codes)
"""


@pytest.mark.parametrize("end", ["exit", "_exit"])
@pytest.mark.parametrize("before", ["nothing", "task", "stream", "init"])
def test_a_decorated_function_in_preforked_processes_prints_nothing(before: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    done = support.run_python(_PREFORKED, path, before, end, env=_OURS)
    assert (0, "[0, 0, 0]\n", "") == (done.returncode, done.stdout, done.stderr)
    support.check_file(path)
    assert {0, 1, 2, *([100] if before == "task" else [])} == support.numbers(path).keys()


def test_a_forked_process_keeps_a_recording_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    done = support.run_python(_PREFORKED, path, "task", "own recording", env=_OURS)
    assert (0, "[0, 0, 0]\n", "") == (done.returncode, done.stdout, done.stderr)
    for number in range(3):
        assert {1: 1} == support.numbers(Path(f"{path}.{number}"), "/own")


_INIT_IN_A_CHILD = """
import os, sys
import mpr, rerun as rr
from tests import functions

path, first = sys.argv[1:]
with mpr.SharedRecording("app", sinks=path) as recording:
    recording.stream.log("other", rr.Scalars(1.0))
    wrapped = recording.wrap(functions.log_number)
    child = os.fork()
    if child == 0:
        if first == "wrapped":
            wrapped(1)
        rr.init("own", recording_id="own")
        rr.save(path + ".own")
        rr.log("own", rr.Scalars(2.0))
        rr.disconnect()
        wrapped(3)
        sys.exit(0)
    print(os.waitpid(child, 0)[1])
"""


@pytest.mark.parametrize("first", ["init", "wrapped"])
def test_a_forked_process_may_begin_a_recording_of_its_own(first: str, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    done = support.run_python(_INIT_IN_A_CHILD, path, first, env=_OURS)
    assert (0, "0\n") == (done.returncode, done.stdout), done.stderr
    assert {2: 1} == support.numbers(Path(f"{path}.own"), "/own")
    assert {3, *([1] if first == "wrapped" else [])} == support.numbers(path).keys()

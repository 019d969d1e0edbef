"""Workers of Ray and Dask are killed at random, the driver is killed, and the recording is closed before its tasks."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import mpr
from mpr.rrd import recover
from tests import engine_members, engine_work, guests, support

_ROOT = Path(__file__).parent.parent
# `MPR_TEST_SEED` repeats a run. A start of a worker takes seconds, so `make test-engines` kills few of them.
_SEED = int(os.environ.get("MPR_TEST_SEED", time.time_ns() // 1_000_000_000 // 3600))
_KILLS = int(os.environ.get("MPR_TEST_ENGINE_KILLS", "4"))
_TASKS = 40
_LIMIT_SECS = 5.0


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers import the tests."""
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    # Without this, Ray writes a token into the home of the user.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@pytest.fixture
def dask() -> Iterator[Any]:
    # Dask's settings are there when this is imported.
    engine_members.require("distributed")
    config = engine_members.require("dask.config")
    # A task may lose many workers, and the cluster gives no worker up.
    options = {"distributed.scheduler.allowed-failures": 1000, "distributed.deploy.lost-worker-timeout": "1 day"}
    with config.set(options), engine_members.dask_cluster(workers=2) as client:
        yield client


@pytest.fixture
def ray() -> Iterator[Any]:
    module = engine_members.require("ray")
    module.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    yield module
    module.shutdown()


def _kill_at_random(pids: Callable[[], list[int]]) -> None:
    chance = random.Random(_SEED)
    for _ in range(_KILLS):
        # The time of a death is what is random here.
        time.sleep(chance.uniform(0.0, 1.5))
        support.wait_for(pids, 60)
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(chance.choice(pids()), signal.SIGKILL)


def _check_kills(path: Path, tasks: int) -> None:
    """Each death may leave rows of one run that was not complete. All other rows are there once."""
    support.check_file(path)
    found = support.numbers(path)
    assert set(found) == set(engine_work.numbers_of(*range(tasks)))
    extra_runs = 0
    for task in range(tasks):
        counts = [found[number] for number in engine_work.numbers_of(task)]
        # The rows of a run that died are the first ones of the task.
        assert counts == sorted(counts, reverse=True), (task, counts)
        extra_runs += counts[0] - 1
    print(f"seed {_SEED}: {_KILLS} kills, {extra_runs} runs that were not complete left rows")
    assert extra_runs <= _KILLS


@pytest.mark.slow
@pytest.mark.timeout(60 + 15 * _KILLS)
def test_dask_workers_are_killed_at_random(dask: Any, tmp_path: Path) -> None:
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        futures = dask.map(recording.wrap(engine_work.log_slowly), range(_TASKS))
        _kill_at_random(lambda: [nanny.pid for nanny in dask.cluster.workers.values() if nanny.pid])
        assert dask.gather(futures) == list(range(_TASKS))
        began = time.monotonic()
    assert time.monotonic() - began < _LIMIT_SECS
    _check_kills(tmp_path / "run.rrd", _TASKS)


def _ray_workers(name: str) -> list[int]:
    """Return the processes of Ray's workers whose titles begin with `name`."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if "".join(each.cmdline()).startswith(name):
                found.append(each.pid)
    return found


@pytest.mark.slow
@pytest.mark.timeout(60 + 15 * _KILLS)
def test_ray_workers_are_killed_at_random(ray: Any, tmp_path: Path) -> None:
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        run = ray.remote(max_retries=-1)(recording.wrap(engine_work.log_slowly))
        references = [run.remote(number) for number in range(_TASKS)]

        def pids() -> list[int]:
            """Return the workers, which have tasks to run, because Ray replaces no worker that has none."""
            _, waiting = ray.wait(references, num_returns=len(references), timeout=0)
            if len(waiting) < 4:
                references.extend(run.remote(number) for number in range(len(references), len(references) + 4))
            # Ray waits a minute for a worker that dies while it starts, so only those with a task are killed.
            return _ray_workers("ray::log_slowly")

        _kill_at_random(pids)
        tasks = len(references)
        assert ray.get(references, timeout=60 + 10 * _KILLS) == list(range(tasks))
        began = time.monotonic()
    assert time.monotonic() - began < _LIMIT_SECS
    _check_kills(tmp_path / "run.rrd", tasks)


def _close_with_waiting_tasks(submit: Callable[..., Callable[[], Any]], folder: Path) -> None:
    """Close a recording while two tasks run and others wait. `submit` returns a function that waits for the result."""
    path = folder / "run.rrd"
    recording = mpr.SharedRecording("app", sinks=path)
    wrapped = recording.wrap(engine_work.wait_for_file)
    running = [submit(wrapped, number, str(folder)) for number in range(2)]
    support.wait_for(lambda: len(list(folder.glob("run-*"))) == 2, 60)
    waiting = [submit(wrapped, number, str(folder)) for number in range(2, 6)]
    plain = submit(guests.current)
    began = time.monotonic()
    recording.close()
    assert time.monotonic() - began < _LIMIT_SECS
    (folder / "go-on").touch()
    began = time.monotonic()
    for result in [*running, *waiting]:
        with pytest.raises(Exception, match=r"RecordingClosedError|is closed|was closed"):
            result()
    assert plain() == (None, None)
    assert time.monotonic() - began < _LIMIT_SECS
    support.check_file(path)
    assert support.numbers(path) == Counter([0, 1])
    # No waiting task has begun.
    assert len(list(folder.glob("run-*"))) == 2


def test_dask_tasks_that_wait_when_the_recording_closes(dask: Any, tmp_path: Path) -> None:
    def submit(function: Any, *args: Any) -> Callable[[], Any]:
        return functools.partial(dask.submit(function, *args, pure=False).result, 60)

    _close_with_waiting_tasks(submit, tmp_path)


def test_ray_tasks_that_wait_when_the_recording_closes(ray: Any, tmp_path: Path) -> None:
    def submit(function: Any, *args: Any) -> Callable[[], Any]:
        return functools.partial(ray.get, ray.remote(function).remote(*args), timeout=60)

    _close_with_waiting_tasks(submit, tmp_path)


# --- the driver is killed ---------------------------------------------------------------------------------------------

_DRIVER = """
import functools, sys, mpr
from pathlib import Path
from tests import engine_members, engine_work

name, folder, address = sys.argv[1:]

def main():
    with mpr.SharedRecording("app", sinks=Path(folder) / "run.rrd") as recording:
        ten, endless = recording.wrap(engine_work.log_ten), recording.wrap(engine_work.wait_for_file)
        if name == "ray":
            import ray
            ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
            print("results", [ray.get(ray.remote(ten).remote(number))[0] for number in range(3)], flush=True)
            running = ray.remote(endless).remote(0, folder)
            ray.get(running)
        else:
            import distributed
            options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
            given = address or distributed.LocalCluster(**options)
            client = distributed.Client(given)
            print("results", [client.submit(ten, number).result()[0] for number in range(3)], flush=True)
            running = client.submit(endless, 0, folder)
            running.result()

if __name__ == "__main__":
    main()
"""


def _kill_driver(name: str, folder: Path, address: str = "") -> list[psutil.Process]:
    """Kill a program while one of its tasks runs. Returns its children of that moment."""
    script = folder / "driver.py"
    script.write_text(_DRIVER)
    with (folder / "driver.log").open("w") as log:
        driver = subprocess.Popen(
            [sys.executable, str(script), name, str(folder), address], stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert driver.stdout is not None
    with driver.stdout:
        assert driver.stdout.readline() == "results [0, 1, 2]\n", (folder / "driver.log").read_text()
        support.wait_for(lambda: list(folder.glob("run-0-*")), 60)
        children = support.children_of(driver.pid)
        driver.kill()
        driver.wait(60)
    return children


def _check_recovered(folder: Path) -> None:
    """The rows of every result that the driver had are in the file."""
    (part,) = folder.glob("run.rrd*")
    recover.recover(part)
    support.check_file(folder / "run.rrd")
    found = support.numbers(folder / "run.rrd")
    assert found - Counter([0]) == Counter(engine_work.numbers_of(0, 1, 2)) - Counter([0])


@pytest.mark.parametrize("name", ["ray", "dask"])
def test_the_driver_is_killed(name: str, tmp_path: Path) -> None:
    engine_members.require({"ray": "ray", "dask": "distributed"}[name])
    children = _kill_driver(name, tmp_path)
    (pid,) = (int(each.name.rpartition("-")[2]) for each in tmp_path.glob("run-0-*"))
    began = time.monotonic()
    support.wait_for(lambda: not support.lives(pid), 60)
    assert time.monotonic() - began < _LIMIT_SECS
    if name == "ray":
        # Ray's own servers stay, as they do without mpr.
        for each in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    support.wait_for(lambda: not [each for each in children if support.lives(each.pid)], 60)
    _check_recovered(tmp_path)


def test_a_driver_of_a_shared_dask_cluster_is_killed(tmp_path: Path) -> None:
    with engine_members.dask_from_a_shell(tmp_path) as client:
        assert client.submit(guests.current).result(60) == (None, None)
        _kill_driver("dask", tmp_path, client.scheduler.address)
        (tmp_path / "go-on").touch()
        # A plain task of another client in the same worker, as soon as the task of the lost client has ended.
        began = time.monotonic()
        assert client.submit(guests.init_and_log, 1, tmp_path / "own.rrd", pure=False).result(60) == ("own", None)
        assert time.monotonic() - began < _LIMIT_SECS
        assert client.submit(guests.log_own, 2, pure=False).result(60) == ("own", None)
    _check_recovered(tmp_path)
    with support.whole_frames_of(tmp_path / "own.rrd") as copy:
        assert support.numbers(copy) == Counter([1, 2])

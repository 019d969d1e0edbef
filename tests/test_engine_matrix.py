"""The matrix of engines, each against the real thing: all rows once, and plain tasks see what is theirs."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mpr
from tests import engine_members, guests, support
from tests.engine_members import Member

_ROOT = Path(__file__).parent.parent

pytestmark = [
    # Python warns of `fork` in a process with threads since 3.12. Engines use it all the same.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

_OWN = ("own", None)


def check(member: Member, folder: Path, *, in_parent: bool = False) -> None:
    """Run wrapped functions of two recordings in a worker, and plain functions before, between and after them.

    With `in_parent`, the worker is a thread of this process. New threads and children are then not captured.
    """
    first, second = (mpr.SharedRecording("app", sinks=folder / f"{run}.rrd", recording_id=run) for run in "ab")
    work, other = first.wrap(guests.work), second.wrap(guests.work)
    assert member.map(work, range(10, 16)) == [("a", not in_parent)] * 6
    call = functools.partial
    expected: list[tuple[Any, Any]] = [
        (call(guests.begin_own, folder / "own.rrd"), None),
        (call(guests.log_own, 0), _OWN),
        (call(work, 1), ("a", not in_parent)),
        (call(guests.log_own, 2), _OWN),
        (call(work, 3), ("a", not in_parent)),
        (call(other, 4), ("b", not in_parent)),
        (call(guests.log_decorated, 5), ""),
        (call(guests.log_own, 6), _OWN),
    ]
    assert member.run([each for each, _ in expected]) == [result for _, result in expected]
    first.close()
    second.close()
    # An engine may have other workers now, so these calls begin anew.
    expected = [
        (call(guests.begin_own, folder / "later.rrd"), None),
        (call(guests.error_of, work, 7), "RecordingClosedError"),
        (call(guests.log_own, 8), _OWN),
    ]
    assert member.run([each for each, _ in expected]) == [result for _, result in expected]
    for run, numbers in (("a", [1, 3, *range(10, 16)]), ("b", [4])):
        support.check_file(folder / f"{run}.rrd")
        assert support.numbers(folder / f"{run}.rrd") == Counter(numbers)
        assert support.numbers(folder / f"{run}.rrd", "/thread") == Counter([] if in_parent else numbers)
    for name, numbers, of_threads in (("own", [0, 2, 5, 6], [1, 3, 4] if in_parent else []), ("later", [8], [])):
        with support.whole_frames_of(folder / f"{name}.rrd") as copy:
            assert support.numbers(copy) == Counter(numbers)
            assert support.numbers(copy, "/thread") == Counter({*numbers, *of_threads} - {5})


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Let workers import the tests."""
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        # Without this, Ray writes a token into the home of the user.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        yield


@pytest.mark.parametrize("start_method", support.START_METHODS)
def test_an_executor(start_method: str, tmp_path: Path) -> None:
    with engine_members.processes(start_method) as member:
        # The worker starts before there is a recording.
        assert member.run([guests.current]) == [(None, None)]
        check(member, tmp_path)


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_joblib(backend: str, tmp_path: Path) -> None:
    with engine_members.joblib(backend) as member:
        check(member, tmp_path)


def _run_program(member: str, folder: Path, *before: str) -> None:
    done = subprocess.run(
        [*before, "-m", "tests.engine_program", member, str(folder)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
        # `mpiexec` refuses root without these.
        env={**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
    )
    assert "checked\n" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("member", ["threads", "joblib-threading"])
def test_threads(member: str, tmp_path: Path) -> None:
    if member.startswith("joblib"):
        engine_members.require("joblib")
    _run_program(member, tmp_path, sys.executable)


def test_mpi(tmp_path: Path) -> None:
    engine_members.require("mpi4py")
    mpiexec = Path(sys.executable).parent / "mpiexec"
    options = ["-n", "2", "--oversubscribe", sys.executable, "-m", "mpi4py.futures"]
    _run_program("mpi", tmp_path, str(mpiexec), *options)


@pytest.mark.parametrize("start_method", support.START_METHODS)
def test_pytorch(start_method: str, tmp_path: Path) -> None:
    check(engine_members.Torch(start_method), tmp_path)


def test_pytorch_with_an_iterable_dataset(tmp_path: Path) -> None:
    check(engine_members.TorchIterable("fork"), tmp_path)


# --- Dask ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dask_client(environment: None) -> Iterator[Any]:
    with engine_members.dask_cluster(threads=2) as client:
        yield client


@pytest.mark.parametrize("way", ["map", "delayed", "bag", "actor", "joblib"])
def test_dask(way: str, dask_client: Any, tmp_path: Path) -> None:
    if way == "joblib":
        with engine_members.joblib("dask") as member:
            check(member, tmp_path)
    else:
        check(engine_members.DASK[way](dask_client), tmp_path)


def test_dask_with_workers_from_a_shell(tmp_path: Path) -> None:
    with engine_members.dask_from_a_shell(tmp_path) as client:
        check(engine_members.DaskMap(client), tmp_path)


# --- Ray -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray(environment: None) -> Iterator[Any]:
    module = engine_members.require("ray")
    module.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    yield module
    module.shutdown()


@pytest.mark.parametrize("way", ["task", "actor", "async actor"])
def test_ray(way: str, ray: Any, tmp_path: Path) -> None:
    check(engine_members.RAY[way](ray), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("member", ["ray-data", "ray-data-actors"])
def test_ray_data(member: str, tmp_path: Path) -> None:
    engine_members.require("ray.data")
    _run_program(member, tmp_path, sys.executable)


def test_ray_multiprocessing(ray: Any, tmp_path: Path) -> None:
    with contextlib.closing(engine_members.require("ray.util.multiprocessing").Pool(1)) as pool:
        check(engine_members.RayMultiprocessing(pool), tmp_path)


def test_joblib_on_ray(ray: Any, tmp_path: Path) -> None:
    with engine_members.joblib("ray") as member:
        check(member, tmp_path)

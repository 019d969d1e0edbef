"""Pools and recordings inside of other frameworks that change the process around them."""

from __future__ import annotations

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

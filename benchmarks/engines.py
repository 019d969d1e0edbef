"""What does a task cost on Ray, on Dask and on an executor, beside the same task without mpr?

The tasks of Ray and Dask are functions of `recording.wrap`. Beside them, the same functions run without a recording, so
that their rows go nowhere. Tasks run one after another, which shows what a task costs, and all at once. The tasks of an
executor run by `mpr.Pool(engine=executor).map`, and by `executor.map`.

Ray and Dask are in an environment of their own: `.venv-engines/bin/python -m benchmarks.engines`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import mpr
from benchmarks import common, report

WORKERS = 2
ROWS = 10
TASKS, ROUNDS = 300, 9
# Seconds, chunksize and number of the tasks that an executor runs.
_MAPS = ((0.001, 1, 1000), (0.0, 1, 2000), (0.0, 100, 40_000))

Map = Callable[[Callable[[int], Any], Sequence[int]], Sequence[Any]]


def log_rows(number: int) -> int:
    import rerun as rr

    for row in range(ROWS):
        rr.log("value", rr.Scalars(float(row)))
    return number


def log_nothing(number: int) -> int:
    return number


def compute(secs: float) -> None:
    end = time.perf_counter() + secs
    while time.perf_counter() < end:
        pass


# --- engines ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _ray() -> Iterator[Map]:
    import ray

    # Without this, Ray writes a token into the home of the user.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(num_cpus=WORKERS, include_dashboard=False, logging_level="ERROR")

    # Ray sends a function again for each call of `ray.remote`.
    remote = functools.lru_cache(maxsize=1)(ray.remote)

    def run(function: Callable[[int], Any], numbers: Sequence[int]) -> list[Any]:
        return list(ray.get([remote(function).remote(number) for number in numbers]))

    try:
        yield run
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _dask() -> Iterator[Map]:
    import distributed

    options = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield lambda function, numbers: list(client.gather(client.map(function, numbers, pure=False)))


def _seconds(run: Map, function: Callable[[int], Any], tasks: int) -> float:
    """Return the seconds for each task. The workers have the function already when the clock starts."""
    run(function, range(4 * WORKERS))
    begin = time.perf_counter()
    found = run(function, range(tasks))
    secs = time.perf_counter() - begin
    common.expect(sum(found), sum(range(tasks)), "sum of the results")
    return secs / tasks


def _wrapped_seconds(run: Map, function: Callable[[int], Any], tasks: int) -> float:
    with common.scratch() as folder:
        path = folder / "out.rrd"
        with mpr.SharedRecording("benchmark", sinks=path, telemetry_view=False) as recording:
            secs = _seconds(run, recording.wrap(function), tasks)
        common.check_file(path, (tasks + 4 * WORKERS) * ROWS if function is log_rows else 0)
    return secs


def _one_by_one(run: Map) -> Map:
    return lambda function, numbers: [run(function, [number])[0] for number in numbers]


def _measure_tasks(bench: report.Bench, name: str, engine: AbstractContextManager[Map], limit: float) -> None:
    tasks = TASKS // 3 if bench.quick else TASKS
    with engine as run:
        for way, runs in (("one by one", _one_by_one(run)), ("at once", run)):
            ways = {
                f"plain, {ROWS} rows": functools.partial(_seconds, runs, log_rows, tasks),
                f"wrapped, {ROWS} rows": functools.partial(_wrapped_seconds, runs, log_rows, tasks),
                "plain, no rows": functools.partial(_seconds, runs, log_nothing, tasks),
                "wrapped, no rows": functools.partial(_wrapped_seconds, runs, log_nothing, tasks),
            }
            found = common.interleaved(ways, bench.rounds(ROUNDS))
            rows = [[each, f"{1000 * common.median(found[each]):.2f}"] for each in ways]
            title = f"{name}: {tasks} tasks {way}, {WORKERS} workers; files verified, rows counted"
            bench.table(title, ["task", "ms a task"], rows)
            for what, most in ((f"{ROWS} rows", limit), ("no rows", 1.1)):
                ratios = common.ratios(found[f"wrapped, {what}"], found[f"plain, {what}"])
                at_most = most if way == "one by one" else None
                bench.target(f"{name}, a task with {what}, {way}: wrapped / plain", ratios, at_most)


# --- a pool on an executor ----------------------------------------------------------------------------------------


def _by_executor(executor: Executor, secs: float, chunksize: int, tasks: int) -> float:
    begin = time.perf_counter()
    found = list(executor.map(compute, [secs] * tasks, chunksize=chunksize))
    taken = time.perf_counter() - begin
    common.expect(len(found), tasks, "results")
    return taken / tasks


def _by_pool(executor: Executor, secs: float, chunksize: int, tasks: int) -> float:
    with common.scratch() as folder:
        path = folder / "out.rrd"
        with mpr.Pool("benchmark", engine=executor, sinks=path) as pool:
            pool.map(compute, [0.0] * 4 * WORKERS, chunksize=1)
            begin = time.perf_counter()
            found = pool.map(compute, [secs] * tasks, chunksize=chunksize)
            taken = time.perf_counter() - begin
        common.expect(len(found), tasks, "results")
        common.check_file(path, 0)
    return taken / tasks


def _measure_maps(bench: report.Bench) -> None:
    rows = []
    with ProcessPoolExecutor(WORKERS) as executor:
        for secs, chunksize, usual in _MAPS:
            tasks = usual // 4 if bench.quick else usual
            work = (executor, secs, chunksize, tasks)
            ways = {
                "executor.map": lambda work=work: _by_executor(*work),
                "pool.map": lambda work=work: _by_pool(*work),
            }
            found = common.interleaved(ways, bench.rounds(ROUNDS))
            what = f"{'tasks of 1 ms' if secs else 'empty tasks'}, chunksize {chunksize}"
            rows.append([what, *(f"{1e6 * common.median(found[way]):.0f}" for way in ways)])
            ratios = common.ratios(found["pool.map"], found["executor.map"])
            bench.target(f"Pool(engine=executor).map / executor.map, {what}", ratios, 1.3)
    bench.table(f"microseconds a task, {WORKERS} processes", ["tasks", "executor.map", "pool.map"], rows)


def main() -> None:
    bench = report.begin(__doc__)
    _measure_maps(bench)
    _measure_tasks(bench, "Dask", _dask(), 1.5)
    _measure_tasks(bench, "Ray", _ray(), 1.6)
    bench.end()


if __name__ == "__main__":
    main()

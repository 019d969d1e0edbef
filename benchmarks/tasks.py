"""What does a task cost that does next to nothing? Empty tasks, and tasks that log one row.

Every pool has two workers that are warm. For a row that is safe when the result is there, the floor is what one process
alone needs for `rr.log` and a checked flush.
"""

from __future__ import annotations

import functools
import multiprocessing
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import mpr
from benchmarks import common

WORKERS = 2
EMPTY, LOGGING = 10_000, 4_000

Map = Callable[[Callable[[int], int], Iterable[int], int | None], Iterable[int]]


def _nothing(number: int) -> int:
    return number


def _log_row(number: int) -> int:
    import rerun as rr

    rr.set_time("task", sequence=number)
    rr.log("value", rr.Scalars(float(number)))
    return number


def _rate(run: Map, task: Callable[[int], int], count: int, chunksize: int | None) -> float:
    begin = time.perf_counter()
    results = list(run(task, range(count), chunksize))
    secs = time.perf_counter() - begin
    common.expect(sum(results), sum(range(count)), "results")
    return count / secs


def _executor_map(executor: ProcessPoolExecutor, task: Any, items: Any, chunksize: int | None) -> Iterable[int]:
    # Its own default is 1.
    return executor.map(task, items, chunksize=chunksize or 1)


def _alone(folder: Path, count: int) -> float:
    """Rows per second of a process that logs and flushes each, run as a task of another pool."""
    import rerun as rr

    stream = rr.RecordingStream("benchmark", send_properties=False)
    path = folder / f"{time.monotonic_ns()}.rrd"
    stream.save(path)
    with stream:
        begin = time.perf_counter()
        for number in range(count):
            _log_row(number)
            stream.flush()
        secs = time.perf_counter() - begin
    stream.disconnect()
    common.check_file(path, count)
    return count / secs


def _table(title: str, rates: dict[str, list[float]], floor: str) -> None:
    rows = [
        [name, f"{common.median(found):,.0f}", f"{1e6 / common.median(found):.1f}", common.ratio(found, rates[floor])]
        for name, found in rates.items()
    ]
    common.print_table(title, ["way", "tasks/s", "us per task", f"ratio to {floor}"], rows)


def main() -> None:
    options = common.options(__doc__)
    rounds = options.rounds(7)
    common.print_header("What does a task cost that does next to nothing?")
    # The fork comes before anything here has threads; all others wait meanwhile.
    fork = multiprocessing.get_context("fork").Pool(WORKERS)
    forkserver = multiprocessing.get_context("forkserver").Pool(WORKERS)
    executor = ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("forkserver"))
    with common.scratch() as folder, fork, forkserver, executor:
        path = folder / "out.rrd"
        with mpr.Pool("benchmark", WORKERS, sinks=[path]) as pool:
            maps: dict[str, Map] = {
                "mpr.Pool": pool.map,
                "multiprocessing.Pool, fork": fork.map,
                "multiprocessing.Pool, forkserver": forkserver.map,
                "ProcessPoolExecutor, forkserver": functools.partial(_executor_map, executor),
            }
            for title, chunksize in (("chunksize 1", 1), ("each one's default chunksize", None)):
                ways = {name: functools.partial(_rate, run, _nothing, EMPTY, chunksize) for name, run in maps.items()}
                rates = common.interleaved(ways, rounds)
                _table(f"{EMPTY:,} empty tasks, {title}", rates, "multiprocessing.Pool, forkserver")
            floor = "rr.log + flush, alone"
            rates = common.interleaved(
                {
                    floor: lambda: forkserver.apply(_alone, (folder, LOGGING)),
                    "mpr.Pool, chunksize 1": lambda: _rate(pool.map, _log_row, LOGGING, 1),
                    "mpr.Pool, default chunksize": lambda: _rate(pool.map, _log_row, LOGGING, None),
                },
                rounds,
            )
        common.check_file(path, 2 * LOGGING * (rounds + 1))
        _table(f"{LOGGING:,} tasks that log one row", rates, floor)


if __name__ == "__main__":
    main()

"""What does a task cost that does next to nothing?

Measures empty tasks with mpr and with other pools. Also measures tasks of mpr that log one row, which is in the file
when the caller has the result. The floor for these tasks is the time that one process without mpr needs for `rr.log`
and a flush. Every pool has two workers, which have started before the time begins.
"""

from __future__ import annotations

import functools
import multiprocessing
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import mpr
from benchmarks import common, peers, report

LOGGING = 4_000
# Runs of empty tasks: (number of tasks, chunksize, number of rounds). None means the default chunksize of each pool,
# with which many tasks are sent at a time. 10,000 tasks then take only 4 ms, so that one round says little.
_EMPTY = ((5_000, 1, 5), (10_000, None, 2))
_EMPTY_OF_TWO = ((10_000, None, 15), (200_000, None, 5))
_TWO = (peers.MPR, peers.FLOOR)


def _nothing(number: int) -> int:
    return number


def _log_row(number: int) -> int:
    import rerun as rr

    rr.set_time("task", sequence=number)
    rr.log("value", rr.Scalars(float(number)))
    return number


def _micros(run: peers.Map, task: Callable[[int], int], count: int, chunksize: int | None) -> float:
    begin = time.perf_counter()
    results = list(run(task, range(count), chunksize))
    secs = time.perf_counter() - begin
    common.expect(sum(results), sum(range(count)), "results")
    return 1e6 * secs / count


def _empty(
    bench: report.Bench, maps: dict[str, peers.Map], count: int, chunksize: int | None, rounds: int
) -> tuple[str, dict[str, list[float]]]:
    """Measure empty tasks with each pool in `maps`, and print a table.

    Returns a description, and the readings of each pool in microseconds per task.
    """
    ways = {name: functools.partial(_micros, run, _nothing, count, chunksize) for name, run in maps.items()}
    readings = common.interleaved(ways, rounds)
    name = f"{count:,} empty tasks, {f'chunksize {chunksize}' if chunksize else 'default chunksize'}"
    bench.table(name, ["pool", "us per task", f"ratio to {peers.FLOOR}"], peers.ratio_rows(readings))
    return name, readings


def _alone(folder: Path, count: int) -> float:
    """Log `count` rows with a flush after each row, without mpr. Return the microseconds per row.

    This is the floor. It runs as a task of `multiprocessing.Pool`.
    """
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
    return 1e6 * secs / count


def main() -> None:
    bench = report.begin(__doc__)
    with ExitStack() as stack:
        maps = {name: start(stack) for name, start in peers.pools().items()}
        for count, chunksize, rounds in _EMPTY:
            name, readings = _empty(bench, maps, count, chunksize, bench.rounds(rounds))
            if chunksize:
                ours = readings[peers.MPR]
                bench.target(f"{name} / {peers.FLOOR}", common.ratios(ours, readings[peers.FLOOR]), 3.0)
                pairs = common.ratios(ours, readings["ProcessPoolExecutor"])
                bench.target(f"{name} / ProcessPoolExecutor", pairs)
        two = {name: maps[name] for name in _TWO}
        for count, chunksize, rounds in _EMPTY_OF_TWO:
            name, readings = _empty(bench, two, count, chunksize, bench.rounds(rounds))
            pairs = common.ratios(readings[peers.MPR], readings[peers.FLOOR])
            bench.target(f"{name} / {peers.FLOOR}", pairs, 1.5)
    rounds = bench.rounds(5)
    with common.scratch() as folder, ExitStack() as stack:
        path = folder / "out.rrd"
        alone = stack.enter_context(multiprocessing.get_context("forkserver").Pool(1))
        floor = "rr.log + flush, alone"
        with mpr.Pool("benchmark", peers.WORKERS, sinks=[path]) as pool:
            readings = common.interleaved(
                {
                    floor: lambda: alone.apply(_alone, (folder, LOGGING)),
                    "mpr.Pool, chunksize 1": lambda: _micros(pool.map, _log_row, LOGGING, 1),
                    "mpr.Pool, default chunksize": lambda: _micros(pool.map, _log_row, LOGGING, None),
                },
                rounds,
            )
        common.check_file(path, 2 * LOGGING * (rounds + 1))
    columns = ["way", "us per task", f"ratio to {floor}"]
    bench.table(f"{LOGGING:,} tasks that log one row", columns, peers.ratio_rows(readings, floor))
    pairs = common.ratios(readings["mpr.Pool, chunksize 1"], readings[floor])
    bench.target("a task that logs one row, chunksize 1 / `rr.log` and a flush, alone", pairs, 1.5)
    bench.end()


if __name__ == "__main__":
    main()

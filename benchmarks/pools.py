"""How does `mpr.Pool` compare with other process pools: tiny tasks, large results, a dead worker, the end?

All pools have two warm workers at the same time; only one of them works. Peers that are not installed are left out
(`pip install --group bench`).
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import mpr
from benchmarks import common

WORKERS = 2
EMPTY = 10_000
# (size of a result in MB, how many)
RESULTS = ((1, 100), (100, 4))
FLOOR = "multiprocessing.Pool"

Map = Callable[[Callable[[int], Any], Iterable[int], int | None], Iterable[Any]]


def _nothing(number: int) -> int:
    return number


def _megabytes(count: int) -> Any:
    return np.ones(count << 20, np.uint8)


def _die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _of_executor(executor: Executor) -> Map:
    # Its own default is 1.
    return lambda task, items, chunksize: executor.map(task, items, chunksize=chunksize or 1)


def _peers(stack: ExitStack) -> dict[str, Map]:
    """The other pools, those of them that are installed, warm."""
    context = multiprocessing.get_context("forkserver")
    maps: dict[str, Map] = {
        FLOOR: stack.enter_context(context.Pool(WORKERS)).map,
        "ProcessPoolExecutor": _of_executor(stack.enter_context(ProcessPoolExecutor(WORKERS, mp_context=context))),
    }
    if (loky := _installed("loky")) is not None:
        maps["loky"] = _of_executor(stack.enter_context(loky.ProcessPoolExecutor(WORKERS)))
    if (pebble := _installed("pebble")) is not None:
        pool = stack.enter_context(pebble.ProcessPool(WORKERS, context=context))
        maps["pebble"] = lambda task, items, chunksize: pool.map(task, items, chunksize=chunksize or 1).result()
    if (mpire := _installed("mpire")) is not None:
        workers = stack.enter_context(mpire.WorkerPool(WORKERS, start_method="forkserver", keep_alive=True))
        maps["mpire"] = lambda task, items, chunksize: workers.map(
            task, list(items), chunk_size=chunksize, concatenate_numpy_output=False
        )
    return maps


def _installed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        print(f"{package} is not installed", file=sys.stderr)
        return None


def _rate(run: Map, chunksize: int | None) -> float:
    begin = time.perf_counter()
    found = list(run(_nothing, range(EMPTY), chunksize))
    secs = time.perf_counter() - begin
    common.expect(sum(found), sum(range(EMPTY)), "results")
    return 1e6 * secs / EMPTY


def _throughput(run: Map, size: int, count: int) -> float:
    begin = time.perf_counter()
    bytes_there = sum(len(result) for result in run(_megabytes, [size] * count, 1))
    secs = time.perf_counter() - begin
    common.expect(bytes_there, (size * count) << 20, "bytes")
    return bytes_there / secs / 1e9


def _death(folder: Path) -> float:
    """Milliseconds from a task that kills its worker to its error."""
    with mpr.Pool("benchmark", WORKERS, sinks=folder / f"{time.monotonic_ns()}.rrd") as pool:
        pool.map(_nothing, range(100))
        begin = time.perf_counter()
        try:
            pool.apply(_die, (0,))
        except mpr.WorkerDiedError:
            return 1e3 * (time.perf_counter() - begin)
    raise common.WrongOutputError("nothing was said of a dead worker")


def _close(folder: Path) -> float:
    """Milliseconds that the end of a pool takes which has done its work."""
    pool = mpr.Pool("benchmark", WORKERS, sinks=folder / f"{time.monotonic_ns()}.rrd")
    pool.map(_nothing, range(1000))
    begin = time.perf_counter()
    pool.close()
    pool.join()
    return 1e3 * (time.perf_counter() - begin)


_INTERRUPTED = """
import sys, time, mpr

if __name__ == "__main__":
    with mpr.Pool("benchmark", 2, sinks=sys.argv[1]) as pool:
        results = [pool.apply_async(time.sleep, (seconds,)) for seconds in (0, 0, 30, 30)]
        results[0].get(), results[1].get()
        print("busy", flush=True)
        results[2].get()
"""


def _ctrl_c(folder: Path) -> float:
    """Milliseconds from Ctrl-C, to the whole group as a terminal sends it, to the end of the program."""
    command = [sys.executable, "-c", _INTERRUPTED, str(folder / f"{time.monotonic_ns()}.rrd")]
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, text=True
    )
    assert program.stdout is not None
    program.stdout.readline()
    begin = time.perf_counter()
    os.killpg(program.pid, signal.SIGINT)
    program.wait(60)
    return 1e3 * (time.perf_counter() - begin)


def _table(title: str, unit: str, readings: dict[str, list[float]]) -> None:
    rows = [
        [name, f"{common.median(found):.3g}", common.ratio(found, readings[FLOOR])] for name, found in readings.items()
    ]
    common.print_table(title, ["pool", unit, f"ratio to {FLOOR}"], rows)


def main() -> None:
    options = common.options(__doc__)
    rounds = options.rounds(5)
    common.print_header("How does mpr.Pool compare with other process pools?")
    with common.scratch() as folder, ExitStack() as stack:
        pool = stack.enter_context(mpr.Pool("benchmark", WORKERS, sinks=folder / "out.rrd"))
        maps: dict[str, Map] = {"mpr.Pool": pool.map, **_peers(stack)}
        for title, chunksize in (("chunksize 1", 1), ("each one's default chunksize", None)):
            ways = {name: functools.partial(_rate, run, chunksize) for name, run in maps.items()}
            _table(f"{EMPTY:,} empty tasks, {title}", "us per task", common.interleaved(ways, rounds))
        for size, count in RESULTS:
            ways = {name: functools.partial(_throughput, run, size, count) for name, run in maps.items()}
            _table(f"{count} results of {size} MB", "GB/s", common.interleaved(ways, rounds))
    with common.scratch() as folder:
        moments = {
            "the error of a task whose worker was killed": functools.partial(_death, folder),
            "close and join": functools.partial(_close, folder),
            "Ctrl-C to the end of the program": functools.partial(_ctrl_c, folder),
        }
        found = common.interleaved(moments, rounds)
        rows = [[name, f"{common.median(each):.0f}", f"{max(each):.0f}"] for name, each in found.items()]
        common.print_table("mpr.Pool alone", ["moment", "ms, median", "ms, longest"], rows)


if __name__ == "__main__":
    main()

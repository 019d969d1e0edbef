"""Start mpr's pool and other process pools, all with the same interface: a function that maps.

Pools that are not installed are left out. `pip install --group bench` installs all of them.
"""

from __future__ import annotations

import importlib
import multiprocessing
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any

import mpr
from benchmarks import common

WORKERS = 2
MPR, FLOOR = "mpr.Pool", "multiprocessing.Pool"

Map = Callable[[Callable[[int], Any], Iterable[int], int | None], Iterable[Any]]
"""`map(task, items, chunksize)` of a pool. If `chunksize` is None, the pool uses its own default."""

Open = Callable[[ExitStack], Map]
"""Starts a pool of two workers, and returns its `map`. The pool ends when the stack closes."""


def _package(name: str) -> Any:
    """Import a package, which may have no types. Raises `ImportError` if it is not installed."""
    return importlib.import_module(name)


def _mpr(stack: ExitStack) -> Map:
    folder = stack.enter_context(common.scratch())
    return stack.enter_context(mpr.Pool("benchmark", WORKERS, sinks=folder / "out.rrd")).map


def _multiprocessing(stack: ExitStack) -> Map:
    pool = multiprocessing.get_context("forkserver").Pool(WORKERS)

    def end() -> None:
        # The pool's own `with` block would end with `terminate`, which does not wait for the workers' tasks. The other
        # pools do wait.
        pool.close()
        pool.join()

    stack.callback(end)
    return pool.map


def _executor_map(executor: Executor) -> Map:
    # The default of `Executor.map` is 1.
    return lambda task, items, chunksize: executor.map(task, items, chunksize=chunksize or 1)


def _executor(stack: ExitStack) -> Map:
    context = multiprocessing.get_context("forkserver")
    return _executor_map(stack.enter_context(ProcessPoolExecutor(WORKERS, mp_context=context)))


def _loky(stack: ExitStack) -> Map:
    return _executor_map(stack.enter_context(_package("loky").ProcessPoolExecutor(WORKERS)))


def _joblib(stack: ExitStack) -> Map:
    joblib, loky = _package("joblib"), _package("joblib.externals.loky")
    # The workers that joblib starts would live until this process ends. So they are shut down at the end of the pool.
    stack.callback(lambda: loky.get_reusable_executor(max_workers=WORKERS).shutdown(wait=True))

    def run(task: Callable[[int], Any], items: Iterable[int], chunksize: int | None) -> Iterable[Any]:
        parallel = joblib.Parallel(n_jobs=WORKERS, batch_size=chunksize or "auto")
        found: Iterable[Any] = parallel(joblib.delayed(task)(item) for item in items)
        return found

    return run


def _mpire(stack: ExitStack) -> Map:
    workers = stack.enter_context(_package("mpire").WorkerPool(WORKERS, start_method="forkserver", keep_alive=True))
    # By default, mpire would join results that are arrays to one array.
    return lambda task, items, chunksize: workers.map(
        task, list(items), chunk_size=chunksize, concatenate_numpy_output=False
    )


def _pebble(stack: ExitStack) -> Map:
    pool = stack.enter_context(
        _package("pebble").ProcessPool(WORKERS, context=multiprocessing.get_context("forkserver"))
    )
    return lambda task, items, chunksize: pool.map(task, items, chunksize=chunksize or 1).result()


_PEERS: dict[str, tuple[str, Open]] = {
    MPR: ("mpr", _mpr),
    FLOOR: ("multiprocessing", _multiprocessing),
    "ProcessPoolExecutor": ("concurrent.futures", _executor),
    "loky": ("loky", _loky),
    "joblib": ("joblib", _joblib),
    "mpire": ("mpire", _mpire),
    "pebble": ("pebble", _pebble),
}


def pools() -> dict[str, Open]:
    """Return the pools that are installed: for each name, the function that starts such a pool."""
    found = {}
    for name, (package, start) in _PEERS.items():
        try:
            _package(package)
        except ImportError:
            print(f"{package} is not installed", file=sys.stderr)
        else:
            found[name] = start
    return found


def ratio_rows(readings: dict[str, list[float]], floor: str = FLOOR) -> list[list[str]]:
    """Return a row of a table for each pool: its name, the median of its readings, the ratio to the pool `floor`."""
    return [
        [name, f"{common.median(found):.3g}", common.ratio(found, readings[floor])] for name, found in readings.items()
    ]

"""Delivers the rows of processes that end without running their exit handlers.

- Many forked children end by `os._exit`. mpr wraps `os._exit` and `os.exec...`, so that the process first leaves its
  recordings.
- A worker of `multiprocessing.Pool` is killed at the end of the pool's `with` block. mpr wraps the main function of
  forked workers, so that a worker sends the rows of each task before the task's result. Under `mpr run`, other workers
  wrap this function themselves (`run/startup.py`).

Covers: these two wrappers, also for `multiprocess`, the copy of `multiprocessing` that pathos uses.
Does not cover: the delivery of the rows itself (`membership.py`).
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from mpr.limits import LEAVE_SECS
from mpr.threads import BoundedThread
from mpr.user_code import log as _log

# Functions that end a process without its exit handlers. The other functions of `os.exec...` call the last two.
_ENDS = ("_exit", "execv", "execve")
# The pools whose workers are killed: of the standard library, and of pathos.
_POOLS = ("multiprocessing.pool", "multiprocess.pool")
_MARK = "_mpr_flushes"


def protect(has_joined: Callable[[], bool], leave_all: Callable[[], None]) -> None:
    """Make this process, and the processes that it forks, call `leave_all()` before `os._exit` and `os.exec...`.

    `leave_all()` is called only if `has_joined()` returns True, and may take up to 10 s (see `_leave_in_time`). Code
    that has imported `_exit` from `os` before is not changed. This function also calls `flush_before_results` for
    `multiprocessing.pool` and `multiprocess.pool`, if they are imported.
    """
    for name in _ENDS:
        end = getattr(os, name)
        if not hasattr(end, _MARK):
            setattr(os, name, _leaving(end, has_joined, leave_all))
    for name in _POOLS:
        module = sys.modules.get(name)
        if module is not None:
            flush_before_results(module)


def protect_pools() -> None:
    """From now on, make forked workers of a `multiprocessing.Pool` send the rows of a task before the task's result.

    This concerns pools that this process starts, and also those of `multiprocess` (pathos) if that module is imported.
    A worker that `spawn` or a fork server starts is not changed (see `flush_before_results`).
    """
    # Imported here, because `multiprocessing.Pool` imports its module when it is called.
    importlib.import_module(_POOLS[0])
    if "multiprocess" in sys.modules:
        importlib.import_module(_POOLS[1])
    for name in _POOLS:
        if name in sys.modules:
            flush_before_results(sys.modules[name])


def _leaving(
    end: Callable[..., Any], has_joined: Callable[[], bool], leave_all: Callable[[], None]
) -> Callable[..., Any]:
    @functools.wraps(end)
    def leave_and_end(*args: Any, **kwargs: Any) -> Any:
        if has_joined():
            _leave_in_time(leave_all)
        return end(*args, **kwargs)

    setattr(leave_and_end, _MARK, True)
    return leave_and_end


def _leave_in_time(leave_all: Callable[[], None]) -> None:
    """Call `leave_all` in a thread, and wait up to `LEAVE_SECS` seconds for its end. Log an error if it takes longer.

    The wait has a limit because another thread may hold a lock for ever. If no thread can be started, call `leave_all`
    in this thread, without a limit.
    """
    try:
        if not BoundedThread("mpr-leaver").do(leave_all, LEAVE_SECS):
            _log.error("the last rows of this process (pid %d) may be missing: it ends in the middle", os.getpid())
    except RuntimeError:
        # The system gives no more threads.
        leave_all()


def flush_before_results(pool: ModuleType) -> None:
    """Replace the function `worker` of `pool`, so that workers send the rows of each task before the task's result.

    `pool` is the module that defines the pools, such as `multiprocessing.pool`. Each worker process runs the function
    `worker`. A second call does nothing. A worker that `spawn` or a fork server starts imports the module itself, so
    this function must be called in that process, too.
    """
    work = pool.worker
    if hasattr(work, _MARK):
        return

    @functools.wraps(work)
    def worker(inqueue: Any, outqueue: Any, *args: Any, **kwargs: Any) -> None:
        # A queue without pipes belongs to a pool of threads, which needs no wrapper, because threads are not killed.
        results = _Results(outqueue) if hasattr(outqueue, "_writer") else outqueue
        work(inqueue, results, *args, **kwargs)

    setattr(worker, _MARK, True)
    # A worker started by `spawn` looks for this function by its name, and finds the function of its own process.
    pool.worker = worker  # type: ignore[attr-defined]  # not in typeshed


class _Results:
    """Wraps the queue of a pool's results. Before each result, announces the rows of this process."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def put(self, result: Any) -> None:
        membership = sys.modules.get("mpr.producer.membership")
        # Without this module, the worker has not used Rerun until now, so it has no rows.
        if membership is not None:
            membership.flush_all()
        self._queue.put(result)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

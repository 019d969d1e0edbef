"""Delivers the rows of processes that end without running their exit handlers, for `mpr run`.

- Many forked children call `os._exit`. A process that calls `os._exit` or `os.exec...` leaves its recordings first:
  it sends the rest of its rows.
- A worker of `multiprocessing.Pool` is killed at the end of the pool's `with` block. So the worker sends the rows of
  each task before the task's result.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

# Functions that end a process without its exit handlers. The other functions of `os.exec...` call the last two.
_ENDS = ("_exit", "execv", "execve")


def leave_first() -> None:
    """Make the functions of `_ENDS` leave the recordings first, in this process and in each child that it forks."""
    for name in _ENDS:
        setattr(os, name, _leaving(getattr(os, name)))


def _leaving(end: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(end)
    def leave_and_end(*args: Any, **kwargs: Any) -> Any:
        from mpr.producer import membership

        membership.leave_all()
        return end(*args, **kwargs)

    return leave_and_end


def flush_before_results(pool: ModuleType) -> None:
    """Make workers of `multiprocessing.pool` send the rows of each task before the task's result."""
    work = pool.worker

    @functools.wraps(work)
    def worker(inqueue: Any, outqueue: Any, *args: Any, **kwargs: Any) -> None:
        # A queue without pipes belongs to a pool of threads, which needs no wrapper, because threads are not killed.
        results = _Results(outqueue) if hasattr(outqueue, "_writer") else outqueue
        work(inqueue, results, *args, **kwargs)

    # A worker started by `spawn` looks for this function by its name, and finds the wrapper of its own process.
    pool.worker = worker  # type: ignore[attr-defined]  # not in typeshed


class _Results:
    """Wraps the queue of a pool's results, and flushes the rows of the process before each result."""

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

"""Delivers rows of processes that end without their exit handlers, for `mpr run`.

- A process that calls `os._exit`, as many forked children do, or `os.exec...` leaves its recordings first.
- A worker of `multiprocessing.Pool` is killed at the end of the pool's `with` block. It sends the rows of a task before
  the result.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

# Functions that end a process at once; the other functions of `os.exec...` call the last two.
_ENDS = ("_exit", "execv", "execve")


def leave_first() -> None:
    """Let this process, and each child that it forks, leave its recordings before a function of `_ENDS` ends it."""
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
    """Let workers of `multiprocessing.pool` send the rows of a task before its result."""
    work = pool.worker

    @functools.wraps(work)
    def worker(inqueue: Any, outqueue: Any, *args: Any, **kwargs: Any) -> None:
        # A pool of threads has a queue without pipes. Its workers are threads, and are not killed.
        results = _Results(outqueue) if hasattr(outqueue, "_writer") else outqueue
        work(inqueue, results, *args, **kwargs)

    # A worker started by `spawn` finds this function by its name, in its own process.
    pool.worker = worker  # type: ignore[attr-defined]  # not in typeshed


class _Results:
    """Wraps the queue of a pool's results."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def put(self, result: Any) -> None:
        membership = sys.modules.get("mpr.producer.membership")
        # If the worker has not used Rerun until now, it has no rows.
        if membership is not None:
            membership.flush_all()
        self._queue.put(result)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

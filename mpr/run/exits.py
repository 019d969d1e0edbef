"""Where processes of an unchanged script end without a word: what they have logged goes out before. For `mpr run`.

- `os._exit`, as of many forked children, and `os.exec...`: the process leaves its recordings first.
- A worker of `multiprocessing.Pool`, which the end of the pool's `with` block kills: a result comes behind the rows of
  its task.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

# By which a process ends at once; `os.execvp` and its like call the last two.
_ENDS = ("_exit", "execv", "execve")


def leave_first() -> None:
    """Let this process leave its recordings before it ends by one of `_ENDS`, and so each child that it forks."""
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
    """Let workers of `multiprocessing.pool` bring the rows of a task on their way before its result."""
    work = pool.worker

    @functools.wraps(work)
    def worker(inqueue: Any, outqueue: Any, *args: Any, **kwargs: Any) -> None:
        # A pool of threads has a queue without pipes, and nobody kills its workers.
        results = _Results(outqueue) if hasattr(outqueue, "_writer") else outqueue
        work(inqueue, results, *args, **kwargs)

    # Also for `spawn`, which finds the worker's function by its name.
    pool.worker = worker  # type: ignore[attr-defined]  # not in typeshed


class _Results:
    """A queue of a pool's results."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def put(self, result: Any) -> None:
        joining = sys.modules.get("mpr.producer.membership")
        # Where the worker has not used Rerun until now, there is nothing to bring.
        if joining is not None:
            joining.flush_all()
        self._queue.put(result)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

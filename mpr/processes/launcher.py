"""How worker processes begin and end, for each start method.

Covers: mpr's own fork server (with its own preload list), `spawn`, the zygote of `fork`, the guard against orphans.
Does not cover: how many workers there are and what they do (`scheduler/worker_supervisor.py`, `worker/loop.py`).

| start method | who makes a worker | what a worker starts with |
|---|---|---|
| `forkserver` | a server process, started once, that has imported `rerun` | those imports and `__main__` |
| `spawn` | a new interpreter each | `__main__`, imported anew |
| `fork` | a zygote, forked in `Pool()` before any thread of ours exists | everything that the parent had then |
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import pkgutil
import select
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection as mp_connection
from multiprocessing import process
from typing import Any


class Launcher(ABC):
    """Starts worker processes that run `target(config, shared)`, and says which have ended. One thread uses it."""

    @abstractmethod
    def start(self, worker: int, config: Any) -> int:
        """Start worker number `worker` with its own `config`; returns its pid."""

    @abstractmethod
    def waitables(self) -> list[Any]:
        """What `multiprocessing.connection.wait` can wait for: ready when a worker has ended."""

    @abstractmethod
    def ended(self) -> Iterable[tuple[int, int | None]]:
        """(worker, exit code) of each that has ended since the last call."""

    @abstractmethod
    def close(self) -> None:
        """Release what belongs to the launcher; all workers have ended."""


@contextlib.contextmanager
def ctrl_c_blocked() -> Iterator[None]:
    """Processes started within, from this thread, do not see Ctrl-C before they have chosen to ignore it.

    It reaches the whole group; a worker that is just importing the SDK would print a traceback of its own.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_ctrl_c() -> None:
    """What becomes of the workers after Ctrl-C, the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class ProcessLauncher(Launcher):
    """`spawn` and `forkserver`: each worker is a `multiprocessing` process of this one."""

    def __init__(self, factory: Callable[..., process.BaseProcess], target: str, shared: Any) -> None:
        self._factory = factory
        self._target = target
        self._shared = shared
        self._processes: dict[int, process.BaseProcess] = {}

    def start(self, worker: int, config: Any) -> int:
        child = self._factory(
            target=_started_main, args=(self._target, config, self._shared), name=f"mpr-worker-{worker}"
        )
        child.start()
        self._processes[worker] = child
        assert child.pid is not None
        return child.pid

    def waitables(self) -> list[Any]:
        return [child.sentinel for child in self._processes.values()]

    def ended(self) -> Iterable[tuple[int, int | None]]:
        for worker, child in list(self._processes.items()):
            if not child.is_alive():
                child.join()
                exitcode = child.exitcode
                child.close()
                del self._processes[worker]
                yield worker, exitcode

    def close(self) -> None:
        self._processes.clear()


def call_target(target: str, config: Any, shared: Any) -> None:
    """Call the function `target`, as "module:function"; only the process that runs it imports its module."""
    pkgutil.resolve_name(target)(config, shared)


def _started_main(target: str, config: Any, shared: Any) -> None:
    ignore_ctrl_c()
    guard_against_orphans()
    call_target(target, config, shared)


# --- orphans ------------------------------------------------------------------------------------------------------


def guard_against_orphans(watched: int | None = None) -> None:
    """Let the kernel kill this process when its parent ends, also while native code holds the GIL.

    `watched` is the read end of a pipe whose other end only the parent has; None stands for the sentinel that
    `multiprocessing` gives its children. The kernel sends SIGKILL when that end closes (`F_SETSIG`, `O_ASYNC`).
    """
    if watched is None:
        parent = multiprocessing.parent_process()
        if parent is None:
            return
        watched = parent.sentinel
    if sys.platform == "linux":
        fcntl.fcntl(watched, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(watched, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(watched, fcntl.F_SETFL, fcntl.fcntl(watched, fcntl.F_GETFL) | os.O_ASYNC)
        # It may have closed before the signal was armed.
        poll = select.poll()
        poll.register(watched, select.POLLHUP)
        if any(event & select.POLLHUP for _, event in poll.poll(0)):
            os.kill(os.getpid(), signal.SIGKILL)
    else:

        def wait() -> None:
            mp_connection.wait([watched])
            os._exit(1)

        threading.Thread(target=wait, name="mpr-orphan-guard", daemon=True).start()

"""Starts worker processes and reports which have ended: the interface, and the start method `spawn`.

Covers: what all start methods share, with the guard against orphans.
Does not cover: the fork server (`forkserver.py`), the zygote of `fork` (`zygote.py`), and the work of a worker.
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
    """Starts worker processes that run `target(config, shared)`, and reports which have ended. One thread uses it."""

    @abstractmethod
    def start(self, worker: int, config: Any) -> int:
        """Start worker number `worker` with its own `config`; returns its pid."""

    @abstractmethod
    def waitables(self) -> list[Any]:
        """Return objects for `multiprocessing.connection.wait`, of which one is ready when a worker has ended."""

    @abstractmethod
    def ended(self) -> Iterable[tuple[int, int | None]]:
        """Return (worker, exit code) of each worker that has ended since the last call; the code may be unknown."""

    @abstractmethod
    def close(self) -> None:
        """Release the resources of the launcher; all workers have ended before."""


@contextlib.contextmanager
def ctrl_c_blocked() -> Iterator[None]:
    """Keep Ctrl-C from processes that this thread starts within the block, until they ignore it themselves.

    Ctrl-C reaches the whole process group. A worker that is just importing the SDK would print a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_ctrl_c() -> None:
    """Ignore Ctrl-C in this process, because the parent ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class ProcessLauncher(Launcher):
    """Starts each worker as a `multiprocessing` process of this one: by `spawn`, and in a subclass by `forkserver`."""

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
    """Call the function `target`, a name as "module:function", whose module only the worker process imports."""
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
        # The end may have closed before the signal was set up.
        poll = select.poll()
        poll.register(watched, select.POLLHUP)
        if any(event & select.POLLHUP for _, event in poll.poll(0)):
            os.kill(os.getpid(), signal.SIGKILL)
    else:

        def wait() -> None:
            mp_connection.wait([watched])
            os._exit(1)

        threading.Thread(target=wait, name="mpr-orphan-guard", daemon=True).start()

"""Starts worker processes and reports which have ended: the interface `Launcher`, and the start method `spawn`."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import pkgutil
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection as mp_connection
from multiprocessing import process
from types import FunctionType, SimpleNamespace
from typing import Any

from mpr.user_code import log as _log

#: A server is a process that forks workers: a fork server or a zygote. The longest time in which it forks a worker, and
#: the time between two checks whether a signal has stopped the server (seconds).
SERVER_FORK_SECS = 60.0
SERVER_LOOK_SECS = 0.5


class Launcher(ABC):
    """Starts worker processes that run `target(config, shared)`, and reports which of them have ended.

    After the constructor, only one thread uses a launcher. A subclass gets `target` and `shared` in its constructor.
    """

    @abstractmethod
    def start(self, worker: int, config: Any) -> int:
        """Start the worker with the number `worker`, and return its process id.

        The worker calls `target(config, shared)`. Raises any error, such as `TimeoutError`, if no process can be
        started.
        """

    @abstractmethod
    def waitables(self) -> list[Any]:
        """Return objects of which one becomes ready in `multiprocessing.connection.wait` when a worker has ended.

        The list is empty if there is nothing to wait for.
        """

    @abstractmethod
    def ended(self) -> Iterable[tuple[int, int | None]]:
        """Return a pair (worker number, exit code) for each worker that has ended since the last call.

        The exit code is None if it is not known.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the resources of the launcher. Call this when all workers have ended.

        With `fork`, this kills workers that still run.
        """


@contextlib.contextmanager
def ctrl_c_blocked() -> Iterator[None]:
    """Block SIGINT (Ctrl-C) in the processes that this thread starts within the `with` block.

    Each of these processes later calls `ignore_ctrl_c`. Ctrl-C reaches the whole process group, and a worker that
    imports the SDK at this moment would print a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_ctrl_c() -> None:
    """Unblock SIGINT (Ctrl-C) in this process, and ignore it, because the parent itself ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class StoppedServers:
    """Continues the servers of a launcher if a signal such as SIGSTOP has stopped them.

    While a server is stopped, it starts no worker, and does not report the end of a worker.
    """

    def __init__(self) -> None:
        # `time.monotonic()` of the next look.
        self._look_at = 0.0

    def look(self, pids: Iterable[int]) -> None:
        """Continue each process in `pids` that a signal has stopped, and log a warning.

        Checks at most once per `SERVER_LOOK_SECS` seconds.
        """
        if time.monotonic() < self._look_at:
            return
        import psutil

        self._look_at = time.monotonic() + SERVER_LOOK_SECS
        for pid in pids:
            # An error means that the server has ended, which is noticed elsewhere.
            with contextlib.suppress(psutil.Error):
                server = psutil.Process(pid)
                if server.status() == psutil.STATUS_STOPPED:
                    _log.warning("mpr's server for workers (pid %d) is stopped, so none can start: it goes on", pid)
                    server.resume()


class ProcessLauncher(Launcher):
    """Starts each worker as a `multiprocessing` process: by `spawn`, or by `forkserver` in a subclass.

    Parameters
    ----------
    factory:
        A function that makes a process of `multiprocessing`. It takes the keywords of `multiprocessing.Process`.
    target:
        The function that each worker runs, in the form "module:function".
    shared:
        The second argument of this function, which is the same for all workers.
    """

    def __init__(self, factory: Callable[..., process.BaseProcess], target: str, shared: Any) -> None:
        self._factory = factory
        self._target = target
        self._shared = shared
        self._processes: dict[int, process.BaseProcess] = {}

    def start(self, worker: int, config: Any) -> int:
        child = self._factory(
            target=_started_main, args=(self._target, config, self._shared), name=f"mpr-worker-{worker}"
        )
        start_process(child)
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


def start_process(child: process.BaseProcess) -> None:
    """Start `child`, also if this process is daemonic, such as a worker of `multiprocessing.Pool` or joblib.

    `multiprocessing` refuses children of daemonic processes, because nothing would end them. Processes of mpr end with
    their parent.
    """
    if not process.current_process().daemon:
        child.start()
        return
    child.daemon = False
    names = {**vars(process), "_current_process": SimpleNamespace(_config={})}
    FunctionType(process.BaseProcess.start.__code__, names)(child)


def call_target(target: str, config: Any, shared: Any) -> None:
    """Call `target(config, shared)`. `target` is a text "module:function".

    `target` is a text, because only workers should import the module.
    """
    pkgutil.resolve_name(target)(config, shared)


def _started_main(target: str, config: Any, shared: Any) -> None:
    ignore_ctrl_c()
    guard_against_orphans()
    call_target(target, config, shared)


# --- orphans ------------------------------------------------------------------------------------------------------


def guard_against_orphans(watched: int | None = None) -> None:
    """Make this process end when its parent ends.

    `watched` is the read end of a pipe whose write end only the parent has. If `watched` is None, the function uses the
    pipe that `multiprocessing` makes for each child. If there is no such pipe, it does nothing. When the write end
    closes, the kernel sends SIGKILL on Linux, even if native code holds the GIL. On macOS, a thread ends this process
    as soon as the thread gets the GIL.
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
        # The write end may have closed before the signal was set up.
        if mp_connection.wait([watched], 0):
            os.kill(os.getpid(), signal.SIGKILL)
    else:

        def wait() -> None:
            mp_connection.wait([watched])
            os._exit(1)

        threading.Thread(target=wait, name="mpr-orphan-guard", daemon=True).start()

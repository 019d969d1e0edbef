"""How worker processes begin and end, for each start method.

Covers: mpr's own fork server (with its own preload list), `spawn`, the zygote of `fork`, the guard against orphans.
Does not cover: how many workers there are and what they do (`crew.py`, `worker.py`).

| start method | who makes a worker | what a worker starts with |
|---|---|---|
| `forkserver` | a server process, started once, that has imported `rerun` | those imports and `__main__` |
| `spawn` | a new interpreter each | `__main__`, imported anew |
| `fork` | a zygote, forked in `Pool()` before any thread of ours exists | everything that the parent had then |
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import io
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection as mp_connection
from multiprocessing import popen_fork, process, reduction, spawn, util
from multiprocessing.context import ForkServerProcess, set_spawning_popen
from multiprocessing.forkserver import ForkServer, read_signed
from typing import Any

from mpr.config import StartMethod
from mpr.errors import ConfigError
from mpr.transport.ipc_folder import short_listener_paths

#: What the fork server imports before it forks: each takes a worker tenths of a second otherwise.
PRELOAD = ("rerun", "numpy", "pyarrow", "mpr.worker", "mpr.preload")
WITHOUT_SDK = ("numpy", "pyarrow", "mpr.preload")


def check_start_method(method: object) -> StartMethod:
    """The start method to use; `forkserver` for None where the platform has it, else `spawn`."""
    if sys.platform == "win32":
        raise ConfigError("mpr runs on Linux and macOS; Windows is not supported yet")
    offered = multiprocessing.get_all_start_methods()
    if method is None:
        return "forkserver" if "forkserver" in offered else "spawn"
    if method not in offered:
        raise ConfigError(f"start_method must be one of {', '.join(sorted(offered))}, got {method!r}")
    return method  # type: ignore[return-value]  # one of those offered


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


def make_launcher(method: StartMethod, preload: bool, target: Callable[[Any, Any], None], shared: Any) -> Launcher:
    """What starts workers by `method`. For 'fork', call this before any thread is started.

    `shared` is the same for all workers; under 'fork' it is inherited, else pickled.
    """
    if method == "fork":
        return ZygoteLauncher(target, shared)
    if method == "spawn":
        return ProcessLauncher(multiprocessing.get_context("spawn").Process, target, shared)
    server = servers.get(PRELOAD if preload else WITHOUT_SDK)
    # It imports while the parent does; a worker then need not wait for either.
    with ctrl_c_held_back():
        server.ensure_running()
    return ForkServerLauncher(server, target, shared)


@contextlib.contextmanager
def ctrl_c_held_back() -> Iterator[None]:
    """Processes started within, from this thread, do not see Ctrl-C before they have chosen to ignore it.

    It reaches the whole group; a worker that is just importing the SDK would print a traceback of its own.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_ctrl_c() -> None:
    """What becomes of the workers after Ctrl-C, the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class ProcessLauncher(Launcher):
    """`spawn` and `forkserver`: each worker is a `multiprocessing` process of this one."""

    def __init__(
        self, factory: Callable[..., process.BaseProcess], target: Callable[[Any, Any], None], shared: Any
    ) -> None:
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


def _started_main(target: Callable[[Any, Any], None], config: Any, shared: Any) -> None:
    _ignore_ctrl_c()
    guard_against_orphans()
    target(config, shared)


# --- our own fork server ------------------------------------------------------------------------------------------


# How long a worker waits for a fork server in the place of one that was killed.
_SERVER_SECS = 10.0


class _Server(ForkServer):
    def ensure_running(self) -> None:
        with short_listener_paths():
            super().ensure_running()


class _Servers:
    """One fork server of ours per preload list. `multiprocessing`'s own, and its preload list, stay the user's."""

    def __init__(self) -> None:
        self._servers: dict[tuple[str, ...], ForkServer] = {}

    def get(self, preload: tuple[str, ...]) -> ForkServer:
        server = self._servers.get(preload)
        if server is None:
            server = self._servers[preload] = _Server()
            server.set_forkserver_preload(list(preload))
        return server

    def pids(self) -> set[int]:
        """Process ids of the servers that run."""
        pids = (getattr(server, "_forkserver_pid", None) for server in self._servers.values())
        return {pid for pid in pids if pid is not None}

    def forget(self) -> None:
        self._servers.clear()


servers = _Servers()
# A fork's servers are its parent's: it must not wait for them or stop them.
os.register_at_fork(after_in_child=servers.forget)


class _Popen(popen_fork.Popen):
    """`multiprocessing.popen_forkserver.Popen`, which always asks the one server of the whole process, for ours."""

    method = "forkserver"

    class DupFd:
        def __init__(self, index: int) -> None:
            self._index = index

        def detach(self) -> int:
            from multiprocessing.forkserver import get_inherited_fds

            fds: list[int] = get_inherited_fds() or []
            return fds[self._index]

    def __init__(self, process_obj: process.BaseProcess, connect: Callable[[list[int]], tuple[int, int]]) -> None:
        self._fds: list[int] = []
        self._connect = connect
        super().__init__(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        self._fds.append(fd)
        return len(self._fds) - 1

    def _launch(self, process_obj: process.BaseProcess) -> None:
        prepared = spawn.get_preparation_data(process_obj.name)
        buffer = io.BytesIO()
        set_spawning_popen(self)  # type: ignore[arg-type]  # a `Popen` of ours
        try:
            reduction.dump(prepared, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            set_spawning_popen(None)
        self.sentinel, data_end = self._connect(self._fds)
        # Kept open: the child sees by it that this process has ended.
        parent_end = os.dup(data_end)
        self.finalizer = util.Finalize(self, _close, (parent_end, self.sentinel))
        with open(data_end, "wb", closefd=True) as pipe:
            pipe.write(buffer.getbuffer())
        self.pid = read_signed(self.sentinel)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            if not mp_connection.wait([self.sentinel], 0 if flag == os.WNOHANG else None):
                return None
            try:
                self.returncode = read_signed(self.sentinel)
            except (OSError, EOFError):
                # The fork server was killed; how the worker ended, nobody knows.
                self.returncode = 255
        return self.returncode


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


class _ForkServerProcess(ForkServerProcess):
    def __init__(self, popen: Callable[[process.BaseProcess], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._mpr_popen: Callable[[process.BaseProcess], Any] | None = popen

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802  # multiprocessing's name
        # Taken away before the process object is pickled for the child.
        popen, process_obj._mpr_popen = process_obj._mpr_popen, None
        return popen(process_obj)


class ForkServerLauncher(ProcessLauncher):
    """`forkserver`: workers are forked by a server of ours.

    A fork takes milliseconds, so the first worker is asked for at once, while the parent is still busy with the
    recording; what it shall run, it is told later.
    """

    def __init__(self, server: ForkServer, target: Callable[[Any, Any], None], shared: Any) -> None:
        super().__init__(functools.partial(_ForkServerProcess, self._popen), target, shared)
        self._server = server
        self._ahead: list[tuple[int, int]] = []
        # Where the server has just been killed, `start` finds another one.
        with contextlib.suppress(EOFError, ConnectionError):
            self._ahead.append(server.connect_to_new_process([]))

    def start(self, worker: int, config: Any) -> int:
        deadline = time.monotonic() + _SERVER_SECS
        while True:
            try:
                return super().start(worker, config)
            except (EOFError, ConnectionError):
                # The server was killed. Another one is started as soon as the system says that this one has ended.
                self._forget_ahead()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _popen(self, process_obj: process.BaseProcess) -> _Popen:
        return _Popen(process_obj, self._connect)

    def _connect(self, fds: list[int]) -> tuple[int, int]:
        """(what tells of the child's end, where it reads what to do); `fds` can only be sent with the request."""
        if self._ahead and not fds:
            return self._ahead.pop(0)
        pair: tuple[int, int] = self._server.connect_to_new_process(fds)
        return pair

    def close(self) -> None:
        super().close()
        self._forget_ahead()

    def _forget_ahead(self) -> None:
        """Give those that are not needed after all a process that ends at once."""
        while self._ahead:
            sentinel, data_end = self._ahead.pop()
            os.close(sentinel)
            # The server may be gone, and they with it.
            with contextlib.suppress(OSError), open(data_end, "wb", closefd=True) as pipe:
                reduction.dump({}, pipe)
                reduction.dump(_Nothing(), pipe)


class _Nothing:
    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (0,)


# --- fork: the zygote ---------------------------------------------------------------------------------------------


class ZygoteLauncher(Launcher):
    """`fork`: all workers are forked from a zygote that was forked before any thread of ours existed.

    The zygote is single-threaded for all its life, so a worker that replaces a dead one is forked as safely as the
    first. It gets everything by inheritance; over its pipe only numbers travel.
    """

    def __init__(self, target: Callable[[Any, Any], None], shared: Any) -> None:
        others = [thread.name for thread in threading.enumerate()[1:] if not _is_harmless(thread)]
        if others:
            warnings.warn(
                f"start_method='fork' while other threads run ({', '.join(others[:3])}): a lock that one of them holds "
                "stays locked for ever in the workers. Make the pool before the threads, or use 'forkserver'",
                RuntimeWarning,
                stacklevel=4,
            )
        self._gone = False
        self._started: set[int] = set()
        self._ended: list[tuple[int, int | None]] = []
        self._pipe, zygotes_end = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        self._zygote = context.Process(
            target=_zygote_main, args=(zygotes_end, self._pipe, target, shared), name="mpr-zygote"
        )
        self._zygote.start()
        zygotes_end.close()

    def start(self, worker: int, config: Any) -> int:
        self._pipe.send((worker, config))
        while True:
            kind, number, value = self._pipe.recv()
            if kind == "started":
                self._started.add(number)
                return int(value)
            self._note_end(number, value)

    def _note_end(self, worker: int, exitcode: int | None) -> None:
        self._started.discard(worker)
        self._ended.append((worker, exitcode))

    def waitables(self) -> list[Any]:
        return [] if self._gone else [self._pipe]

    def ended(self) -> Iterable[tuple[int, int | None]]:
        try:
            while self._pipe.poll():
                _, number, value = self._pipe.recv()
                self._note_end(number, value)
        except (EOFError, OSError):
            # The zygote is gone; its workers end with it (see `guard_against_orphans`).
            self._gone = True
            for worker in list(self._started):
                self._note_end(worker, None)
        found, self._ended = self._ended, []
        return found

    def close(self) -> None:
        # Another zygote may hold this pipe too, so closing it would not be noticed.
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._pipe.close()
        self._zygote.join(5)
        if self._zygote.is_alive():
            self._zygote.kill()
            self._zygote.join()
        self._zygote.close()


def _is_harmless(thread: threading.Thread) -> bool:
    """Threads that hold no lock which a worker could need: mpr's own, and the one that pyzmq frees memory with."""
    return thread.name.startswith("mpr-") or type(thread).__module__.startswith("zmq.")


def _ignore_signal(_number: int, _frame: object) -> None:
    """A handler, so that the signal is not discarded."""


def _zygote_main(pipe: Any, parents_end: Any, target: Callable[[Any, Any], None], shared: Any) -> None:
    """Fork a worker for each config that comes, and tell how each ends; end when the parent closes its side."""
    parents_end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One pipe that every worker watches: its other end is here and nowhere else.
    watched, held = os.pipe()
    # The end of a child is told by a signal: its sentinel stays open as long as processes live that it has forked.
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, _ignore_signal)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    context = multiprocessing.get_context("fork")
    children: dict[int, process.BaseProcess] = {}
    while True:
        ready = mp_connection.wait([pipe, woken])
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 4096)
        for worker, child in list(children.items()):
            if not child.is_alive():
                pipe.send(("ended", worker, child.exitcode))
                del children[worker]
        if pipe not in ready:
            continue
        try:
            order = pipe.recv()
        except (EOFError, OSError):
            break
        if order is None:
            break
        worker, config = order
        child = context.Process(
            target=_forked_main, args=(pipe, watched, held, target, config, shared), name=f"mpr-worker-{worker}"
        )
        child.start()
        children[worker] = child
        pipe.send(("started", worker, child.pid))
    for child in children.values():
        child.kill()
        child.join()


def _forked_main(
    pipe: Any, watched: int, held: int, target: Callable[[Any, Any], None], config: Any, shared: Any
) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _ignore_ctrl_c()
    pipe.close()
    os.close(held)
    guard_against_orphans(watched)
    target(config, shared)


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

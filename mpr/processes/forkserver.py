"""Starts workers for `forkserver`: a server process, which has imported modules that workers need, forks them."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from multiprocessing import connection as mp_connection
from multiprocessing import popen_fork, process, reduction, util
from multiprocessing.context import ForkServerProcess
from multiprocessing.forkserver import ForkServer, read_signed
from typing import Any

from mpr.processes.launcher import SERVER_FORK_SECS, SERVER_LOOK_SECS, ProcessLauncher, StoppedServers
from mpr.processes.spawning import close_fds, starting_bytes
from mpr.transport.ipc_folder import short_listener_paths

# --- our own fork server ------------------------------------------------------------------------------------------


# If the fork server was killed, the start of a worker waits up to this many seconds for a new one.
_SERVER_SECS = 10.0


class _Server(ForkServer):
    def ensure_running(self) -> None:
        method = multiprocessing.get_start_method(allow_none=True)
        with short_listener_paths():
            super().ensure_running()
        if method is None:
            # `ForkServer` chooses the default start method of this process. The program may still choose another one.
            multiprocessing.set_start_method(None, force=True)


class _Servers:
    """Holds the fork servers of mpr: one for each list of modules that a server imports at its start.

    mpr does not use the fork server of `multiprocessing`, which belongs to the user's program.
    """

    def __init__(self) -> None:
        self._servers: dict[tuple[str, ...], ForkServer] = {}

    def get(self, preload: tuple[str, ...]) -> ForkServer:
        server = self._servers.get(preload)
        if server is None:
            server = self._servers[preload] = _Server()
            server.set_forkserver_preload(list(preload))
        return server

    def pids(self) -> set[int]:
        """Return the process ids of the servers that this process has started. Some may have ended."""
        pids = (getattr(server, "_forkserver_pid", None) for server in self._servers.values())
        return {pid for pid in pids if pid is not None}

    def forget(self) -> None:
        self._servers.clear()


servers: _Servers = _Servers()
# A forked process must not wait for inherited servers or stop them, because they belong to its parent.
os.register_at_fork(after_in_child=servers.forget)


class _Popen(popen_fork.Popen):
    """Starts a process as `multiprocessing.popen_forkserver.Popen` does, but by a fork server of mpr.

    `connect(fds)` gets a new process from the server, and passes the descriptors `fds` to the process. The call returns
    the sentinel of the process, and the write end of the pipe from which the process reads its work.
    """

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
        data = starting_bytes(process_obj, self)
        self.sentinel, data_end = self._connect(self._fds)
        # This end of the pipe stays open, because the child ends when this end closes. The system closes this end when
        # this process ends.
        parent_end = os.dup(data_end)
        self.finalizer = util.Finalize(self, close_fds, (parent_end, self.sentinel))
        with open(data_end, "wb", closefd=True) as pipe:
            pipe.write(data)
        _wait_for_server(self.sentinel)
        self.pid = read_signed(self.sentinel)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            if not mp_connection.wait([self.sentinel], 0 if flag == os.WNOHANG else None):
                return None
            try:
                self.returncode = read_signed(self.sentinel)
            except (OSError, EOFError):
                # The exit code of the worker is lost, because the fork server was killed. `multiprocessing` reports 255
                # in this case, too.
                self.returncode = 255
        return self.returncode


def _wait_for_server(sentinel: int) -> None:
    """Wait until the fork server has forked a process, and has written the process id into `sentinel`.

    Continues servers that a signal has stopped. Raises `TimeoutError` if the fork takes longer than `SERVER_FORK_SECS`.
    """
    deadline = time.monotonic() + SERVER_FORK_SECS
    stopped = StoppedServers()
    while not mp_connection.wait([sentinel], SERVER_LOOK_SECS):
        stopped.look(servers.pids())
        if time.monotonic() > deadline:
            raise TimeoutError(f"mpr's fork server has started no process for {SERVER_FORK_SECS:.0f} s")


class _ForkServerProcess(ForkServerProcess):
    def __init__(self, popen: Callable[[process.BaseProcess], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._mpr_popen: Callable[[process.BaseProcess], Any] | None = popen

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802  # multiprocessing's name
        # `_mpr_popen` is removed, because it cannot be pickled and the process object is pickled for the child.
        popen, process_obj._mpr_popen = process_obj._mpr_popen, None
        return popen(process_obj)


class ForkServerLauncher(ProcessLauncher):
    """Starts workers for `forkserver`: a fork server of mpr forks them.

    Parameters
    ----------
    server:
        The fork server, which was started before.
    target, shared:
        As in `ProcessLauncher`.
    """

    def __init__(self, server: ForkServer, target: str, shared: Any) -> None:
        super().__init__(functools.partial(_ForkServerProcess, self._popen), target, shared)
        self._server = server
        self._stopped = StoppedServers()
        # The process of the first worker, as (sentinel, pipe). The launcher lets the server fork it now, because a fork
        # takes milliseconds, and the parent opens the recording meanwhile. Then the process reads its work from the
        # pipe. If no worker is needed, the process gets a `_Nothing` and ends.
        self._ahead: list[tuple[int, int]] = []
        # An error means that the server was killed just now. Then `start` waits for another server.
        with contextlib.suppress(EOFError, ConnectionError):
            self._ahead.append(server.connect_to_new_process([]))

    def ended(self) -> Iterable[tuple[int, int | None]]:
        # The server reports the end of a worker. While a signal has stopped the server, it reports nothing.
        self._stopped.look(servers.pids())
        return super().ended()

    def start(self, worker: int, config: Any) -> int:
        deadline = time.monotonic() + _SERVER_SECS
        while True:
            try:
                return super().start(worker, config)
            except (EOFError, ConnectionError):
                # The server was killed. `ensure_running` starts another one as soon as the system reports the end of
                # the old one, so this code waits and tries again.
                self._forget_ahead()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _popen(self, process_obj: process.BaseProcess) -> _Popen:
        return _Popen(process_obj, self._connect)

    def _connect(self, fds: list[int]) -> tuple[int, int]:
        """Return the sentinel of a child, and the write end of the pipe from which the child reads its work.

        `fds` are descriptors that the child needs. The first call without descriptors gets the child that the
        constructor has requested. For any other call, the server forks a new child, because descriptors can only be
        sent with the request.
        """
        if self._ahead and not fds:
            return self._ahead.pop(0)
        pair: tuple[int, int] = self._server.connect_to_new_process(fds)
        return pair

    def close(self) -> None:
        super().close()
        self._forget_ahead()

    def _forget_ahead(self) -> None:
        """End the child that the constructor has requested in advance, if no worker uses it."""
        while self._ahead:
            sentinel, data_end = self._ahead.pop()
            os.close(sentinel)
            # An error means that the process has ended already, because the server was killed.
            with contextlib.suppress(OSError), open(data_end, "wb", closefd=True) as pipe:
                reduction.dump({}, pipe)
                reduction.dump(_Nothing(), pipe)


class _Nothing:
    """Takes the place of a process object: the process that unpickles it ends at once, with exit code 0."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (0,)

"""Starts processes by forking a server that has imported what workers need."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import time
from collections.abc import Callable
from multiprocessing import connection as mp_connection
from multiprocessing import popen_fork, process, reduction, spawn, util
from multiprocessing.context import ForkServerProcess, set_spawning_popen
from multiprocessing.forkserver import ForkServer, read_signed
from typing import Any

from mpr.processes.launcher import ProcessLauncher
from mpr.transport.ipc_folder import short_listener_paths

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

    def __init__(self, server: ForkServer, target: str, shared: Any) -> None:
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

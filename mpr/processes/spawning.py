"""Starts processes for `spawn`, and makes the bytes from which each process of `spawn` and `forkserver` starts.

The bytes are the preparation data (the paths, the main script, and the start method that the new process itself uses by
default), and then the pickle of the process object.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
from multiprocessing import popen_spawn_posix, process, reduction, resource_tracker, spawn, util
from multiprocessing.context import SpawnProcess, set_spawning_popen
from types import FunctionType
from typing import Any

from mpr.errors import died_at_start


def starting_bytes(process_obj: process.BaseProcess, popen: Any) -> memoryview:
    """Return the bytes that the new process of `process_obj` reads at its start.

    Calls `popen.duplicate_for_child` for each file descriptor that the new process needs. Raises `WorkerStartError` as
    `check_place` does.
    """
    buffer = io.BytesIO()
    check_place()
    data = _preparation_data(process_obj.name)
    set_spawning_popen(popen)
    try:
        reduction.dump(data, buffer)
        reduction.dump(process_obj, buffer)
    finally:
        set_spawning_popen(None)
    return buffer.getbuffer()


def check_place() -> None:
    """Raise `WorkerStartError` if the working directory or the main script of this process is gone.

    A new process changes to that directory, and imports that script.
    """
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise died_at_start(
            None, "the working directory of this process was deleted. Change to another one (os.chdir) before"
        ) from error
    script = _preparation_data("").get("init_main_from_path")
    if script is not None and not os.path.exists(script):
        raise died_at_start(None, f"the main script {script} was deleted or moved, and each worker imports it")


def _known_start_method() -> str | None:
    """Return the default start method of this process, for a new process.

    Returns None if no default is chosen yet, or if a library such as joblib has defined the method, because the new
    process does not know this method. The new process then uses the default of its platform.
    """
    method = multiprocessing.get_start_method(allow_none=True)
    return method if method in multiprocessing.get_all_start_methods() else None


def _preparation_data(name: str) -> dict[str, Any]:
    """Return the result of `spawn.get_preparation_data(name)`, but with the start method of `_known_start_method`.

    The code of that function of CPython runs here with another `get_start_method`. The module of CPython is not
    changed, because other threads may use it at this moment.
    """
    names = {**vars(spawn), "get_start_method": _known_start_method}
    data: dict[str, Any] = FunctionType(spawn.get_preparation_data.__code__, names)(name)
    return data


class _SpawnPopen(popen_spawn_posix.Popen):
    """Starts a process as its base class does, but sends the process the bytes of `starting_bytes`."""

    _fds: list[int]

    def _launch(self, process_obj: process.BaseProcess) -> None:
        # Opened first, because the child needs the descriptor. `starting_bytes` adds others to `_fds`.
        tracker_fd = resource_tracker.getfd()
        assert tracker_fd is not None
        self._fds.append(tracker_fd)
        data = starting_bytes(process_obj, self)
        sentinel, childs_end = os.pipe()
        childs_data, data_end = os.pipe()
        # These ends stay open until the process object is gone, because the child ends when they close.
        self.finalizer = util.Finalize(self, close_fds, (sentinel, data_end))
        try:
            command = spawn.get_command_line(tracker_fd=tracker_fd, pipe_handle=childs_data)
            self._fds.extend([childs_data, childs_end])
            self.pid = util.spawnv_passfds(os.fsencode(spawn.get_executable()), command, self._fds)
        finally:
            os.close(childs_data)
            os.close(childs_end)
        self.sentinel = sentinel
        # An error means that the child has ended already, which its exit code reports.
        with contextlib.suppress(BrokenPipeError), open(data_end, "wb", closefd=False) as pipe:
            pipe.write(data)


def close_fds(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


class SpawnedProcess(SpawnProcess):
    """A process of `multiprocessing` that `_SpawnPopen` starts."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802  # multiprocessing's name
        return _SpawnPopen(process_obj)

"""Chooses the start method and the number of processes, and makes the launcher."""

from __future__ import annotations

import multiprocessing
import os
import sys
from typing import Any, Literal

from mpr.errors import ConfigError
from mpr.processes.forkserver import ForkServerLauncher, servers
from mpr.processes.launcher import Launcher, ProcessLauncher, ctrl_c_blocked
from mpr.processes.spawning import SpawnedProcess, check_place
from mpr.processes.zygote import ZygoteLauncher

StartMethod = Literal["forkserver", "spawn", "fork"]


def check_processes(processes: object) -> int:
    """Return the number of workers that the argument `processes` asks for. None means one worker per usable CPU.

    Raises `ConfigError` if `processes` is neither None nor an integer of at least 1.
    """
    if processes is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(processes, bool) or not isinstance(processes, int):
        raise ConfigError(f"processes must be a number of workers or None, got {processes!r}")
    if processes < 1:
        raise ConfigError(f"a pool needs at least 1 process, got {processes}")
    return processes


#: Modules that the fork server imports before it forks, because these imports would cost every worker tenths of a
#: second. `WITHOUT_SDK` has the modules for a server that does not import the Rerun SDK.
PRELOAD = ("rerun", "numpy", "pyarrow", "mpr.worker.main", "mpr.worker.preload")
WITHOUT_SDK = ("numpy", "pyarrow", "mpr.worker.preload")


def check_start_method(method: object) -> StartMethod:
    """Return `method`. If it is None, return `forkserver` if the platform has this start method, else `spawn`.

    Raises `ConfigError` on Windows, if the platform does not have the start method, or if gevent prevents it.
    """
    if sys.platform == "win32":
        raise ConfigError("mpr runs on Linux and macOS; Windows is not supported yet")
    offered = multiprocessing.get_all_start_methods()
    if method is None:
        return "forkserver" if "forkserver" in offered else "spawn"
    if method not in offered:
        raise ConfigError(f"start_method must be one of {', '.join(sorted(offered))}, got {method!r}")
    if method == "fork" and str(os.fork.__module__).startswith("gevent"):
        # gevent waits for a child only in the thread that has forked it.
        raise ConfigError("start_method='fork' does not work if gevent has replaced os.fork: use 'forkserver'")
    return method  # type: ignore[return-value]  # one of those offered


def make_launcher(method: StartMethod, preload: bool, target: str, shared: Any) -> Launcher:
    """Return a launcher that starts workers by `method`. For 'fork', call this before mpr starts any thread.

    Each worker calls the function `target` ("module:function") with two arguments: its own config, and `shared`. With
    'fork' the workers inherit `shared`. With the other methods, `shared` is pickled. If `preload` is true, a fork
    server imports the SDK before it forks workers. Raises `WorkerStartError` if `method` is not 'fork' and the working
    directory or the main script is gone.
    """
    if method == "fork":
        return ZygoteLauncher(target, shared)
    check_place()
    if method == "spawn":
        return ProcessLauncher(SpawnedProcess, target, shared)
    server = servers.get(PRELOAD if preload else WITHOUT_SDK)
    # The server is started now, so that the server and the parent import their modules at the same time.
    with ctrl_c_blocked():
        server.ensure_running()
    return ForkServerLauncher(server, target, shared)

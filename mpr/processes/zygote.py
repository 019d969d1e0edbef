"""Starts workers for `fork`. A zygote forks them: a process that was forked before its pool started any thread."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterable
from multiprocessing import connection as mp_connection
from multiprocessing import process
from typing import Any

from mpr.processes import random_state
from mpr.processes.launcher import (
    SERVER_FORK_SECS,
    SERVER_LOOK_SECS,
    Launcher,
    StoppedServers,
    call_target,
    guard_against_orphans,
    ignore_ctrl_c,
    start_process,
)
from mpr.threads import CARRIER

# --- fork: the zygote ---------------------------------------------------------------------------------------------


class ZygoteLauncher(Launcher):
    """Starts workers for `fork`: its zygote forks them.

    The constructor forks the zygote, and warns if the parent has other threads, because a fork is safe only in a
    process with one thread. The threads of other pools of mpr do no harm (see `_is_harmless`). The zygote itself starts
    no thread, so it can fork a worker at any time. The workers inherit `shared`, so it is not pickled.

    Parameters
    ----------
    target:
        The function that each worker runs, in the form "module:function".
    shared:
        The second argument of this function, which is the same for all workers.
    """

    def __init__(self, target: str, shared: Any) -> None:
        others = [thread.name for thread in threading.enumerate()[1:] if not _is_harmless(thread)]
        if others:
            warnings.warn(
                f"start_method='fork' while other threads run ({', '.join(others[:3])}): a lock that one of them holds "
                "stays locked for ever in the workers. Make the pool before the threads, or use 'forkserver'",
                RuntimeWarning,
                stacklevel=4,
            )
        self._gone = False
        self._stopped = StoppedServers()
        self._started: set[int] = set()
        self._ended: list[tuple[int, int | None]] = []
        self._pipe, zygotes_end = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        self._zygote = context.Process(
            target=_zygote_main,
            args=(zygotes_end, self._pipe, next(random_state.zygotes), target, shared),
            name="mpr-zygote",
        )
        start_process(self._zygote)
        zygotes_end.close()

    def start(self, worker: int, config: Any) -> int:
        try:
            return self._start(worker, config)
        except (EOFError, ConnectionError) as error:
            # This process cannot fork another zygote, because it has threads by now.
            text = "the process that forks the workers was killed, and start_method='fork' has no other one"
            raise ChildProcessError(text) from error

    def _start(self, worker: int, config: Any) -> int:
        self._pipe.send((worker, config))
        deadline = time.monotonic() + SERVER_FORK_SECS
        while True:
            while not self._pipe.poll(SERVER_LOOK_SECS):
                self._continue_if_stopped()
                if time.monotonic() > deadline:
                    raise TimeoutError(f"mpr's zygote has started no process for {SERVER_FORK_SECS:.0f} s")
            kind, number, value = self._pipe.recv()
            if kind == "started":
                self._started.add(number)
                return int(value)
            self._note_end(number, value)

    def _continue_if_stopped(self) -> None:
        if self._zygote.pid is not None:
            self._stopped.look([self._zygote.pid])

    def _note_end(self, worker: int, exitcode: int | None) -> None:
        self._started.discard(worker)
        self._ended.append((worker, exitcode))

    def waitables(self) -> list[Any]:
        return [] if self._gone else [self._pipe]

    def ended(self) -> Iterable[tuple[int, int | None]]:
        self._continue_if_stopped()
        try:
            while self._pipe.poll():
                _, number, value = self._pipe.recv()
                self._note_end(number, value)
        except (EOFError, OSError):
            # The zygote has ended, so its workers end too (see `guard_against_orphans`).
            self._gone = True
            for worker in list(self._started):
                self._note_end(worker, None)
        found, self._ended = self._ended, []
        return found

    def close(self) -> None:
        # Closing the pipe is not enough, because another zygote may have inherited this end of the pipe.
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._pipe.close()
        self._zygote.join(5)
        if self._zygote.is_alive():
            self._zygote.kill()
            self._zygote.join()
        self._zygote.close()


def _is_harmless(thread: threading.Thread) -> bool:
    """Return True if `thread` belongs to mpr, or is the thread with which pyzmq frees memory.

    These threads are harmless at a fork, because workers need no lock that such a thread may hold.
    """
    is_ours = thread.name.startswith("mpr-") or thread.name == CARRIER
    return is_ours or type(thread).__module__.startswith("zmq.")


def _ignore_signal(_number: int, _frame: object) -> None:
    """Do nothing.

    Without a handler, the operating system would discard the signal, and the zygote would not notice that a worker
    ended.
    """


def _zygote_main(pipe: Any, parents_end: Any, zygote: int, target: str, shared: Any) -> None:
    """Run the zygote: fork a worker for each config that comes through `pipe`, and report each exit code.

    `pipe` is the zygote's end of the pipe. The zygote ends if the parent sends None or closes the pipe. Before its end,
    the zygote kills all workers. `parents_end` is the parent's end, which the zygote has inherited, and closes.
    `zygote` is the number of this zygote. `target` and `shared` are as in `ZygoteLauncher`.
    """
    parents_end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Each worker watches a pipe of its own, because the kernel sends the signal of one pipe to one process only. Only
    # the zygote has the write ends, so the pipes close when the zygote ends, and then the workers end.
    kept_open: dict[int, int] = {}
    # A signal reports the end of a child. The sentinel of a child cannot, because processes that the child has forked
    # keep the sentinel open.
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
                os.close(kept_open.pop(worker))
        if pipe not in ready:
            continue
        try:
            order = pipe.recv()
        except (EOFError, OSError):
            break
        if order is None:
            break
        worker, config = order
        watched, kept_open[worker] = os.pipe()
        child = context.Process(
            target=_forked_main,
            args=(pipe, watched, [*kept_open.values()], (zygote, worker), target, config, shared),
            name=f"mpr-worker-{worker}",
        )
        child.start()
        os.close(watched)
        children[worker] = child
        pipe.send(("started", worker, child.pid))
    for child in children.values():
        child.kill()
        child.join()


def _forked_main(
    pipe: Any, watched: int, kept_open: list[int], place: tuple[int, int], target: str, config: Any, shared: Any
) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ignore_ctrl_c()
    pipe.close()
    for write_end in kept_open:
        os.close(write_end)
    guard_against_orphans(watched)
    random_state.derive(*place)
    call_target(target, config, shared)

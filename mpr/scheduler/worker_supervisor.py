"""The worker processes of a pool: keeps their number, notices each end at once, and ends them all in bounded time.

One thread starts and watches them. What a worker's end means for its task is the dispatcher's business.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import connection as mp_connection
from typing import Any

from mpr.errors import WorkerStartError
from mpr.processes.launcher import Launcher, ctrl_c_blocked

_log = logging.getLogger("mpr")

_LOOK_SECS = 0.5
# A process that is told to stop stands still as soon as it is scheduled; one in a system call that cannot be
# interrupted does nothing else either.
_STANDSTILL_SECS = 1.0
# The first worker starts alone for at most so long: where cores are few, the others would only keep it from its task.
_ALONE_SECS = 0.02


class WorkerSupervisor:
    """Keeps `size` workers.

    Parameters
    ----------
    launcher:
        How a worker is started.
    new_config:
        Makes `(number, config)` for the next worker, at once and in the worker supervisor's thread; a number is never
        used twice.
    size:
        How many there are at a time.
    ended:
        Called with (worker, exit code) when one has ended, or could not be started, in the worker supervisor's thread.
    failed:
        Called with the error when a worker cannot be started, in the worker supervisor's thread.
    is_beginner:
        Whether a worker has done nothing yet that anybody could miss.
    look:
        Called in the worker supervisor's thread, at least twice a second; returns within how many seconds it wants to
        be called
        again.
    """

    def __init__(
        self,
        launcher: Launcher,
        new_config: Callable[[], tuple[int, Any]],
        size: int,
        *,
        ended: Callable[[int, int | None], None],
        failed: Callable[[BaseException], None],
        has_no_hello: Callable[[int], bool],
        look: Callable[[], float],
    ) -> None:
        self._launcher = launcher
        self._new_config = new_config
        self._wanted = size
        self._ended = ended
        self._failed = failed
        self._has_no_hello = has_no_hello
        self._look = look
        self._pids: dict[int, int] = {}
        self._closing = self._dismissed = False
        self._someone_ready = threading.Event()
        self._changed = threading.Condition()
        self._ending = threading.Lock()
        self._wake_reader, self._wake_writer = os.pipe()
        self._thread = threading.Thread(target=self._run, name="mpr-workers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def pid(self, worker: int) -> int | None:
        """The process id of a worker that lives."""
        return self._pids.get(worker)

    def note_ready(self) -> None:
        """Any thread: a worker takes tasks."""
        self._someone_ready.set()

    def replace(self) -> None:
        """Any thread: one more worker is wanted, unless all were dismissed."""
        with self._changed:
            self._wanted += not self._closing
        self._wake()

    def look_soon(self) -> None:
        """Any thread: have `look` called now."""
        self._wake()

    def memory(self, pid: int) -> int:
        """Any thread: resident bytes of a worker, 0 where it has just ended."""
        import psutil

        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            return 0

    def end_if(self, pid: int, condition: Callable[[], bool]) -> bool:
        """Any thread: stop a worker; end it where `condition()` is true while it stands still, else let it go on."""
        import psutil

        # One at a time: nobody may let go on what another one holds.
        with self._ending, contextlib.suppress(psutil.Error):
            worker = psutil.Process(pid)
            ends = False
            try:
                worker.suspend()
                deadline = time.monotonic() + _STANDSTILL_SECS
                waits_for = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
                while worker.status() not in waits_for and time.monotonic() < deadline:
                    time.sleep(0.0005)
                ends = condition()
            finally:
                # Whatever comes, nobody is left standing still.
                worker.kill() if ends else worker.resume()
            return ends
        # It has ended in the meantime.
        return False

    def dismiss(self) -> None:
        """Any thread: start no more workers; those that live end by themselves or by `kill`, and workers without a
        hello at once.

        When this returns, `new_config` was called for all that there will ever be.
        """
        with self._changed:
            self._closing = True
            self._wanted = 0
        self._wake()

    def kill(self, number: int) -> None:
        """Any thread: send signal `number` to every worker."""
        for pid in list(self._pids.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def wait(self, timeout_secs: float) -> bool:
        """Any other thread, after `dismiss`: wait until no worker lives and the thread has ended."""
        self._thread.join(timeout_secs)
        return not self._thread.is_alive()

    def end(self, patience_secs: float) -> None:
        """After `dismiss`: wait for all to end, then terminate, then kill; at most `patience_secs` and 7 s more."""
        for number, patience in ((None, patience_secs), (signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
            if number is not None:
                count = len(self._pids)
                _log.warning("ending %d %s by %s", count, "worker" if count == 1 else "workers", number.name)
                self.kill(number)
            if self.wait(patience):
                return

    def kill_all(self) -> None:
        """Any thread: start no more workers, and kill those that live; nobody waits for it."""
        self.dismiss()
        # A worker has nothing to clean up: its outbox is read by the parent, its descriptors are the kernel's.
        self.kill(signal.SIGKILL)

    def terminate(self) -> None:
        """End all workers now."""
        deadline = time.monotonic() + 5.0
        self.kill_all()
        # Also one that was just being started.
        while not self.wait(0.02) and time.monotonic() < deadline:
            self.kill(signal.SIGKILL)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_writer, b"x")

    def _run(self) -> None:
        patience = _LOOK_SECS
        try:
            while True:
                self._start_missing()
                if self._closing and not self._dismissed:
                    self._dismissed = True
                    self._kill_without_hello()
                if self._dismissed and not self._pids:
                    break
                self._reap(patience)
                patience = min(_LOOK_SECS, self._look())
        except BaseException as error:  # noqa: BLE001  # nobody else would hear of it
            _log.exception("mpr cannot keep its workers any more")
            self._failed(error)
            self._end_all()
        finally:
            self._launcher.close()
            os.close(self._wake_reader)
            os.close(self._wake_writer)

    def _reap(self, patience_secs: float) -> None:
        """Wait until there is something to do, and tell of those that have ended."""
        mp_connection.wait([self._wake_reader, *self._launcher.waitables()], patience_secs)
        os.set_blocking(self._wake_reader, False)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_reader, 4096)
        for worker, exitcode in self._launcher.ended():
            self._pids.pop(worker, None)
            self._ended(worker, exitcode)

    def _kill_without_hello(self) -> None:
        """Nobody waits until they have imported everything, to be told that there is no work."""
        for worker, pid in self._pids.items():
            if self._has_no_hello(worker):
                self.end_if(pid, functools.partial(self._has_no_hello, worker))

    def _end_all(self) -> None:
        """After a failure of this thread: leave no worker behind."""
        self.dismiss()
        deadline = time.monotonic() + 5.0
        while self._pids and time.monotonic() < deadline:
            self.kill(signal.SIGKILL)
            self._reap(0.05)

    def _start_missing(self) -> None:
        while True:
            with self._changed:
                if not self._wanted:
                    return
                self._wanted -= 1
                worker, config = self._new_config()
            try:
                with ctrl_c_blocked():
                    self._pids[worker] = self._launcher.start(worker, config)
            except Exception as error:  # noqa: BLE001  # whatever keeps a process from starting
                failure = WorkerStartError(f"no worker process can be started: {type(error).__name__}: {error}")
                failure.__cause__ = error
                self._failed(failure)
                self._ended(worker, None)
                return
            if not self._someone_ready.is_set():
                self._someone_ready.wait(_ALONE_SECS)
                self._someone_ready.set()

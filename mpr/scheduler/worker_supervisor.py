"""Starts the worker processes of a pool, reports the end of each one, and ends all of them within a time limit.

Covers: the one thread that starts workers and waits for them, and the steps that end them.
Does not cover: how a process is started (`processes/launcher.py`), what the end of a process means for its tasks
(`worker_events.py`).

A pool that ends in order calls `stop_starting`, and then `close`. A pool that ends at once calls `kill`, and then
`abort`, also while another thread is in `close`. Each method also does what `stop_starting` does:

| method | what it does | how long it takes |
|---|---|---|
| `stop_starting` | starts no more workers, and kills those that have not sent their hello | returns at once |
| `close` | waits for the workers, then sends SIGTERM, then SIGKILL | at most `patience_secs` plus 7 s |
| `kill` | sends SIGKILL to all workers | returns at once |
| `abort` | kills all workers, and waits until they are gone | at most 5 s |
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import connection as mp_connection
from typing import Any

from mpr.errors import WorkerStartError
from mpr.processes.launcher import Launcher, ctrl_c_blocked
from mpr.threads import WakeupPipe
from mpr.user_code import describe, is_a
from mpr.user_code import log as _log

_LOOK_SECS = 0.5
# The longest wait until a suspended process has stopped (seconds). A process stops as soon as it is scheduled. In an
# uninterruptible system call a process does not stop, but then it runs no code of a task either.
_STANDSTILL_SECS = 1.0
# The other workers start when the first one is ready, or after this time (seconds). If there are few cores, the starts
# of the others would delay the first task.
_ALONE_SECS = 0.02
_SIGTERM_PATIENCE_SECS = 2.0
_SIGKILL_PATIENCE_SECS = 5.0


class WorkerSupervisor:
    """Starts `size` workers, and one more at each call of `replace`. Reports their ends, and kills workers.

    Any thread may call the methods, except that the supervisor's own thread must not call `close` and `abort`.

    Parameters
    ----------
    launcher:
        Starts a worker.
    new_config:
        Returns `(number, config)` for the next worker, without waiting. The supervisor's thread calls it. No number may
        be used twice.
    size:
        How many workers are started at the beginning.
    ended:
        Called with (worker, exit code) in the supervisor's thread, when a worker has ended. The exit code is None if
        the worker could not be started, or if its exit code is not known.
    failed:
        Called with the error in the supervisor's thread, when a worker cannot be started, or when this thread fails.
    has_no_hello:
        Called with the number of a worker. Returns True if no hello (the first message) of this worker has arrived.
    look:
        Called in the supervisor's thread about every 0.5 s, and after each event, such as the end of a worker. Returns
        the number of seconds after which `look` has to be called again. The start of a worker can delay the call.
    obstacle:
        Returns why no worker can join the recording; None if no reason is known.
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
        obstacle: Callable[[], str | None],
    ) -> None:
        self._launcher = launcher
        self._new_config = new_config
        # How many workers are still to be started.
        self._wanted = size
        self._ended = ended
        self._failed = failed
        self._has_no_hello = has_no_hello
        self._look = look
        self._obstacle = obstacle
        self._pids: dict[int, int] = {}
        self._starts_no_more = False
        self._first_is_ready = threading.Event()
        # Guards `_wanted` and `_starts_no_more`.
        self._start_lock = threading.Lock()
        # Held while a worker is suspended.
        self._standstill_lock = threading.Lock()
        self._wakeup = WakeupPipe()
        self._thread = threading.Thread(target=self._run, name="mpr-workers", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises `RuntimeError` if the operating system cannot start one more thread."""
        self._thread.start()

    # --- for the dispatcher: `WorkerControl` -------------------------------------------------------------------

    def note_ready(self) -> None:
        """Note that a worker is ready.

        The supervisor starts one worker first, and the others when this worker is ready, or after 0.02 s.
        """
        self._first_is_ready.set()

    def replace(self) -> None:
        """Have the supervisor's thread start one more worker. Does nothing after `stop_starting`."""
        with self._start_lock:
            self._wanted += not self._starts_no_more
        self._wakeup.wake()

    def start_obstacle(self) -> str | None:
        """Return, as text, why no worker can join the recording; None if no reason is known."""
        return self._obstacle()

    def look_soon(self) -> None:
        """Have the supervisor's thread call `look` now."""
        self._wakeup.wake()

    def pid(self, worker: int) -> int | None:
        """Return the process id of worker number `worker`; None if the worker is not running."""
        return self._pids.get(worker)

    def memory(self, pid: int) -> int:
        """Return the resident memory of the worker with the process id `pid`, in bytes; 0 if it cannot be read."""
        import psutil

        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            return 0

    def kill_if(self, pid: int, condition: Callable[[], bool]) -> bool:
        """Suspend the worker with the process id `pid`, and call `condition`. If it returns True, kill the worker.

        If `condition` returns False or raises, resume the worker. The worker is suspended, so that it cannot begin
        another task before the kill. Returns True if the worker was killed, and False if not, or if no worker has this
        process id.
        """
        import psutil

        if pid not in self._pids.values():
            # The worker has ended, or has told a wrong process id. No other process may be killed.
            return False
        # One thread at a time, so that no thread resumes a worker that another thread has suspended.
        with self._standstill_lock, contextlib.suppress(psutil.Error):
            worker = psutil.Process(pid)
            is_true = False
            try:
                worker.suspend()
                deadline = time.monotonic() + _STANDSTILL_SECS
                waits_for = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
                while worker.status() not in waits_for and time.monotonic() < deadline:
                    time.sleep(0.0005)
                is_true = condition()
            finally:
                # This is done even if `condition` raises, because no worker may stay suspended.
                worker.kill() if is_true else worker.resume()
            return is_true
        # The worker has ended in the meantime.
        return False

    # --- ending the workers ------------------------------------------------------------------------------------

    def stop_starting(self) -> None:
        """Start no more workers, and have the supervisor's thread kill those that have not sent their hello.

        The other workers still run. Returns at once. After that, `new_config` is not called again.
        """
        with self._start_lock:
            self._starts_no_more = True
            self._wanted = 0
        self._wakeup.wake()

    def close(self, patience_secs: float) -> None:
        """Start no more workers. Wait up to `patience_secs` until all have ended, and send SIGTERM to those that live.

        After 2 s more, send SIGKILL, and wait up to 5 s.
        """
        self.stop_starting()
        if self._wait(patience_secs):
            return
        for number, patience in ((signal.SIGTERM, _SIGTERM_PATIENCE_SECS), (signal.SIGKILL, _SIGKILL_PATIENCE_SECS)):
            count = len(self._pids)
            _log.warning("ending %d %s by %s", count, "worker" if count == 1 else "workers", number.name)
            self._signal(number)
            if self._wait(patience):
                return

    def kill(self) -> None:
        """Start no more workers, and send SIGKILL to those that live. Does not wait for their end."""
        self.stop_starting()
        # SIGKILL does no harm, because a worker has nothing to clean up. The parent reads the worker's outbox (the
        # memory with its rows), and the kernel closes the worker's descriptors.
        self._signal(signal.SIGKILL)

    def abort(self) -> None:
        """Start no more workers, send SIGKILL to those that live, and wait up to 5 s until they have ended."""
        deadline = time.monotonic() + _SIGKILL_PATIENCE_SECS
        self.kill()
        while not self._wait(0.02) and time.monotonic() < deadline:
            # Kill again, because a worker may just have been starting when the others were killed.
            self._signal(signal.SIGKILL)

    def _wait(self, timeout_secs: float) -> bool:
        self._thread.join(timeout_secs)
        return not self._thread.is_alive()

    def _signal(self, number: int) -> None:
        for pid in list(self._pids.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # --- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        patience = _LOOK_SECS
        newcomers_are_killed = False
        try:
            while True:
                self._start_missing()
                if self._starts_no_more and not newcomers_are_killed:
                    newcomers_are_killed = True
                    self._kill_without_hello()
                if newcomers_are_killed and not self._pids:
                    break
                self._reap(patience)
                patience = min(_LOOK_SECS, self._look())
        except BaseException as error:  # noqa: BLE001  # this thread has no caller that would hear of it
            _log.exception("mpr cannot keep its workers any more")
            self._failed(error)
            self._kill_and_reap()
        finally:
            self._launcher.close()
            self._wakeup.close()

    def _reap(self, patience_secs: float) -> None:
        """Wait up to `patience_secs` until a worker ends, or another thread wakes this thread.

        Then call `ended` for each worker that has ended.
        """
        mp_connection.wait([self._wakeup.fileno(), *self._launcher.waitables()], patience_secs)
        self._wakeup.clear()
        for worker, exitcode in self._launcher.ended():
            self._pids.pop(worker, None)
            self._ended(worker, exitcode)

    def _kill_without_hello(self) -> None:
        for worker, pid in self._pids.items():
            if self._has_no_hello(worker):
                self.kill_if(pid, functools.partial(self._has_no_hello, worker))

    def _kill_and_reap(self) -> None:
        """Start no more workers, kill all, wait up to 5 s, and call `ended` for each one that has ended by then."""
        self.stop_starting()
        deadline = time.monotonic() + _SIGKILL_PATIENCE_SECS
        while self._pids and time.monotonic() < deadline:
            self._signal(signal.SIGKILL)
            self._reap(0.05)

    def _start_missing(self) -> None:
        while True:
            with self._start_lock:
                if not self._wanted:
                    return
                self._wanted -= 1
                worker, config = self._new_config()
            try:
                with ctrl_c_blocked():
                    self._pids[worker] = self._launcher.start(worker, config)
            except BaseException as error:  # noqa: BLE001  # the system's errors, or a user's `__reduce__`
                failure = error
                if not is_a(error, WorkerStartError):
                    failure = WorkerStartError(f"no worker process can be started: {describe(error)}")
                    failure.__cause__ = error
                self._failed(failure)
                self._ended(worker, None)
                return
            if not self._first_is_ready.is_set():
                self._first_is_ready.wait(_ALONE_SECS)
                self._first_is_ready.set()

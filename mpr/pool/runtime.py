"""Starts and ends the parts of a pool: what pools with workers of mpr and pools with an engine have in common.

Covers: the recording of a pool, the order of the end, and who waits for it.
Does not cover: the parts of the two kinds of pools (`worker_runtime.py`, `engine_runtime.py`), checks of arguments
(`options.py`), and calls (`calls.py`).
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from multiprocessing import util

from mpr.pool.calls import PoolCalls
from mpr.pool.display import PoolDisplay
from mpr.recording.shared_recording import SharedRecording, runtime_of
from mpr.scheduler.state import PoolState
from mpr.scheduler.task_dispatcher import TaskDispatcher
from mpr.telemetry.insights import Insights
from mpr.threads import EndOnce, is_thread_of_ours, run_to_completion
from mpr.user_code import log as _log


class PoolRuntime(ABC):
    """Holds the running parts of one pool, and ends them.

    A pool ends in one of two ways. In order: `close`, then `join`, which waits for the tasks. At once: `terminate`,
    which gives an error to every call that has no result. A pool also ends at once if it is garbage-collected, or if it
    is still open when the interpreter exits. The parts are ended only once: a second `join` or `terminate` waits until
    the first one has ended them.

    Parameters
    ----------
    recording:
        The user's recording, which the pool does not close. None: the pool makes a recording.
    new_recording:
        Makes the recording if the user has given none.
    undo:
        Closes the parts again if a later part cannot be made.

    Attributes
    ----------
    recording:
        The recording that the pool logs into.
    size:
        The number of workers at a time.
    calls:
        Submits the calls of the user.
    """

    size: int
    calls: PoolCalls
    _display: PoolDisplay

    def __init__(
        self,
        recording: SharedRecording | None,
        new_recording: Callable[[], SharedRecording],
        undo: contextlib.ExitStack,
    ) -> None:
        self._finalizer: util.Finalize | None = None
        self._ending = EndOnce()
        self._owns_recording = recording is None
        self.recording: SharedRecording = recording or new_recording()
        self._rows = runtime_of(self.recording)
        if self._owns_recording:
            undo.callback(self._rows.close, failed=True)

    # --- the steps of the two kinds of pools ----------------------------------------------------------------------

    @property
    @abstractmethod
    def _tasks(self) -> TaskDispatcher:
        """The dispatcher of the pool's tasks."""

    @abstractmethod
    def _end_orderly(self) -> None:
        """End all parts after `close`, when every task has its outcome."""

    @abstractmethod
    def _stop_tasks(self) -> None:
        """Give an error to every call that has no result, and make `_end_orderly` end soon if it is running."""

    @abstractmethod
    def _end_stopped(self) -> None:
        """End all parts after `_stop_tasks`, and do not wait for tasks that still run."""

    def _may_wait(self) -> bool:
        """Return True if the calling thread, which may be any, holds no lock that the end of the pool needs."""
        return True

    # --- called by the pool ----------------------------------------------------------------------------------------

    @property
    def state(self) -> PoolState:
        """The state of the pool: running, closed or terminated."""
        return self._tasks.state

    @property
    def is_ending(self) -> bool:
        """True if the parts of the pool are being ended, or have ended."""
        return self._ending.begun

    def check_running(self) -> None:
        """Raise the error that has ended the pool, or `PoolClosedError` if the pool accepts no new calls.

        Does nothing if the pool is running.
        """
        self._tasks.lifecycle.check_running()

    def insights(self) -> Insights:
        """Return a summary of the telemetry. Raises `ConfigError` if the pool has no telemetry."""
        return self._display.insights()

    def end_with(self, pool: object) -> None:
        """End all parts of the pool when the object `pool` is garbage-collected, or when the interpreter exits.

        At the exit, the parts end before `multiprocessing` waits for child processes.
        """
        self._finalizer = util.Finalize(pool, self._end_dropped, exitpriority=100)

    # --- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Accept no new calls. Does not wait for the tasks of earlier calls."""
        self._tasks.close()

    def drop_waiting(self) -> None:
        """Cancel each work item that no worker has, or that an engine can still cancel.

        Its tasks get a `CancelledError`.
        """
        run_to_completion(self._tasks.drop_waiting)

    def join(self) -> None:
        """Wait for the tasks, and end all parts.

        If the pool has ended already, do nothing. Raises the same errors as `mpr.Pool.join`.
        """
        if self.state is PoolState.RUNNING:
            raise ValueError("Pool is still running: call close() or terminate() before join()")
        if self._ending.over.is_set():
            return
        if is_thread_of_ours() or self._tasks.callbacks.is_here():
            raise RuntimeError("a callback cannot wait for its own pool: call join() in another thread")
        self._tasks.wait_until_done()
        run_to_completion(lambda: self._ending.run(self._end_orderly))
        self._tasks.lifecycle.raise_unreported()

    def terminate(self) -> None:
        """Give an error to every call that has no result, and end all parts at once.

        If the pool has ended already, do nothing. Raises the same errors as `mpr.Pool.terminate`.
        """
        if not self._ending.over.is_set():
            run_to_completion(self._end_at_once)

    def _end_dropped(self) -> None:
        """End a pool that is garbage-collected, or that is open when the interpreter exits.

        If tasks have no result yet, log a warning with their number.
        """
        if unfinished := self._tasks.work.unfinished:
            _log.warning(
                "A pool of mpr was dropped, or the program ended, while %d of its tasks had no result: they are not "
                "done. Use `with mpr.Pool(...)`, or call close() and join().",
                unfinished,
            )
        run_to_completion(self._end_at_once, wait=self._may_wait())

    def _end_at_once(self) -> None:
        self._stop_tasks()
        self._ending.run(self._end_stopped)

    def _forget_pool(self) -> None:
        """Undo `end_with`, because the parts of the pool are being ended already."""
        if self._finalizer is not None:
            self._finalizer.cancel()

    def _close_recording(self, *, failed: bool) -> None:
        if self._owns_recording:
            self._rows.close(failed=failed)

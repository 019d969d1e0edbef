"""Starts and ends the parts of a pool whose tasks an engine (Ray, Dask, an executor) runs.

Covers: the engine, its dispatcher, the display, and the recording that the pool logs into.
Does not cover: pools with workers of mpr (`runtime.py`), and how the engine runs tasks (`engines`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from multiprocessing import util

from mpr.engines.choice import open_engine
from mpr.engines.dispatcher import EngineDispatcher
from mpr.pool.calls import PoolCalls
from mpr.pool.display import PoolDisplay
from mpr.pool.options import PoolOptions
from mpr.recording.shared_recording import SharedRecording, runtime_of
from mpr.scheduler.state import PoolState
from mpr.scheduler.worker_handle import WorkerActivity
from mpr.telemetry.insights import Insights
from mpr.threads import is_thread_of_ours, run_to_completion
from mpr.transport import connection_info
from mpr.user_code import log as _log


class EngineRuntime:
    """Holds the running parts of one pool with an engine, and ends them. It has the public methods of `PoolRuntime`.

    The parts end in four steps:

    1. Accept no new calls.
    2. Wait until every task has its outcome. There is no time limit, because the engine ends tasks or reports their
       loss.
    3. Close the recording, if the pool has made it.
    4. End the engine, if the pool has started it.

    `close` does step 1, and `join` does the other steps. `terminate` gives an error to every call that has no result,
    asks the engine to cancel its tasks, and does steps 3 and 4. The engine may still run some of these tasks.

    Parameters
    ----------
    options:
        The checked arguments of the pool. `options.engine` is not None.
    recording:
        The user's recording, which the pool does not close. None: the pool makes a recording.
    new_recording:
        Makes the recording if the user has given none.

    Attributes
    ----------
    recording:
        The recording that the pool logs into.
    size:
        The number of workers of the engine.
    calls:
        Submits the calls of the user.
    """

    def __init__(
        self,
        options: PoolOptions,
        recording: SharedRecording | None,
        new_recording: Callable[[], SharedRecording],
    ) -> None:
        assert options.engine is not None
        self._finalizer: util.Finalize | None = None
        self._ending = threading.Lock()
        self._ended = False
        with contextlib.ExitStack() as undo:
            self._engine = open_engine(options.engine, options.limits.retries)
            undo.callback(self._engine.close)
            self._owns_recording = recording is None
            self.recording: SharedRecording = recording or new_recording()
            self._rows = runtime_of(self.recording)
            if self._owns_recording:
                undo.callback(self._rows.close, failed=True)
            self.size: int = self._engine.size
            self._display = PoolDisplay(options, self.size)
            config = connection_info.to_text(self._rows.connection_info(self.size))
            self._dispatcher = EngineDispatcher(self._engine, config, self._display.observer(), self._first_seen)
            undo.callback(self._dispatcher.stop)
            self.calls: PoolCalls = PoolCalls(self._dispatcher, self.size)
            self._display.start(self._rows, self._activities, self._dispatcher.pid)
            undo.pop_all()

    def _first_seen(self, worker: int) -> None:
        if self._display.telemetry is not None:
            self._display.telemetry.starting(worker)

    def _activities(self) -> list[WorkerActivity]:
        # An engine does not say which task a worker runs at the moment.
        return []

    # --- called by the pool ----------------------------------------------------------------------------------------

    @property
    def state(self) -> PoolState:
        """The state of the pool: running, closed or terminated."""
        return self._dispatcher.state

    @property
    def ended(self) -> bool:
        """True if the pool has ended. While `join` runs, it becomes True before the recording is closed."""
        return self._ended

    def check_running(self) -> None:
        """Raise the error that has ended the pool, or `PoolClosedError` if the pool accepts no new calls.

        Does nothing if the pool is running.
        """
        self._dispatcher.lifecycle.check_running()

    def insights(self) -> Insights:
        """Return a summary of the telemetry. Raises `ConfigError` if the pool has no telemetry."""
        return self._display.insights()

    def end_with(self, pool: object) -> None:
        """End all parts of the pool when the object `pool` is garbage-collected, or when the interpreter exits."""
        self._finalizer = util.Finalize(pool, self._end_dropped, exitpriority=100)

    # --- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Accept no new calls. Does not wait for the tasks of earlier calls."""
        self._dispatcher.close()

    def drop_waiting(self) -> None:
        """Cancel each work item that the engine can still cancel. Its tasks get a `CancelledError`."""
        self._dispatcher.drop_waiting()

    def join(self) -> None:
        """Wait for the tasks, and end all parts: steps 2 to 4 in the docstring of the class.

        If the pool has ended already, do nothing. Raises the same errors as `mpr.Pool.join`.
        """
        if self._dispatcher.state is PoolState.RUNNING:
            raise ValueError("Pool is still running: call close() or terminate() before join()")
        if self._ended:
            return
        if is_thread_of_ours() or self._dispatcher.callbacks.is_here():
            raise RuntimeError("a callback cannot wait for its own pool: call join() in another thread")
        self._dispatcher.wait_until_done()
        run_to_completion(self._end)
        self._dispatcher.lifecycle.raise_unreported()

    def terminate(self) -> None:
        """Give an error to every call that has no result, and do steps 3 and 4 in the docstring of the class.

        If the pool has ended already, do nothing. Raises `SinkError` if a sink has failed.
        """
        finalizer = self._finalizer
        if finalizer is not None and finalizer.still_active():
            finalizer.cancel()
            run_to_completion(self._end_at_once)

    def _end_dropped(self) -> None:
        """End a pool that is garbage-collected, or that is open when the interpreter exits.

        If tasks have no result yet, log a warning with their number.
        """
        if unfinished := self._dispatcher.work.unfinished:
            _log.warning(
                "A pool of mpr was dropped, or the program ended, while %d of its tasks had no result. Use "
                "`with mpr.Pool(...)`, or call close() and join().",
                unfinished,
            )
        run_to_completion(self._end_at_once)

    def _end_at_once(self) -> None:
        self._dispatcher.terminate()
        self._end(failed=True)

    def _end(self, *, failed: bool = False) -> None:
        # Ctrl-C may end a first `join` while this method still runs. A second `join` then waits for the lock.
        with self._ending:
            if self._ended:
                return
            self._ended = True
            if self._finalizer is not None:
                self._finalizer.cancel()
            self._dispatcher.stop()
            self._display.close()
            try:
                if self._owns_recording:
                    self._rows.close(failed=failed)
            finally:
                self._engine.close()

"""Starts all parts of a pool, connects them with each other, and ends them in a fixed order.

Covers: dispatcher, worker supervisor, telemetry, progress bar, and the recording that the pool logs into.
Does not cover: checks of arguments (`options.py`), calls (`calls.py`), and how each part works (`scheduler`,
`telemetry`, `recording`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from multiprocessing import util

from mpr.limits import SINK_TIMEOUT_SECS
from mpr.pool.calls import PoolCalls
from mpr.pool.display import PoolDisplay
from mpr.pool.options import PoolOptions
from mpr.processes.start import make_launcher
from mpr.recording.shared_recording import SharedRecording, runtime_of
from mpr.scheduler.dispatcher import Dispatcher
from mpr.scheduler.state import PoolState
from mpr.scheduler.worker_supervisor import WorkerSupervisor
from mpr.telemetry.insights import Insights
from mpr.threads import is_thread_of_ours, run_to_completion
from mpr.user_code import log as _log
from mpr.worker.config import MAIN, WorkerConfig

# The limit (seconds) for the last rows of the workers, and again for the exit handlers of the workers.
_FAREWELL_SECS = 10.0


class PoolRuntime:
    """Holds the running parts of one pool, and ends them.

    The parts end in seven steps:

    1. Accept no new calls.
    2. Drain: every submitted task gets its outcome. Limit: only `task_timeout` for each task. Ctrl-C ends the wait.
    3. Stop the workers: each worker sends its last rows and a goodbye. Limit: 10 s.
    4. Terminate: if a goodbye is missing, the workers get SIGTERM. Limit: 2 s.
    5. Kill: the workers that are left get SIGKILL. Limit: 5 s.
    6. Close the recording, if the pool has made it. Limits: 60 s (`SINK_TIMEOUT_SECS`) for a sink that accepts nothing,
       and 3 s (`LIVE_FAREWELL_SECS`) for live sinks. There is no limit for writing the footers.
    7. Wait until the processes of the workers have ended, because they still run exit handlers. Limit: 10 s. After
       that, steps 4 and 5 are done again.

    `close` does step 1, and `join` does the other steps. If an error has ended the pool, `join` kills the workers in
    step 3. `terminate` does steps 1, 5 and 6, and gives an error to every call that has no result. The same happens if
    the pool is garbage-collected, or is still open when the interpreter exits.

    Parameters
    ----------
    options:
        The checked arguments of the pool.
    recording:
        The user's recording, which the pool does not close. None: the pool makes a recording.
    new_recording:
        Makes the recording if the user has given none.

    Attributes
    ----------
    recording:
        The recording that the pool logs into.
    size:
        The number of workers at a time.
    calls:
        Submits the calls of the user.
    """

    def __init__(
        self, options: PoolOptions, recording: SharedRecording | None, new_recording: Callable[[], SharedRecording]
    ) -> None:
        self._options = options
        self._display = PoolDisplay(options, options.size)
        self._finalizer: util.Finalize | None = None
        self._ending = threading.Lock()
        self._ended = False
        with contextlib.ExitStack() as undo:
            # The launcher is made first, because the zygote of the start method `fork` must be forked before threads
            # exist.
            launcher = make_launcher(options.start_method, options.preload, MAIN, options.initializer)
            undo.callback(launcher.close)
            self._owns_recording = recording is None
            self.recording: SharedRecording = recording or new_recording()
            self._rows = runtime_of(self.recording)
            if self._owns_recording:
                undo.callback(self._rows.close, failed=True)
            self._connection_info = self._rows.connection_info(options.size)
            self._supervisor = WorkerSupervisor(
                launcher,
                self._new_worker,
                options.size,
                ended=self._worker_ended,
                failed=self._worker_start_failed,
                has_no_hello=self._rows.aggregator.is_unknown,
                look=self._look,
                obstacle=self._rows.obstacle,
            )
            self._dispatcher = Dispatcher(
                self._rows.sockets.down,
                options.limits,
                self._supervisor,
                self._rows.aggregator.soon,
                self._display.observer(),
            )
            self.size: int = options.size
            self.calls: PoolCalls = PoolCalls(self._dispatcher, options.size)
            # Closed again if the start of the supervisor fails. This happens if the system gives no more threads.
            undo.callback(self._display.close)
            self._display.start(self._rows, self._dispatcher.activities, self._supervisor.pid)
            self._supervisor.start()
            undo.pop_all()

    # --- called by the worker supervisor's thread ------------------------------------------------------------------

    def _new_worker(self) -> tuple[int, WorkerConfig]:
        options, number = self._options, self._rows.new_worker()
        self._rows.aggregator.listen(number, self._dispatcher.listener)
        if self._display.telemetry is not None:
            self._display.telemetry.starting(number)
        is_forkserver = options.start_method == "forkserver"
        return number, WorkerConfig(
            recording=self._connection_info,
            worker=number,
            environ=dict(os.environ) if is_forkserver else None,
            preloaded=is_forkserver and options.preload,
            # If mpr may kill workers or run tasks again, each result is sent at once. A result that waits in a worker
            # is lost if the worker dies, and its task would fail or run again.
            results_wait=options.limits.task_secs is None and not options.limits.retries,
            capture=options.capture,
        )

    def _look(self) -> float:
        if self._rows.fanout.stalled_secs() > SINK_TIMEOUT_SECS:
            self._dispatcher.broken(self._rows.fanout.stuck())
        self._rows.aggregator.look()
        return self._dispatcher.look()

    def _worker_start_failed(self, error: BaseException) -> None:
        self._dispatcher.broken(error)

    def _worker_ended(self, worker: int, exitcode: int | None) -> None:
        self._display.worker_ended(worker, exitcode)
        self._rows.aggregator.worker_died(worker, exitcode)

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
        self._dispatcher.check_running()

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
        """Accept no new calls (step 1 in the docstring of the class). Does not wait for the tasks."""
        self._dispatcher.close()

    def drop_waiting(self) -> None:
        """Cancel each work item that no worker has yet. Its tasks get a `CancelledError`."""
        run_to_completion(self._dispatcher.drop_waiting)

    def join(self) -> None:
        """Wait for the tasks, and end all parts: steps 2 to 7 in the docstring of the class.

        If the pool has ended already, do nothing. Raises the same errors as `mpr.Pool.join`.
        """
        if self._dispatcher.state is PoolState.RUNNING:
            raise ValueError("Pool is still running: call close() or terminate() before join()")
        if self._ended:
            return
        if is_thread_of_ours() or self._dispatcher.callbacks.is_here():
            raise RuntimeError("a callback cannot wait for its own pool: call join() in another thread")
        self._dispatcher.wait_until_done()
        run_to_completion(self._end_orderly)
        self._dispatcher.raise_unreported()

    def terminate(self) -> None:
        """Kill the workers, and close the recording if the pool has made it. If the pool has ended, do nothing.

        These are steps 1, 5 and 6 in the docstring of the class. Raises `SinkError` if a sink has failed.
        """
        finalizer = self._finalizer
        if finalizer is not None and finalizer.still_active():
            finalizer.cancel()
            run_to_completion(self._end_at_once)
        self._ended = True

    def _end_dropped(self) -> None:
        """End a pool that is garbage-collected, or that is open when the interpreter exits.

        If tasks have no result yet, log a warning with their number.
        """
        unfinished = self._dispatcher.unfinished
        if unfinished:
            _log.warning(
                "A pool of mpr was dropped, or the program ended, while %d of its tasks had no result: they are not "
                "done. Use `with mpr.Pool(...)`, or call close() and join().",
                unfinished,
            )
        # The garbage collector may call this while this thread holds the dispatcher's lock. A wait would then last for
        # ever, because `_end_at_once` needs this lock.
        run_to_completion(self._end_at_once, wait=not self._dispatcher.is_locked)

    def _end_orderly(self) -> None:
        # Ctrl-C may end a first `join` while this method still runs. A second `join` then waits for the lock.
        with self._ending:
            if self._ended:
                return
            self._dispatcher.stop_workers()
            if self._dispatcher.broke:
                # The workers are not needed, because no call waits for their tasks any more.
                self._supervisor.kill()
            else:
                self._supervisor.stop_starting()
            self._display.close()
            if not self._rows.aggregator.wait_for_goodbyes(self._dispatcher.listener, _FAREWELL_SECS):
                self._supervisor.close(0.0)
            if self._finalizer is not None:
                self._finalizer.cancel()
            self._ended = True
            try:
                self._close_recording(failed=self._dispatcher.broke)
            finally:
                self._supervisor.close(_FAREWELL_SECS)

    def _end_at_once(self) -> None:
        self._dispatcher.terminate()
        self._supervisor.kill()
        self._display.close()
        self._supervisor.abort()
        self._close_recording(failed=True)

    def _close_recording(self, *, failed: bool) -> None:
        if self._owns_recording:
            self._rows.close(failed=failed)

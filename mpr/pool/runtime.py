"""Starts all parts of a pool, connects them with each other, and ends them in a fixed order.

Covers: dispatcher, worker supervisor, telemetry, progress bar, and the recording that the pool logs into.
Does not cover: checks of arguments (`options.py`), calls (`calls.py`), and how each part works (`scheduler`,
`telemetry`, `recording`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from multiprocessing import util

from mpr.errors import ConfigError
from mpr.limits import SINK_TIMEOUT_SECS
from mpr.pool.calls import PoolCalls
from mpr.pool.options import PoolOptions
from mpr.pool.progress import Progress
from mpr.processes.start import make_launcher
from mpr.recording.shared_recording import SharedRecording, runtime_of
from mpr.scheduler.dispatcher import Dispatcher
from mpr.scheduler.observer import PoolObserver, PoolObservers
from mpr.scheduler.state import PoolState
from mpr.scheduler.worker_supervisor import WorkerSupervisor
from mpr.telemetry.insights import Insights
from mpr.telemetry.sampler import Sampler, Sources
from mpr.telemetry.tracker import TelemetryTracker
from mpr.threads import is_thread_of_ours, run_to_completion
from mpr.worker.config import MAIN, WorkerConfig

_log = logging.getLogger("mpr")

# Workers may take so long (seconds) for their last rows, and once more for their own exit handlers.
_FAREWELL_SECS = 10.0


class PoolRuntime:
    """The parts of one pool at work. Only this class knows them all.

    The parts end by one ladder:

    1. Stop taking tasks: the dispatcher refuses new calls. At once.
    2. Drain: every submitted task gets its outcome. No bound but `task_timeout` for each task; Ctrl-C ends the wait.
    3. Let the workers go: each one sends its last rows and says goodbye. Meanwhile the telemetry writes its last rows.
       10 s (`_FAREWELL_SECS`).
    4. Terminate: if a goodbye is missing, the workers get SIGTERM. 2 s.
    5. Kill: the workers that are left get SIGKILL. 5 s.
    6. Close the recording, if it is the pool's own. 60 s (`SINK_TIMEOUT_SECS`) for a sink that takes nothing, 3 s
       (`LIVE_FAREWELL_SECS`) for live sinks, and the time to write the footers.
    7. Wait until the processes of the workers have ended: they run their exit handlers. 10 s (`_FAREWELL_SECS`), then
       rungs 4 and 5 once more.

    `close` is rung 1, and `join` does the others. If an error has ended the pool, `join` kills the workers instead of
    rung 3. `terminate` does rungs 1, 5 and 6, and gives an error to every call that has no result. A pool that is
    dropped, or that is still there when the interpreter exits, ends in the same way. Rungs 3 to 7 run in a thread that
    Ctrl-C does not interrupt.

    Parameters
    ----------
    options:
        The checked arguments of the pool.
    recording:
        The user's recording, which stays open; None to make one.
    new_recording:
        Makes the recording if the user has given none. The pool closes this one.
    """

    def __init__(
        self, options: PoolOptions, recording: SharedRecording | None, new_recording: Callable[[], SharedRecording]
    ) -> None:
        self._options = options
        kinds = options.telemetry
        self._progress = Progress(self._counters) if options.progress else None
        self._telemetry = TelemetryTracker(kinds, options.size, time.monotonic_ns) if kinds else None
        self._sampler: Sampler | None = None
        self._finalizer: util.Finalize | None = None
        self._ending = threading.Lock()
        self._ended = False
        with contextlib.ExitStack() as undo:
            # A zygote is forked here, before the recording has threads.
            launcher = make_launcher(options.start_method, options.preload, MAIN, options.initializer)
            undo.callback(launcher.close)
            self._owns_recording = recording is None
            self.recording = recording or new_recording()
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
            )
            self._dispatcher = Dispatcher(
                self._rows.sockets.down,
                options.limits,
                self._supervisor,
                self._rows.aggregator.soon,
                self._observer(),
            )
            self.calls = PoolCalls(self._dispatcher, options.size)
            if self._telemetry is not None:
                self._sampler = self._new_sampler(self._telemetry)
                self._sampler.start()
                # The system may give no more threads for the supervisor.
                undo.callback(self._sampler.close)
            self._supervisor.start()
            undo.pop_all()

    def _observer(self) -> PoolObserver | None:
        observers = [each for each in (self._progress, self._telemetry) if each is not None]
        return PoolObservers(observers) if len(observers) > 1 else next(iter(observers), None)

    def _new_sampler(self, telemetry: TelemetryTracker) -> Sampler:
        size, kinds = self._options.size, self._options.telemetry
        sources = Sources(
            activities=self._dispatcher.activities,
            pid=self._supervisor.pid,
            counters=self._counters,
            accept=self._rows.accept_telemetry,
        )
        return Sampler(telemetry, self._rows.new_pool(size, kinds), size, kinds, sources)

    def _counters(self) -> tuple[int, int]:
        """Any thread: how many rows the workers have logged, and how many bytes the sinks have."""
        return self._rows.aggregator.rows_logged(), self._rows.fanout.accepted_bytes

    # --- called by the worker supervisor's thread ------------------------------------------------------------------

    def _new_worker(self) -> tuple[int, WorkerConfig]:
        options, number = self._options, self._rows.new_worker()
        self._rows.aggregator.listen(number, self._dispatcher.listener)
        if self._telemetry is not None:
            self._telemetry.starting(number)
        is_forkserver = options.start_method == "forkserver"
        return number, WorkerConfig(
            recording=self._connection_info,
            worker=number,
            environ=dict(os.environ) if is_forkserver else None,
            preloaded=is_forkserver and options.preload,
            # A task whose worker is killed on purpose must not take the results of others along.
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
        if self._sampler is not None:
            self._sampler.worker_ended(worker, exitcode)
        self._rows.aggregator.worker_died(worker, exitcode)

    # --- called by the pool ----------------------------------------------------------------------------------------

    @property
    def state(self) -> PoolState:
        """Whether the pool takes tasks."""
        return self._dispatcher.state

    @property
    def ended(self) -> bool:
        """Whether `join` or `terminate` has ended all parts, or is about to close the recording."""
        return self._ended

    def check_running(self) -> None:
        """Raise the error of a pool that has ended, or takes no more tasks."""
        self._dispatcher.check_running()

    def insights(self) -> Insights:
        """Sum up the telemetry; raises `ConfigError` if there is none."""
        if self._telemetry is None:
            raise ConfigError("this pool has telemetry=False, so it knows nothing of what its workers have done")
        return self._telemetry.insights()

    def end_with(self, pool: object) -> None:
        """End all parts if `pool` is garbage-collected, or at the interpreter's exit.

        At the exit this happens before `multiprocessing` waits for its children.
        """
        self._finalizer = util.Finalize(pool, self._end_dropped, exitpriority=100)

    # --- the ladder ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Rung 1: take no more tasks."""
        self._dispatcher.close()

    def drop_waiting(self) -> None:
        """Cancel each task that no worker has yet."""
        run_to_completion(self._dispatcher.drop_waiting)

    def join(self) -> None:
        """After `close` or `terminate`: rungs 2 to 7. Raises as `mpr.Pool.join`."""
        if self._dispatcher.state is PoolState.RUNNING:
            raise ValueError("Pool is still running: call close() or terminate() before join()")
        if self._ended:
            return
        if is_thread_of_ours():
            raise RuntimeError("a callback cannot wait for its own pool: call join() in another thread")
        self._dispatcher.wait_until_done()
        run_to_completion(self._end_orderly)
        self._dispatcher.raise_unreported()

    def terminate(self) -> None:
        """Rungs 5 and 6, unless this has already happened."""
        finalizer = self._finalizer
        if finalizer is not None and finalizer.still_active():
            finalizer.cancel()
            run_to_completion(self._end_at_once)
        self._ended = True

    def _end_dropped(self) -> None:
        """End a pool that was dropped, or that is still there when the interpreter exits."""
        unfinished = self._dispatcher.unfinished
        if unfinished:
            _log.warning(
                "A pool of mpr was dropped, or the program ended, while %d of its tasks had no result: they are not "
                "done. Use `with mpr.Pool(...)`, or call close() and join().",
                unfinished,
            )
        # The garbage collector may call this in the middle of anything, also of a step that the end would wait for.
        run_to_completion(self._end_at_once, wait=not self._dispatcher.is_locked)

    def _end_orderly(self) -> None:
        # If Ctrl-C has ended the first wait for this, the second call waits, too.
        with self._ending:
            if self._ended:
                return
            self._dispatcher.stop_workers()
            if self._dispatcher.broke:
                # The dispatcher has given up the workers, and no call waits for their tasks any more.
                self._supervisor.kill()
            else:
                self._supervisor.stop_starting()
            self._close_telemetry()
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
        self._close_telemetry()
        self._supervisor.abort()
        self._close_recording(failed=True)

    def _close_telemetry(self) -> None:
        # Meanwhile the workers end, and the system releases their memory.
        if self._sampler is not None:
            self._sampler.close()

    def _close_recording(self, *, failed: bool) -> None:
        if self._owns_recording:
            self._rows.close(failed=failed)

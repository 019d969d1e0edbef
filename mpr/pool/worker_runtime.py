"""Starts all parts of a pool with workers of mpr, connects them with each other, and ends them in a fixed order.

Covers: dispatcher, worker supervisor, telemetry and progress bar.
Does not cover: how each part works (`scheduler`, `telemetry`, `recording`), and pools with an engine
(`engine_runtime.py`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from mpr.limits import SINK_TIMEOUT_SECS
from mpr.pool.calls import PoolCalls
from mpr.pool.display import PoolDisplay
from mpr.pool.options import PoolOptions
from mpr.pool.runtime import PoolRuntime
from mpr.processes.start import make_launcher
from mpr.recording.shared_recording import SharedRecording
from mpr.recording.task_calls import TaskCalls
from mpr.scheduler.dispatcher import Dispatcher
from mpr.scheduler.worker_supervisor import WorkerSupervisor
from mpr.worker.config import MAIN, WorkerConfig

# The limit (seconds) for the last rows of the workers, and again for the exit handlers of the workers.
_FAREWELL_SECS = 10.0


class WorkerRuntime(PoolRuntime):
    """Holds the running parts of one pool with workers of mpr, and ends them.

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
    step 3. `terminate` does steps 1, 5 and 6.

    `options` are the checked arguments of the pool.
    """

    def __init__(
        self, options: PoolOptions, recording: SharedRecording | None, new_recording: Callable[[], SharedRecording]
    ) -> None:
        self._options = options
        self._display = PoolDisplay(options, options.size)
        with contextlib.ExitStack() as undo:
            # The launcher is made first, because the zygote of the start method `fork` must be forked before threads
            # exist.
            launcher = make_launcher(options.start_method, options.preload, MAIN, options.initializer)
            undo.callback(launcher.close)
            super().__init__(recording, new_recording, undo)
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
                TaskCalls(self._rows).describe,
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

    # --- the end ---------------------------------------------------------------------------------------------------

    @property
    def _tasks(self) -> Dispatcher:
        return self._dispatcher

    def _end_orderly(self) -> None:
        self._dispatcher.stop_workers()
        if self._dispatcher.lifecycle.broke:
            # The workers are not needed, because no call waits for their tasks any more.
            self._supervisor.kill()
        else:
            self._supervisor.stop_starting()
        self._display.close()
        if not self._rows.aggregator.wait_for_goodbyes(self._dispatcher.listener, _FAREWELL_SECS):
            self._supervisor.close(0.0)
        self._forget_pool()
        try:
            self._close_recording(failed=self._dispatcher.lifecycle.broke)
        finally:
            self._supervisor.close(_FAREWELL_SECS)

    def _stop_tasks(self) -> None:
        self._dispatcher.terminate()
        self._supervisor.kill()

    def _end_stopped(self) -> None:
        self._forget_pool()
        self._display.close()
        self._supervisor.abort()
        self._close_recording(failed=True)

    def _may_wait(self) -> bool:
        # The garbage collector may end the pool in a thread that holds the dispatcher's lock.
        return not self._dispatcher.is_locked

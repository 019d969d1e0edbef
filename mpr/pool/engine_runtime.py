"""Starts and ends the parts of a pool whose tasks an engine (Ray, Dask, an executor) runs.

Covers: the engine, its dispatcher, and the display.
Does not cover: pools with workers of mpr (`worker_runtime.py`), and how the engine runs tasks (`engines`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from mpr.engines.choice import open_engine
from mpr.engines.dispatcher import EngineDispatcher
from mpr.pool.calls import PoolCalls
from mpr.pool.display import PoolDisplay
from mpr.pool.options import PoolOptions
from mpr.pool.runtime import PoolRuntime
from mpr.recording.shared_recording import SharedRecording
from mpr.scheduler.worker_handle import WorkerActivity
from mpr.transport import connection_info


class EngineRuntime(PoolRuntime):
    """Holds the running parts of one pool with an engine, and ends them.

    After every task has its outcome, the thread of the dispatcher and the telemetry end. Then the recording is closed,
    if the pool has made it, and at last the engine ends, if the pool has started it. `terminate` first asks the engine
    to cancel its tasks. The engine may still run some of them.

    `options` are the checked arguments of the pool. `options.engine` is not None.
    """

    def __init__(
        self,
        options: PoolOptions,
        recording: SharedRecording | None,
        new_recording: Callable[[], SharedRecording],
    ) -> None:
        assert options.engine is not None
        with contextlib.ExitStack() as undo:
            self._engine = open_engine(options.engine, options.limits.retries)
            undo.callback(self._engine.close)
            super().__init__(recording, new_recording, undo)
            self.size: int = self._engine.size
            self._display = PoolDisplay(options, self.size)
            config = connection_info.to_text(self._rows.connection_info(self.size))
            self._dispatcher = EngineDispatcher(self._engine, config, self._display.observer(), self._first_seen)
            undo.callback(self._dispatcher.stop)
            self.calls: PoolCalls = PoolCalls(self._dispatcher, self.size)
            self._display.start(self._rows, self._activities, self._dispatcher.pid)
            undo.pop_all()

    @property
    def _tasks(self) -> EngineDispatcher:
        return self._dispatcher

    def _first_seen(self, worker: int) -> None:
        if self._display.telemetry is not None:
            self._display.telemetry.starting(worker)

    def _activities(self) -> list[WorkerActivity]:
        # An engine does not say which task a worker runs at the moment.
        return []

    def _end_orderly(self) -> None:
        self._end(failed=False)

    def _stop_tasks(self) -> None:
        self._dispatcher.terminate()

    def _end_stopped(self) -> None:
        self._end(failed=True)

    def _end(self, *, failed: bool) -> None:
        self._forget_pool()
        self._dispatcher.stop()
        self._display.close()
        try:
            self._close_recording(failed=failed)
        finally:
            self._engine.close()

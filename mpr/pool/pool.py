"""Defines `mpr.Pool`, which has the calls of `multiprocessing.Pool` and collects all rows in one recording.

Covers: the public names, their signatures, and the state of a pool as its user sees it.
Does not cover: maps (`maps.py`), checks of arguments (`options.py`), work items (`calls.py`), the parts of a pool
(`runtime.py`).
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from mpr.engines.options import EngineLike
from mpr.errors import UnpicklableTaskError
from mpr.pool.calls import PoolCalls
from mpr.pool.engine_runtime import EngineRuntime
from mpr.pool.executor import PoolExecutor, TaskFuture
from mpr.pool.maps import PoolMaps
from mpr.pool.options import PoolOptions, check_recording
from mpr.pool.results import AsyncResult, Callback
from mpr.pool.runtime import PoolRuntime
from mpr.pool.worker_runtime import WorkerRuntime
from mpr.processes.main_module import prepare_main
from mpr.processes.start import StartMethod
from mpr.recording.options import Route, SinksLike
from mpr.recording.shared_recording import SharedRecording, runtime_of
from mpr.scheduler.state import PoolState
from mpr.telemetry.insights import Insights

if TYPE_CHECKING:
    from rerun.blueprint import BlueprintLike

R = TypeVar("R")
P = ParamSpec("P")


class Pool(PoolMaps):
    """Runs tasks in worker processes, and collects all rows of the tasks in one recording.

    The methods are those of `multiprocessing.Pool`. Coroutines can use `async with mpr.Pool(...)`, and can await the
    results of `apply_async`, `map_async`, `starmap_async` and `submit`. Tasks log with plain `rr.log`. When a method
    returns the result of a task, every durable sink (such as a file) has every row of the task. If not, the method
    raises an error.

    Parameters
    ----------
    application_id:
        The application id of the recording, as in `rr.init`.
    processes:
        The number of workers. By default, the number of CPUs that this process may use.
    initializer, initargs:
        Each worker calls `initializer(*initargs)` before its first task. If the call raises, or if a worker cannot
        unpickle the initializer, the pool ends with `InitializerError`.
    worker_exit:
        Each worker calls `worker_exit()` after its last task, and its rows are kept. If the call raises, the error is
        logged to stderr and into the recording. When the pool ends, the call may take 10 s, and then the worker is
        ended. A worker that is killed, also by `terminate`, does not make the call.
    maxtasksperchild:
        The number of tasks after which a worker is replaced (None: no limit). In a map, `chunksize` tasks count as one.
    recording_id, sinks, blueprint, route, telemetry_view:
        As in `mpr.SharedRecording`.
    recording:
        A `SharedRecording` to log into, which the pool does not close. None: the pool makes a recording, and closes it.
        The attribute `recording` is the recording of the pool in both cases.
    start_method:
        'forkserver', 'spawn' or 'fork'. The default is 'forkserver' if the platform has it, else 'spawn'.
    preload:
        If True, the fork server imports the Rerun SDK before it forks workers. Workers then start in milliseconds, but
        `rr.server.Server` and `rr.catalog.CatalogClient` do not work in workers.
    task_timeout:
        How many seconds a task may run; None: no limit. If a task runs longer, its worker is killed and replaced, and
        the task fails with `TaskTimeoutError`.
    retries:
        How often a task is run again if its worker dies, before it fails with `WorkerDiedError`. The rows of all
        attempts stay, with a note in the recording. Exceptions of the task and `task_timeout` cause no other attempt.
    maxmemoryperchild:
        The resident memory of a worker, in bytes, above which the worker is replaced after a task (None: no limit).
    progress:
        If True, a progress bar (by `tqdm`) shows tasks, failed tasks, rows, and the bytes that the sinks have.
    capture_logging, capture_output:
        With `capture_logging`, `logging` records of workers go into the recording, under `mpr/logs/<logger>`. With
        `capture_output`, lines that workers print go there too, under `mpr/output/`.
    telemetry:
        The kinds of telemetry (rows about the pool itself) that are recorded under `mpr/`: some of `"workers"`,
        `"tasks"`, `"resources"` and `"pool"`. True: all. False: none. See `docs/telemetry.md`.
    engine:
        The engine that runs the tasks instead of workers of mpr: "ray", "dask", a `distributed.Client`, or a
        `concurrent.futures.Executor`. See `docs/engines.md`, also for arguments that an engine does not accept.
    engine_options:
        Options of `ray.remote` for each call, such as `{"num_gpus": 1}`, or options of Dask's `Client.submit`.

    Raises
    ------
    ConfigError, SinkError
        If a value cannot be used, or if a sink cannot be opened.
    UnpicklableTaskError
        If the initializer, its arguments or `worker_exit` cannot be sent to a worker.
    MissingDependencyError
        If the package of the engine, or `tqdm` for `progress`, is not installed.
    """

    def __init__(
        self,
        application_id: str,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        worker_exit: Callable[[], object] | None = None,
        recording_id: str | None = None,
        sinks: SinksLike | None = None,
        blueprint: BlueprintLike | None = None,
        route: Route = "funnel",
        recording: SharedRecording | None = None,
        start_method: StartMethod | None = None,
        preload: bool = True,
        task_timeout: float | None = None,
        retries: int = 0,
        maxmemoryperchild: int | None = None,
        progress: bool = False,
        capture_logging: bool = True,
        capture_output: bool = False,
        telemetry: bool | Iterable[str] = True,
        telemetry_view: bool = True,
        engine: EngineLike | None = None,
        engine_options: Mapping[str, Any] | None = None,
    ) -> None:
        prepare_main()
        options = PoolOptions.check(
            processes=processes,
            initializer=initializer,
            initargs=initargs,
            worker_exit=worker_exit,
            maxtasksperchild=maxtasksperchild,
            start_method=start_method,
            preload=preload,
            task_timeout=task_timeout,
            retries=retries,
            maxmemoryperchild=maxmemoryperchild,
            progress=progress,
            capture_logging=capture_logging,
            capture_output=capture_output,
            telemetry=telemetry,
            engine=engine,
            engine_options=engine_options,
        )
        new_recording = check_recording(
            recording,
            application_id,
            recording_id=recording_id,
            sinks=sinks,
            blueprint=blueprint,
            route=route,
            telemetry_view=telemetry_view,
        )
        self._pid = os.getpid()
        runtime = WorkerRuntime if options.engine is None else EngineRuntime
        self._runtime: PoolRuntime = runtime(options, recording, new_recording)
        self.recording: SharedRecording = self._runtime.recording
        self._runtime.end_with(self)

    # --- calls -------------------------------------------------------------------------------------------------

    def apply(self, func: Callable[..., R], args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> R:
        """Call `func(*args, **kwds)` in a worker. Return the result, or raise the exception of this call.

        Raises `UnpicklableTaskError` if the call cannot be pickled. Raises `PoolClosedError` if the pool accepts no new
        calls, or the error that has ended the pool, such as `InitializerError`.
        """
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[R]:
        """Submit the call of `apply`, and return an `AsyncResult` at once. Its method `get` returns the result later.

        When the task has ended, `callback` is called with the result, or `error_callback` with the exception. A
        callback may log, and may wait for results, but must not wait for other callbacks of the pool.
        """
        return self._calls.apply(func, args, kwds, callback, error_callback)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """Call `fn(*args, **kwargs)` in a worker, and return the future of this call, as `Executor.submit` does.

        `future.cancel(running=True)` also cancels a task that a worker of mpr runs.
        """
        return self.executor.submit(fn, *args, **kwargs)

    @property
    def executor(self) -> PoolExecutor:
        """A `concurrent.futures.Executor` that runs its calls in this pool. Its method `shutdown` ends the pool."""
        return self._runtime.calls.executor(self._check_running, self.shutdown)

    def insights(self) -> Insights:
        """Return how the workers have spent their time until now, and which tasks were the slowest.

        This works at any time, also after the end of the pool. Raises `ConfigError` if the pool has `telemetry=False`.
        """
        return self._runtime.insights()

    # --- the end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Accept no new calls. The workers still run all tasks of earlier calls. This method does not wait for them."""
        self._check_process()
        self._runtime.close()

    def terminate(self) -> None:
        """Kill the workers, or ask the engine to cancel its tasks. If the pool has made the recording, close it.

        Each call without a result raises `PoolTerminatedError`. Raises the first two errors of `SharedRecording.close`.
        """
        self._check_process()
        self._runtime.terminate()

    def join(self) -> None:
        """Wait until all tasks, and all workers of mpr, have ended. If the pool has made the recording, close it.

        After `terminate`, do nothing. Raises `ValueError` if neither `close` nor `terminate` was called before, and
        `RuntimeError` in a callback. If `join` closes the recording, it raises the errors of `SharedRecording.close`.
        If an error has ended the pool, `join` raises this error, unless a call has raised it before.
        """
        self._check_process()
        self._runtime.join()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no new calls, as `close` does. If `wait` is True, then call `join`, which can raise errors.

        If `wait` is False, the workers still run all tasks, and the program exits only after that. If `cancel_futures`
        is True, the tasks that no worker has yet are cancelled.
        """
        self.close()
        if cancel_futures:
            self._runtime.drop_waiting()
        if wait:
            self.join()
        elif not self._runtime.is_ending:
            # The thread keeps the pool alive until all work is done. At exit, the interpreter waits for the thread.
            threading.Thread(target=self.join, name="join-mpr-pool", daemon=False).start()

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """Call `close` and `join`. If an exception ends the block, or Ctrl-C ends `join`, call `terminate` instead."""
        if kind is not None:
            self.terminate()
            return
        try:
            self.close()
            self.join()
        except KeyboardInterrupt:
            self.terminate()
            raise

    async def __aenter__(self) -> Pool:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """Do the same as `__exit__`, but let other coroutines of the event loop run meanwhile.

        If the wait is cancelled, call `terminate`.
        """
        # Imported here, because only programs with an event loop need `asyncio`.
        from mpr.pool import awaiting

        await awaiting.finish(lambda: self.__exit__(kind, error, trace), self.terminate)

    # The globals of this module are defaults here. The interpreter may delete a pool at its exit, when the globals are
    # gone.
    def __del__(
        self, _running: PoolState = PoolState.RUNNING, _getpid: Any = os.getpid, _warn: Any = warnings.warn
    ) -> None:
        # A user who drops a running pool has forgotten to close it, so this warns. It does nothing more, because the
        # runtime ends the workers of such a pool (`PoolRuntime.end_with`).
        runtime = getattr(self, "_runtime", None)
        if runtime is not None and runtime.state is _running and _getpid() == self._pid:
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __reduce__(self) -> Any:
        raise UnpicklableTaskError("a pool cannot be sent to another process: make one there, or pass its results")

    def __repr__(self) -> str:
        state = self._runtime.state.value
        return f"<mpr.Pool {self.recording.application_id!r} {state} processes={self._runtime.size}>"

    @property
    def _calls(self) -> PoolCalls:
        self._check_running()
        return self._runtime.calls

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            runtime_of(self.recording).check_usable()

    def _check_running(self) -> None:
        self._check_process()
        self._runtime.check_running()

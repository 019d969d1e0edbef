"""`mpr.Pool`: `multiprocessing.Pool` with an application id in front, and every row in one recording."""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from mpr.errors import UnpicklableTaskError
from mpr.pool.executor import PoolExecutor, TaskFuture
from mpr.pool.options import PoolOptions, check_recording
from mpr.pool.results import AsyncResult, Callback, ResultIterator
from mpr.pool.runtime import PoolRuntime
from mpr.processes.main_module import prepare_main
from mpr.processes.start import StartMethod
from mpr.recording.options import Route
from mpr.recording.shared_recording import SharedRecording, runtime_of
from mpr.scheduler.state import PoolState
from mpr.telemetry.insights import Insights
from mpr.transport.messages import EACH, STAR

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


class Pool:
    """A pool of worker processes whose rows end up in one recording.

    A result in hand means that every row of its task is in the recording. Tasks log with plain `rr.log`.

    Parameters
    ----------
    application_id:
        As in `rr.init`.
    processes:
        Number of workers; by default as many as this process may use CPUs.
    initializer, initargs:
        Called as `initializer(*initargs)` in each worker before its first task. If it raises, the pool ends with
        `InitializerError`. A worker that is still starting when there is no more work is ended without it.
    maxtasksperchild:
        A worker is replaced after so many tasks (work items of `chunksize` tasks in a map); None: never.
    recording_id, sinks, blueprint, route, telemetry_view:
        As in `mpr.SharedRecording`.
    recording:
        A `SharedRecording` to log into instead of one of its own; the pool does not close it.
    start_method:
        'forkserver' (the default on Linux), 'spawn' or 'fork'.
    preload:
        Whether the fork server imports the Rerun SDK before it forks, which makes workers start in milliseconds.
        `rr.server.Server` and `rr.catalog.CatalogClient` do not work in such workers.
    task_timeout:
        Seconds that a task may run, from the call of its function to its return. One that takes longer raises
        `TaskTimeoutError`, whatever it is at; its worker is ended and replaced. None: as long as it takes.
    retries:
        How often a task is run again whose worker has died; the rows of each attempt stay, and the recording says so.
        What a task raises is its result and does not count, nor does a `task_timeout`.
    maxmemoryperchild:
        A worker that has more bytes resident after a task is replaced (including what it shares with others, such as
        the SDK's code: about 80 MB); None: never.
    progress:
        Show a bar (in a terminal or notebook, by `tqdm`): tasks done and failed, their rate, the rows that they
        have logged, and the bytes received.
    capture_logging:
        Whether the workers' `logging` records go into the recording, under `mpr/logs/<logger>`.
    capture_output:
        Whether what the workers write to `sys.stdout` and `sys.stderr` does, line by line, under `mpr/output/`. It is
        printed all the same.
    telemetry:
        What the pool records of itself, under `mpr/`: True for everything, False for nothing, or some of `"workers"`
        (what each one is at), `"tasks"` (a span for each, errors), `"resources"` (processor time, memory, threads and
        open files of each worker, every second) and `"pool"` (throughput, queue, rows and bytes; the insights at the
        end). It costs less than one percent of a core; a `DirectorySink` gets none of it. See `docs/telemetry.md`.

    Raises
    ------
    ConfigError, SinkError
        If a value cannot be used, or a sink cannot be opened; nothing was started then.
    UnpicklableTaskError
        If the initializer or its arguments cannot be sent to a worker.
    """

    def __init__(
        self,
        application_id: str,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        recording_id: str | None = None,
        sinks: Any = None,
        blueprint: Any = None,
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
    ) -> None:
        prepare_main()
        options = PoolOptions.check(
            processes=processes,
            initializer=initializer,
            initargs=initargs,
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
        )
        check_recording(
            recording, application_id, recording_id=recording_id, sinks=sinks, blueprint=blueprint, route=route
        )
        new_recording = functools.partial(
            SharedRecording,
            application_id,
            recording_id=recording_id,
            sinks=sinks,
            blueprint=blueprint,
            route=route,
            telemetry_view=telemetry_view,
        )
        self._size = options.size
        self._pid = os.getpid()
        self._runtime = PoolRuntime(options, recording, new_recording)
        self.recording = self._runtime.recording
        self._runtime.end_with(self)

    # --- calls -------------------------------------------------------------------------------------------------

    def apply(self, func: Callable[..., R], args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> R:
        """`func(*args, **kwds)` in a worker; waits for the result."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[R]:
        """As `apply`, at once: the result comes later. Callbacks run in a thread of the pool and must be short."""
        self._check_running()
        return self._runtime.calls.apply(func, args, kwds, callback, error_callback)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """`fn(*args, **kwargs)` in a worker, as in `concurrent.futures.Executor`.

        `future.cancel(running=True)` also ends a task that runs.
        """
        return self.executor.submit(fn, *args, **kwargs)

    @property
    def executor(self) -> PoolExecutor:
        """This pool as a `concurrent.futures.Executor`, for whatever wants one. Its `shutdown` is the pool's."""
        return self._runtime.calls.executor(self._check_running, self._shutdown)

    def map(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int | None = None) -> list[R]:
        """`[func(item) for item in iterable]`, by all workers; `chunksize` tasks go to a worker at a time."""
        return self.map_async(func, iterable, chunksize).get()

    def map_async(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[list[R]]:
        """As `map`, at once: the list comes later."""
        self._check_running()
        return self._runtime.calls.map(func, iterable, EACH, chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., R], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[R]:
        """`[func(*item) for item in iterable]`, by all workers."""
        return self.starmap_async(func, iterable, chunksize).get()

    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[list[R]]:
        """As `starmap`, at once: the list comes later."""
        self._check_running()
        return self._runtime.calls.map(func, iterable, STAR, chunksize, callback, error_callback)

    def imap(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int = 1) -> ResultIterator[R]:
        """The results of `map` one by one, in order. The input is read as fast as results are taken."""
        self._check_running()
        return self._runtime.calls.imap(func, iterable, chunksize, ordered=True)

    def imap_unordered(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int = 1) -> ResultIterator[R]:
        """As `imap`, each result as soon as it is there."""
        self._check_running()
        return self._runtime.calls.imap(func, iterable, chunksize, ordered=False)

    def insights(self) -> Insights:
        """What the workers have spent their time on, and the slowest tasks; also while they work, and after the end.

        As text it is a table. With telemetry `"pool"`, the recording has it at the end. Raises `ConfigError` where the
        pool has `telemetry=False`.
        """
        return self._runtime.insights()

    # --- the end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more tasks; those submitted are worked off."""
        self._check_process()
        self._runtime.close()

    def terminate(self) -> None:
        """End the workers now. What has no result raises `PoolTerminatedError`; the recording becomes valid."""
        self._check_process()
        self._runtime.terminate()

    def join(self) -> None:
        """After `close` or `terminate`: wait until all tasks and workers have ended, and close the recording.

        Raises `ValueError` before `close`, `SinkError` where rows were lost at the end, and what ended the pool
        where nobody has been told.
        """
        self._check_process()
        self._runtime.join()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As in `concurrent.futures.Executor`: `close`, and with `wait` also `join`.

        Without `wait`, the work goes on in the background, and the program does not exit before it is done.
        `cancel_futures` drops what no worker has yet.
        """
        self._shutdown(wait, cancel_futures)

    def _shutdown(self, wait: bool, cancel_futures: bool) -> None:
        self.close()
        if cancel_futures:
            self._runtime.drop_waiting()
        if wait:
            self.join()
        elif not self._runtime.ended:
            # It holds the pool, which nobody else need do, and the interpreter waits for it.
            threading.Thread(target=self.join, name="join-mpr-pool", daemon=False).start()

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Without an exception wait for the work (`close` and `join`); with one `terminate`."""
        if kind is not None:
            self.terminate()
            return
        try:
            self.close()
            self.join()
        except KeyboardInterrupt:
            self.terminate()
            raise

    def __del__(self) -> None:
        # The runtime ends the workers of a pool that was dropped; this warns that it was dropped by mistake.
        runtime = getattr(self, "_runtime", None)
        if runtime is not None and runtime.state is PoolState.RUNNING and os.getpid() == self._pid:
            warnings.warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __reduce__(self) -> Any:
        raise UnpicklableTaskError("a pool cannot be sent to another process: make one there, or pass its results")

    def __repr__(self) -> str:
        state = self._runtime.state.value
        return f"<mpr.Pool {self.recording.application_id!r} {state} processes={self._size}>"

    # --- inside ------------------------------------------------------------------------------------------------

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            runtime_of(self.recording).check_usable()

    def _check_running(self) -> None:
        self._check_process()
        self._runtime.check_running()

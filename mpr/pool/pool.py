"""`mpr.Pool`: the calls of `multiprocessing.Pool`, with an application id in front and every row in one recording.

Covers: the public names, their signatures, and the state of a pool as its user sees it.
Does not cover: checks of arguments (`options.py`), work items (`calls.py`), the parts of a pool (`runtime.py`).
"""

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
    """Run tasks in worker processes, and collect all rows that they log in one recording.

    The calls are those of `multiprocessing.Pool`. Tasks log with plain `rr.log`. When a call returns a result, every
    row of its task is in the recording.

    Parameters
    ----------
    application_id:
        The application id of the recording, as in `rr.init`.
    processes:
        The number of workers; by default the number of CPUs that this process may use.
    initializer, initargs:
        Each worker calls `initializer(*initargs)` before its first task. If the call raises, the pool ends with
        `InitializerError`. A worker that still starts when all work is done ends without the call.
    maxtasksperchild:
        The number of tasks after which a worker is replaced; in a map, `chunksize` tasks count as one. None: never.
    recording_id, sinks, blueprint, route, telemetry_view:
        As in `mpr.SharedRecording`.
    recording:
        A `SharedRecording` to log into. The pool does not close it. None: the pool makes one, and closes it.
    start_method:
        'forkserver' (the default on Linux), 'spawn' or 'fork'.
    preload:
        Whether the fork server imports the Rerun SDK before it forks. Workers then start in milliseconds, but
        `rr.server.Server` and `rr.catalog.CatalogClient` do not work in them.
    task_timeout:
        The seconds that a task may run, from the call of its function to its return. A task that runs longer raises
        `TaskTimeoutError`, and its worker is killed and replaced. None: no limit.
    retries:
        The number of times that a task is run again if its worker dies. The rows of all attempts stay, and the
        recording says which these are. Neither an exception of the task nor a `task_timeout` causes another attempt.
    maxmemoryperchild:
        Bytes of resident memory. A worker that has more after a task is replaced. This counts memory that it shares
        with other processes, such as about 80 MB of code of the SDK. None: no limit.
    progress:
        Whether a progress bar (by `tqdm`) shows tasks done and failed, their rate, rows logged and bytes received.
    capture_logging:
        Whether `logging` records of workers go into the recording, under `mpr/logs/<logger>`.
    capture_output:
        Whether lines that workers write to `sys.stdout` and `sys.stderr` go into the recording, under `mpr/output/`.
        They are printed all the same.
    telemetry:
        The kinds of telemetry that the pool records under `mpr/`. True stands for all, False for none. The kinds are
        `"workers"` (the state of each worker), `"tasks"` (spans and errors), `"resources"` (processor time, memory,
        threads and open files of each worker, every second) and `"pool"` (throughput, queue, rows and bytes, and the
        insights at the end). It uses less than one percent of a core. A `DirectorySink` gets no telemetry. See
        `docs/telemetry.md`.

    Raises
    ------
    ConfigError
        If a value cannot be used. No process was started then.
    SinkError
        If a sink cannot be opened.
    UnpicklableTaskError
        If the initializer or its arguments cannot be sent to a worker.
    MissingDependencyError
        If `progress` is set and `tqdm` is not installed.
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
        """Call `func(*args, **kwds)` in a worker, and return its result."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[R]:
        """Do as `apply`, but return an `AsyncResult` at once. Callbacks run in a thread of mpr and must be short."""
        self._check_running()
        return self._runtime.calls.apply(func, args, kwds, callback, error_callback)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """Call `fn(*args, **kwargs)` in a worker, as `concurrent.futures.Executor.submit` does, and return its future.

        `future.cancel(running=True)` also cancels a task that runs.
        """
        return self.executor.submit(fn, *args, **kwargs)

    @property
    def executor(self) -> PoolExecutor:
        """This pool as a `concurrent.futures.Executor`, for libraries that take one. Its `shutdown` is the pool's."""
        return self._runtime.calls.executor(self._check_running, self._shutdown)

    def map(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int | None = None) -> list[R]:
        """Return `[func(item) for item in iterable]`; `chunksize` tasks go to a worker at a time."""
        return self.map_async(func, iterable, chunksize).get()

    def map_async(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[list[R]]:
        """Do as `map`, but return an `AsyncResult` at once."""
        self._check_running()
        return self._runtime.calls.map(func, iterable, EACH, chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., R], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[R]:
        """Return `[func(*item) for item in iterable]`; `chunksize` tasks go to a worker at a time."""
        return self.starmap_async(func, iterable, chunksize).get()

    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[list[R]]:
        """Do as `starmap`, but return an `AsyncResult` at once."""
        self._check_running()
        return self._runtime.calls.map(func, iterable, STAR, chunksize, callback, error_callback)

    def imap(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int = 1) -> ResultIterator[R]:
        """Return an iterator over the results of `map`, in order.

        A thread reads `iterable` only as fast as the results are taken.
        """
        self._check_running()
        return self._runtime.calls.imap(func, iterable, chunksize, ordered=True)

    def imap_unordered(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int = 1) -> ResultIterator[R]:
        """Do as `imap`, but yield each result as soon as it is there."""
        self._check_running()
        return self._runtime.calls.imap(func, iterable, chunksize, ordered=False)

    def insights(self) -> Insights:
        """Sum up what the workers have spent their time on until now, and which tasks were the slowest.

        This works at any time, also after the end of the pool. As text, the result is a table. With telemetry `"pool"`,
        the recording has it at the end. Raises `ConfigError` if the pool has `telemetry=False`.
        """
        return self._runtime.insights()

    # --- the end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more tasks. The workers still do all tasks that were submitted before."""
        self._check_process()
        self._runtime.close()

    def terminate(self) -> None:
        """Kill the workers now, and close the recording so that it is valid.

        A call that has no result yet raises `PoolTerminatedError`.
        """
        self._check_process()
        self._runtime.terminate()

    def join(self) -> None:
        """Wait until all tasks and workers have ended, and close the recording.

        Call `close` or `terminate` before; `ValueError` says so otherwise. Raises `SinkError` if rows were lost at the
        end, and the error that has ended the pool if no call has raised it before.
        """
        self._check_process()
        self._runtime.join()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Call `close`, and with `wait` also `join`, as `concurrent.futures.Executor.shutdown` does.

        Without `wait`, the work goes on in the background, and the program does not exit before all work is done.
        With `cancel_futures`, the tasks that no worker has yet are cancelled.
        """
        self._shutdown(wait, cancel_futures)

    def _shutdown(self, wait: bool, cancel_futures: bool) -> None:
        self.close()
        if cancel_futures:
            self._runtime.drop_waiting()
        if wait:
            self.join()
        elif not self._runtime.ended:
            # The thread keeps the pool alive until all work is done, and the interpreter waits for it at exit.
            threading.Thread(target=self.join, name="join-mpr-pool", daemon=False).start()

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Call `close` and `join`, or `terminate` if an exception ends the block."""
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

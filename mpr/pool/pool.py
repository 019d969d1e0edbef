"""`mpr.Pool`: `multiprocessing.Pool` with an application id in front, and every row in one recording."""

from __future__ import annotations

import contextlib
import itertools
import logging
import operator
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import util
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from mpr.errors import ConfigError, UnpicklableTaskError
from mpr.pool import options
from mpr.pool.executor import PoolExecutor, TaskFuture
from mpr.pool.imap import ImapFeeder
from mpr.pool.progress import Progress
from mpr.pool.results import AsyncResult, Callback, MapResult, ResultIterator, SingleResult
from mpr.pool.runtime import abandon, start_parts, terminate
from mpr.processes import task_pickling
from mpr.processes.main_module import prepare_main
from mpr.processes.pickling import Portable
from mpr.processes.start import StartMethod, check_processes, check_start_method, make_launcher
from mpr.recording.options import Route, check_application_id, check_route
from mpr.recording.shared_recording import SharedRecording
from mpr.scheduler.state import PoolLimits, PoolState
from mpr.scheduler.work_item import TaskFunction, WorkItem
from mpr.telemetry.insights import Insights
from mpr.telemetry.tracker import TelemetryTracker
from mpr.threads import is_thread_of_ours, run_to_completion
from mpr.transport.messages import EACH, STAR
from mpr.worker.capture import CaptureOptions
from mpr.worker.config import MAIN

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

# `close` and `join` give workers so long after their last task, for their own exit handlers.
_FAREWELL_SECS = 10.0
_SUBMITTED_AT_ONCE = 64
# `imap` has so many items per worker on their way or waiting to be taken.
_IMAP_AHEAD = 4


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
        self._size = check_processes(processes)
        method = check_start_method(start_method)
        limits = PoolLimits(
            tasks=options.check_maxtasksperchild(maxtasksperchild),
            memory=options.check_maxmemoryperchild(maxmemoryperchild),
            task_secs=options.check_task_timeout(task_timeout),
            retries=options.check_retries(retries),
        )
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, got {initializer!r}")
        if recording is not None and (sinks, recording_id, blueprint) != (None, None, None):
            raise TypeError("give either recording, or sinks, recording_id and blueprint: they belong to a new one")
        check_application_id(application_id)
        if recording is not None:
            if check_route(route) != "funnel":
                raise ConfigError("give route='direct' to the SharedRecording: it belongs to the recording")
            recording.check_usable()
            if recording.application_id != application_id:
                raise ConfigError(f"the recording is of {recording.application_id!r}, not of {application_id!r}")
        bar = Progress() if progress else None
        kinds = options.check_telemetry(telemetry)
        shared = Portable((initializer, tuple(initargs)))
        if method != "fork":
            task_pickling.check_portable("the initializer", shared)
        # A zygote is forked here, before the recording has threads.
        launcher = make_launcher(method, preload, MAIN, shared)
        self._owns_recording = recording is None
        self._pid = os.getpid()
        preloaded = method == "forkserver" and preload
        capture = CaptureOptions(
            logging=bool(capture_logging), output=bool(capture_output), level=logging.getLogger().level
        )
        with contextlib.ExitStack() as undo:
            undo.callback(launcher.close)
            self.recording = recording or SharedRecording(
                application_id,
                recording_id=recording_id,
                sinks=sinks,
                blueprint=blueprint,
                route=route,
                telemetry_view=telemetry_view,
            )
            if self._owns_recording:
                undo.callback(self.recording.finish, failed=True)
            self._telemetry = TelemetryTracker(kinds, self._size, time.monotonic_ns) if kinds else None
            self._supervisor, self._dispatcher, self._sampler = start_parts(
                self.recording,
                launcher,
                self._size,
                limits,
                bar,
                self._telemetry,
                kinds,
                capture,
                preloaded,
                environ=method == "forkserver",
            )
            undo.pop_all()
        self._joined = False
        self._joining = threading.Lock()
        # Runs when the pool is forgotten, or at the interpreter's exit before `multiprocessing` waits for children.
        self._parts = (self._dispatcher, self._supervisor, self._sampler, self.recording, self._owns_recording)
        self._abandon = util.Finalize(self, abandon, self._parts, exitpriority=100)

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
        result: SingleResult[R] = SingleResult(callback, error_callback)
        task = TaskFunction.of(func)
        payload = task_pickling.dump_arguments(task.name, [(tuple(args), dict(kwds or {}))])
        self._dispatcher.submit(WorkItem(function=task, payload=payload, on_outcome=result.on_outcome))
        return result

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """`fn(*args, **kwargs)` in a worker, as in `concurrent.futures.Executor`.

        `future.cancel(running=True)` also ends a task that runs.
        """
        return self.executor.submit(fn, *args, **kwargs)

    @property
    def executor(self) -> PoolExecutor:
        """This pool as a `concurrent.futures.Executor`, for whatever wants one. Its `shutdown` is the pool's."""
        return PoolExecutor(self._dispatcher, self._check_running, self._shutdown)

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
        return self._map_async(func, iterable, EACH, chunksize, callback, error_callback)

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
        return self._map_async(func, iterable, STAR, chunksize, callback, error_callback)

    def imap(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int = 1) -> ResultIterator[R]:
        """The results of `map` one by one, in order. The input is read as fast as results are taken."""
        return self._imap(func, iterable, chunksize, ordered=True)

    def imap_unordered(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int = 1) -> ResultIterator[R]:
        """As `imap`, each result as soon as it is there."""
        return self._imap(func, iterable, chunksize, ordered=False)

    def insights(self) -> Insights:
        """What the workers have spent their time on, and the slowest tasks; also while they work, and after the end.

        As text it is a table. With telemetry `"pool"`, the recording has it at the end. Raises `ConfigError` where the
        pool has `telemetry=False`.
        """
        if self._telemetry is None:
            raise ConfigError("this pool has telemetry=False, so it knows nothing of what its workers have done")
        return self._telemetry.insights()

    # --- the end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more tasks; those submitted are worked off."""
        self._check_process()
        self._dispatcher.close()

    def terminate(self) -> None:
        """End the workers now. What has no result raises `PoolTerminatedError`; the recording becomes valid."""
        self._check_process()
        if self._abandon.still_active():
            self._abandon.cancel()
            terminate(*self._parts)
        self._joined = True

    def join(self) -> None:
        """After `close` or `terminate`: wait until all tasks and workers have ended, and close the recording.

        Raises `ValueError` before `close`, `SinkError` where rows were lost at the end, and what ended the pool
        where nobody has been told.
        """
        self._check_process()
        if self._dispatcher.state is PoolState.RUNNING:
            raise ValueError("Pool is still running: call close() or terminate() before join()")
        if self._joined:
            return
        if is_thread_of_ours():
            raise RuntimeError("a callback cannot wait for its own pool: call join() in another thread")
        self._dispatcher.wait_until_done()
        run_to_completion(self._end)
        self._dispatcher.raise_unreported()

    def _end(self) -> None:
        """All tasks are done: let the workers go, and close the recording."""
        # Where Ctrl-C has ended the first wait for this, the second one waits, too.
        with self._joining:
            if self._joined:
                return
            self._dispatcher.stop_workers()
            if self._dispatcher.broke:
                # It has let go of the workers, and nobody wants what they may be at.
                self._supervisor.kill()
            else:
                self._supervisor.stop_starting()
            if self._sampler is not None:
                # While the workers end.
                self._sampler.close()
            if not self.recording.aggregator.wait_for_goodbyes(self._dispatcher.listener, _FAREWELL_SECS):
                self._supervisor.close(0.0)
            self._abandon.cancel()
            self._joined = True
            try:
                if self._owns_recording:
                    # All rows have come; the system is still taking the workers' memory back.
                    self.recording.finish(failed=self._dispatcher.broke)
            finally:
                self._supervisor.close(_FAREWELL_SECS)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As in `concurrent.futures.Executor`: `close`, and with `wait` also `join`.

        Without `wait`, the work goes on in the background, and the program does not exit before it is done.
        `cancel_futures` drops what no worker has yet.
        """
        self._shutdown(wait, cancel_futures)

    def _shutdown(self, wait: bool, cancel_futures: bool) -> None:
        self.close()
        if cancel_futures:
            run_to_completion(self._dispatcher.drop_waiting)
        if wait:
            self.join()
        elif not self._joined:
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
        # `abandon` ends the workers of a pool that nobody holds; this says that nobody meant it.
        dispatcher = getattr(self, "_dispatcher", None)
        if dispatcher is not None and dispatcher.state is PoolState.RUNNING and os.getpid() == self._pid:
            warnings.warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __reduce__(self) -> Any:
        raise UnpicklableTaskError("a pool cannot be sent to another process: make one there, or pass its results")

    def __repr__(self) -> str:
        state = self._dispatcher.state.value
        return f"<mpr.Pool {self.recording.application_id!r} {state} processes={self._size}>"

    # --- inside ------------------------------------------------------------------------------------------------

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            self.recording.check_usable()

    def _check_running(self) -> None:
        self._check_process()
        self._dispatcher.check_running()

    def _map_async(
        self,
        function: Callable[..., Any],
        iterable: Iterable[Any],
        mode: int,
        chunksize: int | None,
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> AsyncResult[list[Any]]:
        self._check_running()
        items = list(iterable)
        if chunksize is None:
            # As `multiprocessing.Pool`: four work items per worker even out what tasks differ in.
            chunksize = -(-len(items) // (self._size * 4)) or 1
        if chunksize < 1:
            raise ConfigError(f"chunksize must be at least 1, got {chunksize}")
        task = TaskFunction.of(function)
        starts = range(0, len(items), chunksize)
        # All arguments are pickled before the first is sent: a bad one fails the call, not half of it.
        payloads = [
            task_pickling.dump_arguments(f"{task.name}[{start}]", items[start : start + chunksize]) for start in starts
        ]
        result: MapResult[Any] = MapResult(len(items), callback, error_callback)
        self._dispatcher.announce(task, len(items))
        on_outcome = result.on_outcome
        work_items = (
            WorkItem(
                function=task,
                index=start,
                count=min(chunksize, len(items) - start),
                mode=mode,
                payload=payload,
                on_outcome=on_outcome,
            )
            for start, payload in zip(starts, payloads, strict=True)
        )
        # Together where they are few, so that the threads do not take turns; of many, the first ones run meanwhile.
        while some := list(itertools.islice(work_items, _SUBMITTED_AT_ONCE)):
            self._dispatcher.submit(*some)
        return result

    def _imap(
        self, function: Callable[..., Any], iterable: Iterable[Any], chunksize: int, *, ordered: bool
    ) -> ResultIterator[Any]:
        self._check_running()
        if chunksize < 1:
            raise ConfigError(f"chunksize must be at least 1, got {chunksize}")
        room = threading.Semaphore(_IMAP_AHEAD * self._size * chunksize)
        results: ResultIterator[Any] = ResultIterator(ordered, room.release)
        task = TaskFunction.of(function)
        feeder = ImapFeeder(
            dispatcher=self._dispatcher,
            function=task,
            items=iter(iterable),
            chunksize=chunksize,
            room=room,
            results=weakref.ref(results),
        )
        hint = operator.length_hint(iterable)
        try:
            self._dispatcher.begin_feeding(feeder)
            self._dispatcher.announce(task, hint)
            threading.Thread(target=feeder.run, name="mpr-imap", daemon=True).start()
        except BaseException:
            self._dispatcher.end_feeding(feeder)
            raise
        return results

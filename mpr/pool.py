"""`mpr.Pool`: `multiprocessing.Pool` with an application id in front, and every row in one recording."""

from __future__ import annotations

import functools
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from multiprocessing import util
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from mpr import config, pickling
from mpr.config import StartMethod
from mpr.crew import Crew
from mpr.dispatcher import Dispatcher, Parcel, TaskFunction
from mpr.errors import ConfigError, UnpicklableTaskError
from mpr.feeder import Feeder
from mpr.lifecycle import PoolState
from mpr.messages import CALL, EACH, STAR
from mpr.pickling import Portable
from mpr.processes import Launcher, check_main_is_guarded, check_start_method, make_launcher
from mpr.recording import SharedRecording
from mpr.results import AsyncResult, Callback, MapResult, ResultIterator, SingleResult
from mpr.worker_config import WorkerConfig, worker_main

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

# `close` and `join` give workers so long after their last task, for their own exit handlers.
_FAREWELL_SECS = 10.0
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
        `InitializerError`.
    maxtasksperchild:
        A worker is replaced after so many tasks (parcels of `chunksize` tasks in a map); None: never.
    recording_id, sinks, blueprint:
        As in `mpr.SharedRecording`.
    recording:
        A `SharedRecording` to log into instead of one of its own; the pool does not close it.
    start_method:
        'forkserver' (the default on Linux), 'spawn' or 'fork'.
    preload:
        Whether the fork server imports the Rerun SDK before it forks, which makes workers start in milliseconds.
        `rr.server.Server` and `rr.catalog.CatalogClient` do not work in such workers.

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
        recording: SharedRecording | None = None,
        start_method: StartMethod | None = None,
        preload: bool = True,
    ) -> None:
        check_main_is_guarded()
        self._size = config.check_processes(processes)
        method = check_start_method(start_method)
        limit = config.check_maxtasksperchild(maxtasksperchild)
        if initializer is not None and not callable(initializer):
            raise ConfigError(f"initializer must be callable, got {initializer!r}")
        if recording is not None and (sinks, recording_id, blueprint) != (None, None, None):
            raise TypeError("give either recording, or sinks, recording_id and blueprint: they belong to a new one")
        config.check_application_id(application_id)
        if recording is not None:
            recording.check_usable()
            if recording.application_id != application_id:
                raise ConfigError(f"the recording is of {recording.application_id!r}, not of {application_id!r}")
        shared = Portable((initializer, tuple(initargs)))
        if method != "fork":
            pickling.check_portable("the initializer", shared)
        # A zygote is forked here, before the recording has threads.
        launcher = make_launcher(method, preload, worker_main, shared)
        self._owns_recording = recording is None
        try:
            self.recording = recording or SharedRecording(
                application_id, recording_id=recording_id, sinks=sinks, blueprint=blueprint
            )
        except BaseException:
            launcher.close()
            raise
        self._pid = os.getpid()
        preloaded = method == "forkserver" and preload
        self._crew, self._dispatcher = _hire(
            self.recording, launcher, self._size, limit, preloaded, environ=method == "forkserver"
        )
        self._joined = False
        # Runs when the pool is forgotten, or at the interpreter's exit before `multiprocessing` waits for children.
        self._terminate = util.Finalize(
            self, _terminate, (self._dispatcher, self._crew, self.recording, self._owns_recording), exitpriority=100
        )

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
        self._submit_one(func, tuple(args), dict(kwds or {}), result.deliver)
        return result

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """`fn(*args, **kwargs)` in a worker, as in `concurrent.futures.Executor`."""
        self._check_running()
        future: Future[R] = Future()
        # A task that was sent cannot be called back.
        future.set_running_or_notify_cancel()
        self._submit_one(fn, args, kwargs, functools.partial(_settle, future))
        return future

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

    # --- the end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more tasks; those submitted are worked off."""
        self._check_process()
        self._dispatcher.close()

    def terminate(self) -> None:
        """End the workers now. What has no result raises `PoolTerminatedError`; the recording becomes valid."""
        self._check_process()
        self._joined = True
        self._terminate()

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
        if _is_thread_of_ours():
            raise RuntimeError("a callback cannot wait for its own pool: call join() in another thread")
        self._dispatcher.wait_until_done()
        self._joined = True
        _carry_through(self._end)
        self._dispatcher.raise_unreported()

    def _end(self) -> None:
        """All tasks are done: let the workers go, and close the recording."""
        self._crew.dismiss()
        self._crew.end(_FAREWELL_SECS)
        self._terminate.cancel()
        if self._owns_recording:
            self.recording.finish(failed=self._dispatcher.broke)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As in `concurrent.futures.Executor`: `close`, and with `wait` also `join`.

        `cancel_futures` drops what no worker has yet.
        """
        self.close()
        if cancel_futures:
            self._dispatcher.drop_waiting()
        if wait:
            self.join()

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
        # `_terminate` ends the workers of a pool that nobody holds; this says that nobody meant it.
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

    def _submit_one(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        deliver: Callable[[Any, BaseException | None], None],
    ) -> None:
        task = TaskFunction.of(function)
        payload = pickling.dump_arguments(task.name, (args, kwargs))
        self._dispatcher.submit(Parcel(name=task.name, function=task, mode=CALL, payload=payload, deliver=deliver))

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
            # As `multiprocessing.Pool`: four parcels per worker even out what tasks differ in.
            chunksize = -(-len(items) // (self._size * 4)) or 1
        if chunksize < 1:
            raise ConfigError(f"chunksize must be at least 1, got {chunksize}")
        starts = range(0, len(items), chunksize)
        task = TaskFunction.of(function)
        names = [f"{task.name}[{start}]" for start in starts]
        # All arguments are pickled before the first is sent: a bad one fails the call, not half of it.
        parts = (items[start : start + chunksize] for start in starts)
        payloads = [pickling.dump_arguments(name, part) for name, part in zip(names, parts, strict=True)]
        result: MapResult[Any] = MapResult(len(items), len(payloads), callback, error_callback)
        for start, name, payload in zip(starts, names, payloads, strict=True):
            deliver = functools.partial(result.deliver, start)
            self._dispatcher.submit(Parcel(name=name, function=task, mode=mode, payload=payload, deliver=deliver))
        return result

    def _imap(
        self, function: Callable[..., Any], iterable: Iterable[Any], chunksize: int, *, ordered: bool
    ) -> ResultIterator[Any]:
        self._check_running()
        if chunksize < 1:
            raise ConfigError(f"chunksize must be at least 1, got {chunksize}")
        room = threading.Semaphore(_IMAP_AHEAD * self._size * chunksize)
        results: ResultIterator[Any] = ResultIterator(ordered, room.release)
        feeder = Feeder(
            dispatcher=self._dispatcher,
            function=TaskFunction.of(function),
            items=iter(iterable),
            chunksize=chunksize,
            room=room,
            results=weakref.ref(results),
        )
        self._dispatcher.feeding(1)
        threading.Thread(target=feeder.run, name="mpr-imap", daemon=True).start()
        return results


def _settle(future: Future[Any], value: Any, error: BaseException | None) -> None:
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _hire(
    recording: SharedRecording, launcher: Launcher, size: int, limit: int | None, preloaded: bool, environ: bool
) -> tuple[Crew, Dispatcher]:
    """Start the workers of a pool, and connect them with the recording."""
    joining = recording.process_config(size)
    aggregator = recording.aggregator
    hired: list[Crew] = []
    dispatcher = Dispatcher(
        recording.down,
        limit,
        note_ready=lambda: hired[0].note_ready(),
        replace_worker=lambda: hired[0].replace(),
    )

    def new_config() -> tuple[int, WorkerConfig]:
        number = recording.new_worker()
        aggregator.listen(number, dispatcher)
        return number, WorkerConfig(
            recording=joining,
            worker=number,
            environ=dict(os.environ) if environ else None,
            preloaded=preloaded,
        )

    def look() -> None:
        if aggregator.stalled_secs() > config.SINK_TIMEOUT_SECS:
            dispatcher.broken(aggregator.stuck())

    crew = Crew(launcher, new_config, size, ended=aggregator.worker_died, failed=dispatcher.broken, look=look)
    hired.append(crew)
    crew.start()
    return crew, dispatcher


def _is_thread_of_ours() -> bool:
    return threading.current_thread().name.startswith("mpr-")


def _terminate(dispatcher: Dispatcher, crew: Crew, recording: SharedRecording, owned: bool) -> None:
    def end() -> None:
        dispatcher.terminate()
        crew.terminate()
        if owned:
            recording.finish(failed=True)

    _carry_through(end)


def _carry_through(step: Callable[[], None]) -> None:
    """Do `step` and wait for it; it goes on to its end also where Ctrl-C ends the waiting.

    The interpreter waits for its thread at exit. In a thread of ours (a callback ends its pool, or the last reference
    to it goes in one) nobody waits here: the step has to wait for that thread.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001  # raised below, in the thread that waits
            raised.append(error)

    thread = threading.Thread(target=run, name="end-of-mpr-pool")
    try:
        thread.start()
    except RuntimeError:
        # The interpreter is at its end, and starts no threads any more.
        step()
        return
    if _is_thread_of_ours():
        return
    thread.join()
    if raised:
        raise raised[0]

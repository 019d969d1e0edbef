"""A pool for those who know `concurrent.futures`: its futures, and an `Executor` to hand to whatever wants one."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError
from typing import Any, ParamSpec, Self, TypeVar

from mpr.errors import ConfigError
from mpr.processes import task_pickling
from mpr.scheduler.dispatcher import Dispatcher
from mpr.scheduler.work_item import TaskFunction, WorkItem
from mpr.threads import is_thread_of_ours, run_to_completion
from mpr.transport.messages import STAR

R = TypeVar("R")
P = ParamSpec("P")


class TaskFuture(Future[R]):
    """The future of a task of a pool; `result()` gives what it returned once all its rows are in the recording.

    Like a `ProcessPoolExecutor`'s it counts as running when a worker has it, so that it can begin at once.
    """

    _dispatcher: Dispatcher
    #: None once it has its outcome.
    _work_item: WorkItem | None = None
    _ended = False

    def submit(self, dispatcher: Dispatcher, work_item: WorkItem) -> Self:
        """Have `work_item` run, with this as its future."""
        self._dispatcher, self._work_item = dispatcher, work_item
        work_item.connect(self._deliver, self.set_running_or_notify_cancel)
        dispatcher.submit(work_item)
        return self

    def cancel(self, *, running: bool = False) -> bool:
        """Cancel the task, if no worker has it yet; with `running` also if one has it, whatever it is at.

        The worker of a task that runs is then ended and replaced; what the task had logged stays in the recording.
        Returns whether the task was cancelled. `result()` raises `CancelledError` then.
        """
        work_item = self._work_item
        cancelled = super().cancel()
        if work_item is not None and (cancelled or running):
            answers: list[bool] = []

            def cancel() -> None:
                answers.append(self._dispatcher.cancel(work_item, running=running))

            cancel() if is_thread_of_ours() else run_to_completion(cancel)
            cancelled = answers[0] or cancelled
        return cancelled

    def cancelled(self) -> bool:
        """Whether it was cancelled, also while it ran."""
        return self._ended or super().cancelled()

    def _deliver(self, _first: int, _count: int, values: Sequence[Any] | None, error: BaseException | None) -> None:
        self._finish(values[0] if values is not None else None, error)

    def _finish(self, value: Any, error: BaseException | None) -> None:
        self._work_item = None
        try:
            if error is None:
                self.set_result(value)
            elif isinstance(error, CancelledError) and not self.running():
                # Before any worker had it.
                self._notify_of_cancel()
            else:
                self._ended = isinstance(error, CancelledError)
                self.set_exception(error)
        except InvalidStateError:
            # It was cancelled at the same moment.
            self._notify_of_cancel()

    def _notify_of_cancel(self) -> None:
        super().cancel()
        # Not a second time: those who wait were told already.
        if self._state == "CANCELLED":
            self.set_running_or_notify_cancel()


class _ChunkFuture(TaskFuture[list[tuple[Any, BaseException | None]]]):
    """The future of several calls: what each of them returned, or its error."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length
        self._outcomes: list[tuple[Any, BaseException | None]] = []

    def _deliver(self, _first: int, count: int, values: Sequence[Any] | None, error: BaseException | None) -> None:
        if values is None:
            self._outcomes += [(None, error)] * count
        else:
            self._outcomes += [(value, None) for value in values]
        if len(self._outcomes) == self._length:
            outcomes, self._outcomes = self._outcomes, []
            self._finish(outcomes, error if isinstance(error, CancelledError) else None)


class PoolExecutor(Executor):
    """An `mpr.Pool` as a `concurrent.futures.Executor`. `mpr.Pool.executor` makes it.

    Parameters
    ----------
    dispatcher:
        The tasks of the pool.
    check_running:
        Raises what a new call has to raise.
    shutdown:
        The pool's own.
    """

    def __init__(
        self, dispatcher: Dispatcher, check_running: Callable[[], None], shutdown: Callable[[bool, bool], None]
    ) -> None:
        self._dispatcher = dispatcher
        self._check_running = check_running
        self._shutdown = shutdown

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """`fn(*args, **kwargs)` in a worker. That it cannot be sent to one is the future's error, as with others."""
        self._check_running()
        future = TaskFuture[R]()
        try:
            function = TaskFunction.of(fn)
            payload = task_pickling.dump_arguments(function.name, [(args, kwargs)])
        except Exception as error:  # noqa: BLE001  # whatever a user's `__reduce__` raises
            future.set_exception(error)
            return future
        return future.submit(self._dispatcher, WorkItem(function=function, payload=payload))

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """`map(fn, *iterables)`, by all workers; the results come in order.

        Parameters
        ----------
        timeout:
            Seconds from this call on after which `next` raises `TimeoutError`; None: any.
        chunksize:
            So many calls go to a worker at a time.
        buffersize:
            So many calls are submitted ahead of the one whose result is taken next, and the iterables are read no
            further; None: all are submitted at once, as `Executor.map` has it.
        """
        self._check_running()
        if chunksize < 1:
            raise ConfigError(f"chunksize must be at least 1, got {chunksize}")
        if buffersize is not None and (not isinstance(buffersize, int) or buffersize < 1):
            raise ConfigError(f"buffersize must be None or at least 1, got {buffersize!r}")
        deadline = None if timeout is None else time.monotonic() + timeout
        chunks = self._submit_chunks(TaskFunction.of(fn), zip(*iterables, strict=False), chunksize)
        ahead = None if buffersize is None else max(1, buffersize // chunksize)
        futures = deque(itertools.islice(chunks, ahead))

        def results() -> Iterator[R]:
            try:
                while futures:
                    outcomes = futures[0].result(None if deadline is None else deadline - time.monotonic())
                    del futures[0]
                    futures.extend(itertools.islice(chunks, 1))
                    outcomes.reverse()
                    # Taken out one by one: nothing here holds what the caller has let go of.
                    while outcomes:
                        yield _value_of(outcomes.pop())
            finally:
                for future in futures:
                    future.cancel()

        return results()

    def _submit_chunks(
        self, function: TaskFunction, calls: Iterator[tuple[Any, ...]], chunksize: int
    ) -> Iterator[_ChunkFuture]:
        for start in itertools.count(0, chunksize):
            chunk = list(itertools.islice(calls, chunksize))
            if not chunk:
                return
            payload = task_pickling.dump_arguments(f"{function.name}[{start}]", chunk)
            work_item = WorkItem(function=function, index=start, count=len(chunk), mode=STAR, payload=payload)
            yield _ChunkFuture(len(chunk)).submit(self._dispatcher, work_item)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As the pool's: it takes no more tasks; with `wait`, until all have ended and the recording is closed."""
        self._shutdown(wait, cancel_futures)


def _value_of(outcome: tuple[Any, BaseException | None]) -> Any:
    value, error = outcome
    if error is not None:
        raise error
    return value

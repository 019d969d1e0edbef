"""A pool in the terms of `concurrent.futures`: the futures of its tasks, and an `Executor` for other libraries."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError
from typing import Any, ParamSpec, Self, TypeVar

from mpr.errors import ConfigError
from mpr.pool.options import check_chunksize
from mpr.processes import task_pickling
from mpr.scheduler.dispatcher import Dispatcher
from mpr.scheduler.work_item import TaskFunction, WorkItem
from mpr.threads import is_thread_of_ours, run_to_completion
from mpr.transport.messages import STAR

R = TypeVar("R")
P = ParamSpec("P")


class TaskFuture(Future[R]):
    """The future of a task of a pool. When `result()` returns, all rows of the task are in the recording.

    The state is "running" from the moment at which a worker has the task, as with a `ProcessPoolExecutor`.
    """

    _dispatcher: Dispatcher
    #: None once the task has its outcome.
    _work_item: WorkItem | None = None
    #: Whether the task was cancelled while a worker had it.
    _cancelled_running = False

    def submit(self, dispatcher: Dispatcher, work_item: WorkItem) -> Self:
        """Submit `work_item`, whose outcome becomes that of this future."""
        self._dispatcher, self._work_item = dispatcher, work_item
        work_item.connect(self._deliver, self.set_running_or_notify_cancel)
        dispatcher.submit(work_item)
        return self

    def cancel(self, *, running: bool = False) -> bool:
        """Cancel the task if no worker has it yet; with `running` also if a worker runs it.

        The worker of a task that runs is killed and replaced. The rows that the task has logged stay in the recording.
        Returns whether the task was cancelled; `result()` raises `CancelledError` then.
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
        """Whether the task was cancelled, also while it ran."""
        return self._cancelled_running or super().cancelled()

    def _deliver(self, _first: int, _count: int, values: Sequence[Any] | None, error: BaseException | None) -> None:
        self._finish(values[0] if values is not None else None, error)

    def _finish(self, value: Any, error: BaseException | None) -> None:
        self._work_item = None
        try:
            if error is None:
                self.set_result(value)
            elif isinstance(error, CancelledError) and not self.running():
                # It was cancelled before any worker had it.
                self._notify_of_cancel()
            else:
                self._cancelled_running = isinstance(error, CancelledError)
                self.set_exception(error)
        except InvalidStateError:
            # The future was cancelled at the same moment.
            self._notify_of_cancel()

    def _notify_of_cancel(self) -> None:
        super().cancel()
        # Only once: afterwards the state is CANCELLED_AND_NOTIFIED.
        if self._state == "CANCELLED":
            self.set_running_or_notify_cancel()


class _ChunkFuture(TaskFuture[list[tuple[Any, BaseException | None]]]):
    """The future of several calls: the result of each, or its error."""

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
        The dispatcher of the pool.
    check_running:
        Raises the error of a pool that takes no more calls.
    shutdown:
        Shuts the pool down, with the arguments `wait` and `cancel_futures`.
    """

    def __init__(
        self, dispatcher: Dispatcher, check_running: Callable[[], None], shutdown: Callable[[bool, bool], None]
    ) -> None:
        self._dispatcher = dispatcher
        self._check_running = check_running
        self._shutdown = shutdown

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """Call `fn(*args, **kwargs)` in a worker, and return its future.

        If the call cannot be pickled, the future has that error, as with a `ProcessPoolExecutor`.
        """
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
        """Return an iterator over the results of `map(fn, *iterables)`, in order.

        Parameters
        ----------
        timeout:
            Seconds from this call on after which `next` raises `TimeoutError`; None: no limit.
        chunksize:
            The number of calls that go to a worker at a time.
        buffersize:
            The number of calls that are submitted before their results are asked for; the iterables are read no
            further. None: all calls are submitted at once, as in `Executor.map`.

        Raises
        ------
        ConfigError
            If `chunksize` or `buffersize` cannot be used.
        """
        self._check_running()
        check_chunksize(chunksize)
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
                    # Removed one by one, so that this generator keeps no result that the caller has released.
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
        """Take no more tasks; with `wait`, return when all have ended and the recording is closed.

        This is `mpr.Pool.shutdown`. With `cancel_futures`, the tasks that no worker has yet are cancelled.
        """
        self._shutdown(wait, cancel_futures)


def _value_of(outcome: tuple[Any, BaseException | None]) -> Any:
    value, error = outcome
    if error is not None:
        raise error
    return value

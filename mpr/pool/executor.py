"""Defines `mpr.PoolExecutor`, a pool in the form of a `concurrent.futures.Executor`, and the futures of its tasks.

Covers: submitting calls, futures, cancelling.
Does not cover: the methods of `multiprocessing.Pool` (`calls.py`), and the workers (`scheduler`).
"""

from __future__ import annotations

import functools
import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError
from typing import Any, ParamSpec, Self, TypeVar

from mpr.errors import ConfigError
from mpr.pool.options import check_chunksize
from mpr.pool.skipped import SKIPPED
from mpr.processes import task_pickling
from mpr.rrd.segment import TaskCall
from mpr.scheduler.task_dispatcher import TaskDispatcher
from mpr.scheduler.work_item import DescribeItems, TaskFunction, WorkItem
from mpr.threads import Latch, check_may_wait, is_thread_of_ours, run_to_completion
from mpr.transport.messages import CALL, STAR
from mpr.user_code import is_a

R = TypeVar("R")
P = ParamSpec("P")


class TaskFuture(Future[R]):
    """The future of a task of a pool. When `result()` returns, every durable sink (such as a file) has the task's rows.

    A coroutine can await this future, also in `asyncio.wait_for`. If the wait is cancelled, so is the task, as by
    `cancel(running=True)`.

    `running()` returns True from the time at which a worker or an engine gets the task until the task has its outcome.
    """

    #: The work item of the task. None after the outcome of the task has come.
    _work_item: WorkItem | None = None
    #: Whether the task was cancelled while a worker had it.
    _cancelled_running = False

    def __init__(self, dispatcher: TaskDispatcher) -> None:
        super().__init__()
        self._dispatcher = dispatcher
        # Threads wait for this, and not for the lock of `Future`. A handler of a signal that interrupts the wait may
        # end the pool, and the thread that ends the pool needs that lock.
        self._is_settled = Latch()
        super().add_done_callback(lambda _: self._is_settled.set())

    def result(self, timeout: float | None = None) -> R:
        """Wait up to `timeout` seconds (None: no limit) for the result of the task, and return the result.

        Raises the exception of the task, `TimeoutError` if the task has not ended in this time, or `CancelledError` if
        the task was cancelled.
        """
        self._wait(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait up to `timeout` seconds (None: no limit) for the end of the task. Returns its exception, or None.

        Raises `TimeoutError` if the task has not ended in this time, and `CancelledError` if the task was cancelled
        before a worker had it. If it was cancelled later, returns a `CancelledError`.
        """
        self._wait(timeout)
        return super().exception(0)

    def _wait(self, timeout: float | None) -> None:
        if not self._is_settled.is_set():
            check_may_wait()
        self._is_settled.wait(timeout)

    def add_done_callback(self, fn: Callable[[Future[R]], object]) -> None:
        """Call `fn` with this future when the task has ended, as `Future.add_done_callback` does.

        If `fn` raises an exception, the exception is only logged, and the other callbacks are still called.
        """

        # `Future` itself lets `SystemExit` pass, and errors of the handlers of `logging`.
        def call(future: Future[R]) -> None:
            self._dispatcher.callbacks.run("a future", functools.partial(fn, future))

        super().add_done_callback(call)

    def __await__(self) -> Generator[Any, None, R]:
        # Imported here, because only programs with an event loop need `asyncio`.
        from mpr.pool import awaiting

        def when_done(wake: Callable[[], None]) -> None:
            super(TaskFuture, self).add_done_callback(lambda _: wake())

        yield from awaiting.wait(when_done, functools.partial(self.cancel, running=True)).__await__()
        return self.result()

    def submit(self, work_item: WorkItem) -> Self:
        """Submit `work_item`, and return this future, which gets the outcome. Only mpr itself calls this method."""
        self._work_item = work_item
        work_item.connect(self._deliver, self.set_running_or_notify_cancel)
        self._dispatcher.submit(work_item)
        return self

    def cancel(self, *, running: bool = False) -> bool:
        """Cancel the task if no worker has it yet. If `running` is True, also cancel a task that a worker has.

        If a worker of mpr runs the task, this worker is killed and replaced. An engine ignores `running`: Ray and Dask
        cancel a task that has not ended, and an executor one that has not begun. Rows that the task has logged stay in
        the recording. Returns True if the task was cancelled, and False if not.
        """
        work_item = self._work_item
        cancelled = super().cancel()
        if work_item is not None:
            answers: list[bool] = []

            def cancel() -> None:
                answers.append(self._dispatcher.cancel(work_item, running=running))

            cancel() if is_thread_of_ours() else run_to_completion(cancel)
            cancelled = answers[0] or cancelled
        return cancelled

    def cancelled(self) -> bool:
        """Return True if the task was cancelled, before or while a worker ran it."""
        return self._cancelled_running or super().cancelled()

    def _deliver(self, _first: int, _count: int, values: Sequence[Any] | None, error: BaseException | None) -> None:
        self._finish(values[0] if values is not None else None, error)

    def _finish(self, value: Any, error: BaseException | None) -> None:
        self._work_item = None
        try:
            if error is None:
                self.set_result(value)
            elif is_a(error, CancelledError) and not self.running():
                # The task was cancelled before any worker had it.
                self._notify_of_cancel()
            else:
                self._cancelled_running = is_a(error, CancelledError)
                self.set_exception(error)
        except InvalidStateError:
            # The caller has cancelled the future at the same moment.
            self._notify_of_cancel()

    def _notify_of_cancel(self) -> None:
        super().cancel()
        # This is done only once, because the state is CANCELLED_AND_NOTIFIED afterwards.
        if self._state == "CANCELLED":
            self.set_running_or_notify_cancel()


class _ChunkFuture(TaskFuture[list[tuple[Any, BaseException | None]]]):
    """The future of a work item with `length` calls. `result()` returns a list with a pair for each call.

    The pair is (result, None), or (None, error) if the call has failed.
    """

    def __init__(self, dispatcher: TaskDispatcher, length: int) -> None:
        super().__init__(dispatcher)
        self._length = length
        self._outcomes: list[tuple[Any, BaseException | None]] = []

    def _deliver(self, _first: int, count: int, values: Sequence[Any] | None, error: BaseException | None) -> None:
        if values is None:
            self._outcomes += [(None, error)] * count
        else:
            self._outcomes += [(value, None) for value in values]
        if len(self._outcomes) == self._length:
            outcomes, self._outcomes = self._outcomes, []
            self._finish(outcomes, error if is_a(error, CancelledError) else None)


class PoolExecutor(Executor):
    """A `concurrent.futures.Executor` that runs calls in the workers of an `mpr.Pool`. `mpr.Pool.executor` returns one.

    Parameters
    ----------
    dispatcher:
        The dispatcher of the pool.
    check_running:
        Raises an error if the pool accepts no new calls.
    shutdown:
        Does what `mpr.Pool.shutdown` does. The two arguments are `wait` and `cancel_futures`.
    """

    def __init__(
        self, dispatcher: TaskDispatcher, check_running: Callable[[], None], shutdown: Callable[..., None]
    ) -> None:
        self._dispatcher = dispatcher
        self._check_running = check_running
        self._shutdown = shutdown

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """Call `fn(*args, **kwargs)` in a worker, and return the future of this call.

        If the call cannot be pickled, the method `result` of the future raises the error. If the pool accepts no new
        calls, `submit` raises `PoolClosedError`, or the error that ended the pool.
        """
        self._check_running()
        future = TaskFuture[R](self._dispatcher)
        try:
            by_value = self._dispatcher.by_value
            function = TaskFunction.of(fn, by_value=by_value)
            call = [(args, kwargs)]
            payload = task_pickling.dump_arguments(function.name, call, by_value=by_value)
            described = self._dispatcher.describe(fn, function.name, CALL, call)
        except Exception as error:  # noqa: BLE001  # a user's `__reduce__` may raise anything
            future.set_exception(error)
            return future
        if any(each.is_complete for each in described):
            future.set_result(SKIPPED)  # type: ignore[arg-type]  # the task has no result of its own type
            return future
        return future.submit(WorkItem(function=function, payload=payload, calls=described))

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """Run the calls of `map(fn, *iterables)` in workers. Returns an iterator over the results, in order.

        If a call has failed, `next` raises the error of the call in place of its result. The iteration then ends, and
        the calls that no worker has yet are cancelled.

        Parameters
        ----------
        timeout:
            The time in seconds, from the call of `map`, within which all results must arrive. If a result arrives
            later, `next` raises `TimeoutError`. None: no limit.
        chunksize:
            The number of calls that are sent to a worker at a time.
        buffersize:
            The number of calls that are submitted before the caller takes their results, rounded down to whole chunks
            (at least one). None: all calls are submitted at once.

        Raises
        ------
        ConfigError
            If `chunksize` or `buffersize` cannot be used.
        PoolClosedError
            If the pool accepts no new calls. If an error has ended the pool, that error is raised instead.
        UnpicklableTaskError
            If `fn` cannot be pickled.
        """
        self._check_running()
        check_chunksize(chunksize)
        if buffersize is not None and (not isinstance(buffersize, int) or buffersize < 1):
            raise ConfigError(f"buffersize must be None or at least 1, got {buffersize!r}")
        deadline = None if timeout is None else time.monotonic() + timeout
        function = TaskFunction.of(fn, by_value=self._dispatcher.by_value)
        describe = functools.partial(self._dispatcher.describe, fn, function.name, STAR)
        chunks = self._submit_chunks(function, describe, zip(*iterables, strict=False), chunksize)
        ahead = None if buffersize is None else max(1, buffersize // chunksize)
        futures = deque(itertools.islice(chunks, ahead))

        def results() -> Iterator[R]:
            failure: BaseException | None = None
            try:
                while futures:
                    outcomes = futures[0].result(None if deadline is None else deadline - time.monotonic())
                    del futures[0]
                    try:
                        futures.extend(itertools.islice(chunks, 1))
                    except Exception as error:  # noqa: BLE001  # an error of the user's iterables comes last
                        failure = error
                    outcomes.reverse()
                    # Results are removed one by one, so that the generator keeps none that the caller has released.
                    while outcomes:
                        yield _value_of(outcomes.pop())
                if failure is not None:
                    raise failure
            finally:
                for future in futures:
                    future.cancel()

        return results()

    def _submit_chunks(
        self, function: TaskFunction, describe: DescribeItems, calls: Iterator[tuple[Any, ...]], chunksize: int
    ) -> Iterator[_ChunkFuture]:
        for start in itertools.count(0, chunksize):
            chunk = list(itertools.islice(calls, chunksize))
            if not chunk:
                return
            yield from self._submit_chunk(function, describe, start, chunk)

    def _submit_chunk(
        self, function: TaskFunction, describe: DescribeItems, start: int, chunk: list[tuple[Any, ...]]
    ) -> Iterator[_ChunkFuture]:
        future = _ChunkFuture(self._dispatcher, len(chunk))
        try:
            name, by_value = f"{function.name}[{start}]", self._dispatcher.by_value
            payload = task_pickling.dump_arguments(name, chunk, by_value=by_value)
            described = describe(chunk, start)
        except Exception as error:  # noqa: BLE001  # a user's `__reduce__` may raise anything
            if len(chunk) == 1:
                future.set_result([(None, error)])
                yield future
            else:
                # Submitted one by one, so that only the calls fail that cannot be pickled.
                for index, call in enumerate(chunk, start):
                    yield from self._submit_chunk(function, describe, index, [call])
            return
        if len(chunk) > 1 and any(each.is_complete for each in described):
            # Submitted one by one, because a future is for calls that all run, or for calls that are all skipped.
            for index, (call, each) in enumerate(zip(chunk, described, strict=True), start):
                yield from self._submit_chunk(function, functools.partial(_described_before, each), index, [call])
        elif any(each.is_complete for each in described):
            future.set_result([(SKIPPED, None)])
            yield future
        else:
            work_item = WorkItem(
                function=function, index=start, count=len(chunk), mode=STAR, payload=payload, calls=described
            )
            yield future.submit(work_item)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the pool, as `mpr.Pool.shutdown` does: accept no new calls.

        If `wait` is True, wait until all tasks have ended, and close the recording if the pool has made it. If
        `cancel_futures` is True, cancel the tasks that no worker has yet.
        """
        self._shutdown(wait, cancel_futures=cancel_futures)


def _described_before(call: TaskCall, _items: Sequence[Any], _start: int) -> Sequence[TaskCall]:
    return [call]


def _value_of(outcome: tuple[Any, BaseException | None]) -> Any:
    value, error = outcome
    if error is not None:
        raise error
    return value

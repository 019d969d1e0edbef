"""Defines the objects from which a caller gets results. They have the methods of the objects of `multiprocessing.pool`.

Covers: waiting for results, callbacks, and the order of results.
Does not cover: futures (`executor.py`), and unpickling of results (`scheduler/outcomes.py`).

A thread that waits for a result holds no lock that the threads of the pool need. The reason is that a signal handler
may interrupt the waiting thread and end the pool.
"""

from __future__ import annotations

import functools
import multiprocessing
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Generic, TypeVar

from mpr.scheduler.work_item import OnOutcome
from mpr.threads import Latch, SimpleQueue, check_may_wait

R = TypeVar("R")

Callback = Callable[[Any], object]
#: Runs a step that calls a callback of the caller.
CallBack = Callable[[Callable[[], None]], None]
#: Cancels the tasks whose outcomes a function gets. The second argument says if also those that a worker has.
Cancel = Callable[[OnOutcome, bool], bool]


def _call_here(step: Callable[[], None]) -> None:
    step()


def _cancel_none(_on_outcome: OnOutcome, _running: bool) -> bool:
    return False


class AsyncResult(Generic[R]):
    """The result of `apply_async`, `map_async` or `starmap_async`, for which the caller can wait.

    When the call has ended, `callback` is called with the result, or `error_callback` with the exception.
    `call_back(step)` runs `step`, a function that calls `callback` or `error_callback`.

    A coroutine can await this object, also in `asyncio.wait_for`. If the wait is cancelled, so are the tasks, as by
    `cancel(running=True)`.
    """

    def __init__(
        self,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        call_back: CallBack = _call_here,
        cancel: Cancel = _cancel_none,
    ) -> None:
        self._event = Latch()
        self._cancel = cancel
        # Called when the call has ended, perhaps twice.
        self._listeners: list[Callable[[], None]] = []
        self._call_back = call_back
        self._callback = callback
        self._error_callback = error_callback
        self._value: Any = None
        self._error: BaseException | None = None

    def ready(self) -> bool:
        """Return True if the call has ended, with or without an exception, and its callback, if any, has ended."""
        return self._event.is_set()

    def successful(self) -> bool:
        """Return True if the call has ended without an exception. Raises `ValueError` if `ready` returns False."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait up to `timeout` seconds (None: no limit) until `ready` returns True."""
        self._wait(timeout)

    def get(self, timeout: float | None = None) -> R:
        """Wait for the result, and return it. Every durable sink (such as a file) then has all rows of the tasks.

        Raises the exception of the task, or an error of mpr, such as `WorkerDiedError` or `SinkError`. Raises
        `multiprocessing.TimeoutError` if the call has not ended after `timeout` seconds (None: no limit).
        """
        if not self._wait(timeout):
            raise multiprocessing.TimeoutError
        if self._error is not None:
            raise self._error
        result: R = self._value
        return result

    def cancel(self, *, running: bool = False) -> bool:
        """Cancel the tasks that no worker has yet. If `running` is True, also cancel tasks that a worker has.

        A worker of mpr that runs such a task is killed and replaced. With an engine, everything is as in
        `TaskFuture.cancel`. A cancelled task has failed with a `concurrent.futures.CancelledError`. Returns True if a
        task was cancelled.
        """
        return self._cancel(self.on_outcome, running)

    def __await__(self) -> Generator[Any, None, R]:
        # Imported here, because only programs with an event loop need `asyncio`.
        from mpr.pool import awaiting

        yield from awaiting.wait(self._when_ready, functools.partial(self.cancel, running=True)).__await__()
        return self.get()

    def on_outcome(self, first: int, count: int, values: Sequence[Any] | None, error: BaseException | None) -> None:
        """Keep the outcomes of tasks. The arguments are those of `OnOutcome` in `scheduler/work_item.py`."""
        raise NotImplementedError

    def _when_ready(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)
        if self._event.is_set():
            listener()

    def _set_ready(self) -> None:
        self._event.set()
        for listener in self._listeners:
            listener()

    def _wait(self, timeout: float | None) -> bool:
        if not self._event.is_set():
            check_may_wait()
        return self._event.wait(timeout)

    def _settle(self, value: Any, error: BaseException | None) -> None:
        self._value, self._error = value, error
        callback = self._callback if error is None else self._error_callback
        if callback is None:
            self._set_ready()
            return

        def call() -> None:
            try:
                callback(value if error is None else error)
            finally:
                self._set_ready()

        self._call_back(call)


class SingleResult(AsyncResult[R]):
    """The result of `apply_async`, whose call is one task."""

    def on_outcome(self, first: int, count: int, values: Sequence[Any] | None, error: BaseException | None) -> None:
        """Keep the outcome of the task: the only value in `values`, or `error` if `values` is None.

        Then have the callback run. When the callback has ended, wake the threads that wait for the result.
        """
        self._settle(None if values is None else values[0], error)


class MapResult(AsyncResult[list[R]]):
    """The results of one map of `length` tasks.

    If tasks fail, `get` raises the error that arrived first, but only when all tasks have ended. If `return_exceptions`
    is True, it returns the errors in place of the results.
    """

    def __init__(
        self,
        length: int,
        callback: Callback | None,
        error_callback: Callback | None,
        call_back: CallBack = _call_here,
        cancel: Cancel = _cancel_none,
        *,
        return_exceptions: bool = False,
    ) -> None:
        super().__init__(callback, error_callback, call_back, cancel)
        self._return_exceptions = return_exceptions
        self._values: list[Any] = [None] * length
        self._left = length
        self._lock = threading.Lock()
        self._first_error: BaseException | None = None
        if not length:
            self._settle([], None)

    def on_outcome(self, first: int, count: int, values: Sequence[Any] | None, error: BaseException | None) -> None:
        """Keep the outcomes of `count` tasks, from task `first` on.

        `values` are the results. If `values` is None, all these tasks have failed with `error`. After the last task,
        have the callback run. When the callback has ended, wake the threads that wait for the result.
        """
        with self._lock:
            self._left -= count
            if values is not None:
                self._values[first : first + count] = values
            elif self._return_exceptions:
                self._values[first : first + count] = [error] * count
            elif self._first_error is None:
                self._first_error = error
            if self._left:
                return
        self._settle(None if self._first_error is not None else self._values, self._first_error)


# The outcome of one item: its result, or an error.
_Item = tuple[Any, BaseException | None]


class ResultIterator(Generic[R], Iterator[R]):
    """The iterator over the results of `imap` and `imap_unordered`. The method `next` accepts a timeout in seconds.

    If `ordered` is True, the results have the order of the items, else the order in which the tasks end. `taken` is
    called for each result that the caller takes.
    """

    def __init__(self, ordered: bool, taken: Callable[[], object]) -> None:
        self._ordered = ordered
        self._taken = taken
        #: The outcomes that the caller can take; None after the last one.
        self._ready: SimpleQueue[_Item | None] = SimpleQueue()
        # Guards what follows. Only threads of the pool take this lock.
        self._lock = threading.Lock()
        self._early: dict[int, list[_Item]] = {}
        self._next = 0
        self._put_count = 0
        self._length: int | None = None
        # The error that comes after all outcomes; None if there is none.
        self._last_error: BaseException | None = None

    def __iter__(self) -> ResultIterator[R]:
        return self

    def next(self, timeout: float | None = None) -> R:
        """Return the next result, or raise the exception of its task. Raises `StopIteration` after the last result.

        If `finish` got an error, this error is raised before `StopIteration`. Raises `multiprocessing.TimeoutError` if
        no result comes within `timeout` seconds (None: no limit).
        """
        if self._ready.empty():
            check_may_wait()
        try:
            item = self._ready.get(timeout=None if timeout is None else max(timeout, 0.0))
        except queue.Empty:
            raise multiprocessing.TimeoutError from None
        if item is None:
            # Put back, because another thread may wait for the next result, too.
            self._ready.put(None)
            raise StopIteration
        value, error = item
        self._taken()
        if error is not None:
            raise error
        result: R = value
        return result

    def __next__(self) -> R:
        return self.next()

    def on_outcome(self, first: int, count: int, values: Sequence[Any] | None, error: BaseException | None) -> None:
        """Make the outcomes of `count` items, from item `first` on, available to the caller.

        `values` are the results. If `values` is None, all these items have failed with `error`.
        """
        items: list[_Item] = [(None, error)] * count if values is None else [(value, None) for value in values]
        with self._lock:
            self._add(first, items)

    def finish(self, length: int, error: BaseException | None = None) -> None:
        """End the iteration after `length` items. If `error` is not None, the iteration raises it after all results.

        This method may be called before all outcomes have arrived.
        """
        with self._lock:
            self._length, self._last_error = length, error
            self._add(length, [])

    def _add(self, first: int, items: list[_Item]) -> None:
        if self._ordered:
            self._early[first] = items
            items = []
            while (found := self._early.pop(self._next, None)) is not None:
                items += found
                self._next += len(found)
        for item in items:
            self._ready.put(item)
        self._put_count += len(items)
        if self._put_count == self._length:
            if self._last_error is not None:
                self._ready.put((None, self._last_error))
            self._ready.put(None)

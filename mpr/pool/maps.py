"""Defines the calls of a pool that run one function with many items.

Covers: `map`, `starmap` and `imap` with their variants, and their signatures.
Does not cover: calls of one task, and the end of a pool (`pool.py`), work items (`calls.py`).
"""

from __future__ import annotations

import multiprocessing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar, overload

from mpr.pool.calls import PoolCalls
from mpr.pool.results import AsyncResult, Callback, ResultIterator
from mpr.transport.messages import EACH, STAR

T = TypeVar("T")
R = TypeVar("R")


class PoolMaps(ABC):
    """Has the calls of `mpr.Pool` that run one function with many items."""

    @property
    @abstractmethod
    def _calls(self) -> PoolCalls:
        """The object that submits calls.

        If the pool accepts no new calls, raises `PoolClosedError`, or the error that has ended the pool.
        """

    @overload
    def map(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[R]: ...

    @overload
    def map(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        return_exceptions: bool,
    ) -> list[R | BaseException]: ...

    def map(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> Any:
        """Return `[func(item) for item in iterable]`, computed by workers that get `chunksize` items at a time.

        If `chunksize` is None, the items are divided into about four parts per worker. If tasks fail, the error that
        arrived first is raised when all tasks have ended. With `return_exceptions=True`, the list has the error of a
        failed task in place of its result. If a `DirectorySink(resume=True)` skips a task, its result is `mpr.SKIPPED`.

        If tasks have no result after `timeout` seconds (None: no limit), the tasks that no worker has yet are
        cancelled, and `multiprocessing.TimeoutError` is raised. The workers still run the tasks that they have.

        If `func` or an item cannot be pickled, `UnpicklableTaskError` is raised before any task runs. Raises
        `PoolClosedError` if the pool accepts no new calls, and `ConfigError` if `chunksize` is below 1, or if a
        `DirectorySink` cannot take the tasks.
        """
        return _result(self.map_async(func, iterable, chunksize, return_exceptions=return_exceptions), timeout)

    @overload
    def map_async(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        *,
        return_exceptions: Literal[False] = False,
    ) -> AsyncResult[list[R]]: ...

    @overload
    def map_async(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        *,
        return_exceptions: bool,
    ) -> AsyncResult[list[R | BaseException]]: ...

    def map_async(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        *,
        return_exceptions: bool = False,
    ) -> Any:
        """Submit the tasks of `map`, and return an `AsyncResult` at once. Its method `get` returns the list later.

        When all tasks have ended, `callback` is called with the list, or `error_callback` with the error that arrived
        first. The errors that `map` raises before any task runs are raised by `map_async` itself.
        """
        return self._calls.map(
            func, iterable, EACH, chunksize, callback, error_callback, return_exceptions=return_exceptions
        )

    @overload
    def starmap(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[R]: ...

    @overload
    def starmap(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        return_exceptions: bool,
    ) -> list[R | BaseException]: ...

    def starmap(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> Any:
        """Return `[func(*item) for item in iterable]`. If an item is a dict, the call is `func(**item)`.

        Everything else is as in `map`.
        """
        return _result(self.starmap_async(func, iterable, chunksize, return_exceptions=return_exceptions), timeout)

    @overload
    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        *,
        return_exceptions: Literal[False] = False,
    ) -> AsyncResult[list[R]]: ...

    @overload
    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        *,
        return_exceptions: bool,
    ) -> AsyncResult[list[R | BaseException]]: ...

    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        *,
        return_exceptions: bool = False,
    ) -> Any:
        """Submit the tasks of `starmap`, and return an `AsyncResult` at once. Everything else is as in `map_async`."""
        return self._calls.map(
            func, iterable, STAR, chunksize, callback, error_callback, return_exceptions=return_exceptions
        )

    def imap(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int = 1) -> ResultIterator[R]:
        """Return an iterator over the results of `func(item)` for each item of `iterable`, in the order of the items.

        A thread reads `iterable` only as fast as the caller takes results. A worker gets `chunksize` items at a time.
        `next` raises the error of a failed task. If `iterable` raises, `next` raises this error after the results of
        the items before.

        `imap` itself raises `PoolClosedError` if the pool accepts no new calls, `UnpicklableTaskError` if `func` cannot
        be pickled, and `ConfigError` if `chunksize` is below 1.
        """
        return self._calls.imap(func, iterable, chunksize, ordered=True)

    def imap_unordered(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int = 1) -> ResultIterator[R]:
        """Return an iterator as `imap` does, but with the results in the order in which the tasks end."""
        return self._calls.imap(func, iterable, chunksize, ordered=False)


def _result(result: AsyncResult[R], timeout: float | None) -> R:
    """Return the result of a map.

    If the map has not ended within `timeout` seconds, cancels the tasks that no worker has yet, and raises
    `multiprocessing.TimeoutError`.
    """
    result.wait(timeout)
    if not result.ready():
        result.cancel()
        raise multiprocessing.TimeoutError(
            f"the map has not ended within {timeout:g} s. Its tasks that no worker had yet were cancelled"
        )
    return result.get()

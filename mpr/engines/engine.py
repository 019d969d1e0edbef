"""Defines the interface of an engine, which runs the tasks of a pool in place of mpr's own workers.

Covers: the class `Engine`, and the future of a chunk for engines without futures of `concurrent.futures`.
Does not cover: the engines themselves, each of which has a module of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from mpr.engines.chunk import Answer, Chunk
from mpr.errors import WorkerDiedError
from mpr.user_code import describe


class Engine(ABC):
    """An engine that runs chunks in workers of its own. Any thread may call the methods.

    Attributes
    ----------
    name:
        The name of the engine in messages.
    size:
        About the number of chunks that the engine can run at a time.
    runs_again:
        True if the engine may run a chunk again, for example because a worker has died.
    """

    name: str
    size: int
    runs_again: bool = True

    @abstractmethod
    def submit(self, chunk: Chunk) -> Future[Answer]:
        """Have the engine run `run_chunk(chunk)`, and return the future of its answer.

        If the engine takes no more work, raises the engine's error. With an executor, `Future.cancel` returns True if
        the chunk has not begun. With Ray and Dask, `Future.cancel` returns True if the chunk has not ended, and asks
        the engine to cancel the chunk. If the chunk runs already, Ray may interrupt it, and Dask runs it to its end.
        """

    @abstractmethod
    def is_death(self, error: BaseException) -> bool:
        """Return True if `error` of the engine means that the worker of a chunk has died."""

    @abstractmethod
    def close(self) -> None:
        """End the engine if this object has started it."""

    def failure(self, error: BaseException, task: str) -> BaseException:
        """Return the error for the tasks of a chunk, if the engine has raised `error` instead of returning an answer.

        This is `error` itself, or a `WorkerDiedError` with `error` as its cause if the worker has died. `task` is the
        name of the first task.
        """
        if not self.is_death(error):
            return error
        failure = WorkerDiedError(task, 0, 0, None, engine=(self.name, describe(error)))
        failure.__cause__ = error
        return failure


class ChunkFuture(Future[Answer]):
    """A future of `concurrent.futures` for a chunk, for engines whose own futures are of another kind: Ray and Dask.

    Parameters
    ----------
    cancel:
        Asks the engine to cancel the chunk. Called if this future is cancelled before `settle` was called.
    """

    def __init__(self, cancel: Callable[[], object]) -> None:
        super().__init__()
        self._cancel_chunk = cancel

    def cancel(self) -> bool:
        if super().cancel():
            self._cancel_chunk()
        return self.cancelled()

    def settle(self, result: Callable[[], Any]) -> None:
        """Set the result or the exception of this future to what `result()` returns or raises.

        Does nothing if the future was cancelled.
        """
        if not self.set_running_or_notify_cancel():
            return
        try:
            self.set_result(result())
        except BaseException as error:  # noqa: BLE001  # the engine's error is the outcome
            self.set_exception(error)

"""Defines the interface by which a pool hears of its workers and their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mpr.errors import SinkError
from mpr.rrd.segment import TaskInfo
from mpr.transport.messages import Hello, InitializerFailed, Result, Skipped, TaskBegan
from mpr.transport.status_page import StatusPageReader


@dataclass(frozen=True, slots=True)
class SurvivingRows:
    """Counts the rows of a dead worker that have come to the parent.

    Attributes
    ----------
    rows:
        How many rows came after the last result of the worker; None if they cannot be counted.
    silent_secs:
        The seconds between the last rows and the end of the worker; None if no rows ever came.
    """

    rows: int | None = None
    silent_secs: float | None = None


class Listener(Protocol):
    """Hears of workers and results. The aggregator's thread makes all calls. No method may wait.

    No method may raise anything but `MessageError`, for a message that its worker should not have sent.
    """

    def worker_ready(self, hello: Hello, status_page: StatusPageReader | None, init_micros: int) -> None:
        """Note that a worker takes tasks from now on. Its initializer took `init_micros` microseconds."""

    def skipped(self, hello: Hello, skipped: Skipped) -> None:
        """Put a work item into the queue again, because the worker did not run it.

        Does nothing if the pool has taken this work item back before.
        """

    def unfit(self, hello: Hello) -> None:
        """Replace a worker, because the rows that the worker logs from now on cannot be used."""

    def task_info(self, hello: Hello, began: TaskBegan) -> TaskInfo | None:
        """Describe the task that a worker has begun. Returns None if the pool was terminated."""

    def result(self, hello: Hello, result: Result, failure: BaseException | None) -> None:
        """Give the tasks of `result` their outcomes. The sinks have all rows of these tasks if there is no `failure`.

        A `failure` says that rows are lost. It becomes the outcome of all these tasks.
        """

    def sink_failed(self, error: SinkError) -> None:
        """Report `error` to the callers, because a sink has failed and rows are lost."""

    def initializer_failed(self, hello: Hello, failed: InitializerFailed) -> None:
        """End the pool, because the initializer has raised in a worker."""

    def worker_ended(
        self, worker: int, exitcode: int | None, said_goodbye: bool, kept: Callable[[], SurvivingRows]
    ) -> list[str]:
        """Decide what happens to the tasks of a worker that has ended. All messages of the worker were read before.

        `kept` returns which rows of the worker have survived. Returns sentences that the recording should note.
        """

    def recording_ended(self) -> None:
        """Forget all workers, also those that still live, because the recording takes nothing more."""

    def broken(self, error: BaseException) -> None:
        """End the pool with `error`, because the recording cannot go on."""

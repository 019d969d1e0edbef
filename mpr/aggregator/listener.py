"""Defines the interface by which a pool hears of its workers and their results.

`scheduler/worker_events.py` has the only implementation.
"""

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
    """Says how many rows of a dead worker have come to the parent, and how long ago.

    Attributes
    ----------
    rows:
        How many rows came after the last result of the worker; None if they cannot be counted.
    silent_secs:
        The seconds from the arrival of the last rows until the parent dealt with the end of the worker; None if no
        rows ever came.
    """

    rows: int | None = None
    silent_secs: float | None = None


class Listener(Protocol):
    """Hears of workers and results. The aggregator's thread makes all calls. No method may wait.

    The only error that a method may raise is `MessageError`, for a message that the worker should not have sent. Each
    `hello` is the first message of the worker that the call is about.
    """

    def worker_ready(self, hello: Hello, status_page: StatusPageReader | None, init_micros: int) -> None:
        """Note that a worker takes tasks from now on. Its initializer took `init_micros` microseconds.

        `status_page` says which task the worker runs; None if the parent cannot read the memory of the worker.
        """

    def skipped(self, hello: Hello, skipped: Skipped) -> None:
        """Put a work item (one or several tasks) into the queue again, because the worker did not run it.

        Does nothing if the pool has taken this work item back before.
        """

    def unfit(self, hello: Hello) -> None:
        """Replace a worker by a new process, because the rows that the worker logs from now on cannot be used."""

    def task_info(self, hello: Hello, began: TaskBegan) -> TaskInfo | None:
        """Describe the task that a worker has begun. Returns None if the pool was terminated."""

    def result(self, hello: Hello, result: Result, failure: BaseException | None) -> None:
        """Give the tasks of `result` their outcomes.

        If `failure` is None, the sinks have all rows of these tasks. Otherwise rows are lost, and `failure` becomes the
        outcome of all these tasks.
        """

    def sink_failed(self, error: SinkError) -> None:
        """Report `error` to the callers of all tasks that have no result yet, because a sink has failed.

        The tasks go on, for the sinks that are left.
        """

    def initializer_failed(self, hello: Hello, failed: InitializerFailed) -> None:
        """End the pool, because the initializer has raised an exception in a worker."""

    def worker_ended(
        self, worker: int, exitcode: int | None, said_goodbye: bool, kept: Callable[[], SurvivingRows]
    ) -> list[str]:
        """Decide what happens to the tasks of a worker that has ended. All messages of the worker were read before.

        `exitcode` is None if it is unknown. `said_goodbye` says whether the worker has sent its last message. `kept`
        counts the rows of the worker that have survived. Returns sentences, which are then written into the recording.
        """

    def recording_ended(self) -> None:
        """Forget all workers, also those that still live, because the recording takes nothing more.

        Ends the pool, too, unless the pool has ended already.
        """

    def broken(self, error: BaseException) -> None:
        """End the pool, because the recording cannot go on. All tasks without a result get `error`."""

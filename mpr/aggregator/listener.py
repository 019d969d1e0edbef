"""Defines the interface through which the aggregator reports workers and their results to a pool.

`scheduler/worker_events.py` has the only implementation. A *work item* is one or several tasks that a worker gets
together.
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
    """Says how many rows of a dead worker have reached the parent since its last result, and when rows arrived last.

    Attributes
    ----------
    rows:
        How many rows of the user have arrived since the last result of the worker; None if they cannot be counted.
    silent_secs:
        The seconds from the arrival of the last rows until the parent processed the end of the worker; None if no rows
        have arrived.
    """

    rows: int | None = None
    silent_secs: float | None = None


class Listener(Protocol):
    """Receives reports about the workers of a pool. The aggregator's thread makes all calls. No method may wait.

    A method raises `MessageError` if the worker should not have sent the message of the call. mpr then cuts off the
    worker. Other errors are faults of the listener. Most of them end the aggregator's thread, and so all pools of the
    recording. Each `hello` is the first message of the worker that the call is about.
    """

    def worker_ready(self, hello: Hello, status_page: StatusPageReader | None, init_micros: int) -> None:
        """Note that the worker of `hello` can run tasks from now on. Its initializer took `init_micros` microseconds.

        `status_page` is None if the parent cannot read the status page of the worker.
        """

    def skipped(self, hello: Hello, skipped: Skipped) -> None:
        """Put the work item that `skipped` names into the queue again, because the worker did not run it.

        Does nothing if the worker does not have the item any more.
        """

    def unfit(self, hello: Hello) -> None:
        """Replace the worker of `hello` by a new process, because rows of this worker are lost or cannot be used."""

    def task_info(self, hello: Hello, began: TaskBegan) -> TaskInfo | None:
        """Return a description of the task that a worker has begun, for sinks that keep the rows of each task apart.

        `began` is the message of the worker about this task. Returns None if the pool no longer knows the task.
        """

    def result(self, hello: Hello, result: Result, failure: BaseException | None) -> None:
        """Give the tasks of `result` their outcomes.

        If `failure` is None, the sinks have all rows of these tasks. If rows are lost, `failure` is the outcome of all
        these tasks.
        """

    def sink_failed(self, error: SinkError) -> None:
        """Give `error` to the callers of all tasks that have no result yet, because a sink has failed.

        The tasks still run, because other sinks may be left.
        """

    def initializer_failed(self, hello: Hello, failed: InitializerFailed) -> None:
        """End the pool, because the initializer, or its unpickling, has raised an exception in a worker.

        `failed` has this exception.
        """

    def worker_ended(
        self, worker: int, exitcode: int | None, said_goodbye: bool, kept: Callable[[], SurvivingRows]
    ) -> list[str]:
        """Decide what happens to the tasks of worker number `worker`, which has ended. Its messages were read before.

        `exitcode` is None if it is unknown. `said_goodbye` is True if the worker has sent `Goodbye`. `kept` is a
        function that returns the `SurvivingRows` of the worker. Returns sentences, which are then written into the
        recording.
        """

    def recording_ended(self) -> None:
        """Forget all workers, and end the pool if it has not ended already, because the recording has ended."""

    def broken(self, error: BaseException) -> None:
        """End the pool, because the aggregator has failed. All tasks without a result get `error`."""

"""The interface by which a pool hears of its workers and their results."""

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
    """The rows of a worker that has ended.

    Attributes
    ----------
    rows:
        How many rows came since its last result; None if they cannot be counted.
    silent_secs:
        For how long no rows had come when it ended; None if none ever came.
    """

    rows: int | None = None
    silent_secs: float | None = None


class Listener(Protocol):
    """Hears of workers and results. All calls come from the aggregator's thread, and none may wait or raise."""

    def worker_ready(self, hello: Hello, status_page: StatusPageReader | None, init_micros: int) -> None:
        """A worker takes tasks. Its initializer took `init_micros`."""

    def skipped(self, hello: Hello, skipped: Skipped) -> None:
        """A worker has passed over a work item that was taken back from it."""

    def unfit(self, hello: Hello) -> None:
        """The rows that a worker logs from now on cannot be used."""

    def task_info(self, hello: Hello, began: TaskBegan) -> TaskInfo | None:
        """Describe the task that a worker has begun; None if it is not known any more."""

    def result(self, hello: Hello, result: Result, failure: BaseException | None) -> None:
        """The sinks have all rows of `result`; with a `failure` some of them are lost."""

    def sink_failed(self, error: SinkError) -> None:
        """A sink has failed: rows are lost."""

    def initializer_failed(self, hello: Hello, failed: InitializerFailed) -> None:
        """The initializer has raised in a worker."""

    def worker_ended(
        self, worker: int, exitcode: int | None, said_goodbye: bool, kept: Callable[[], SurvivingRows]
    ) -> list[str]:
        """A worker has ended, and everything that it sent was read. Returns what the recording should say of it."""

    def recording_ended(self) -> None:
        """Forget all workers, because the recording takes nothing more, also from those that still live."""

    def broken(self, error: BaseException) -> None:
        """The recording cannot go on, because of `error`."""

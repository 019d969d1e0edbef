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
    """What there is of a worker that has ended.

    Attributes
    ----------
    rows:
        How many rows came since its last result; None where nobody can tell.
    silent_secs:
        For how long none had come when it ended; None where none ever came.
    """

    rows: int | None = None
    silent_secs: float | None = None


class Listener(Protocol):
    """Who hears of workers and results. All calls come from the aggregator's thread, and none may wait."""

    def worker_ready(self, hello: Hello, status_page: StatusPageReader | None, init_micros: int) -> None: ...

    def skipped(self, hello: Hello, skipped: Skipped) -> None: ...

    def unfit(self, hello: Hello) -> None:
        """Nothing that the worker logs can be used any more."""

    def task_info(self, hello: Hello, began: TaskBegan) -> TaskInfo | None: ...

    def result(self, hello: Hello, result: Result, failure: BaseException | None) -> None: ...

    def sink_failed(self, error: SinkError) -> None: ...

    def initializer_failed(self, hello: Hello, failed: InitializerFailed) -> None: ...

    def worker_ended(
        self, worker: int, exitcode: int | None, said_goodbye: bool, kept: Callable[[], SurvivingRows]
    ) -> list[str]:
        """Returns what the recording should say of it."""

    def recording_ended(self) -> None:
        """Nobody takes anything of the workers any more, also of those that have said goodbye and still live."""

    def broken(self, error: BaseException) -> None: ...

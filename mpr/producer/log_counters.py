"""Counts the logging calls of a process, their rows and their bytes.

Each logging call runs this code, so it uses few numbers, which lie together in memory.

Covers: the counters, and when a logging call has to wait for credit.
Does not cover: the wait (`outbox_writer.py`), the count by which the parent notices lost rows (`row_account.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpr.limits import CHECK_EVERY_BYTES
from mpr.transport.status_page import ROWS

if TYPE_CHECKING:
    from mpr.producer.task_recordings import TaskRecordings


class LogCounters:
    """Counts the logging calls of one process, and their rows and bytes.

    Any thread may call the methods, because CPython with a GIL does not switch threads within the `+=` of a number.

    Parameters
    ----------
    counters:
        The numbers in the status page, which the parent reads.
    wait_for_credit:
        A function that waits for credit. `enter` calls it when `unchecked` has reached `CHECK_EVERY_BYTES`.
    task_recordings:
        Counts the rows of the recordings that tasks make themselves.

    Attributes
    ----------
    counters:
        The numbers in the status page. `counters[ROWS]` is the number of rows.
    sdk_used:
        True if the SDK may have been used since the last task began. If so, the SDK's times and its current recording
        are reset before the next task.
    entered:
        The number of calls of `enter` and `count_call`.
    without_rows:
        The number of calls of `count_call`.
    unchecked:
        The number of bytes that were logged since the last call of `take_unchecked`.
    sees_all:
        True if `enter` is called for every logging call of the process. If it is False, there may be new rows even if
        `entered` has not changed.
    """

    __slots__ = (
        "_task_recordings",
        "_wait_for_credit",
        "counters",
        "entered",
        "sdk_used",
        "sees_all",
        "unchecked",
        "without_rows",
    )

    def __init__(
        self, counters: memoryview, wait_for_credit: Callable[[], None], task_recordings: TaskRecordings
    ) -> None:
        self.counters: memoryview = counters
        self._wait_for_credit = wait_for_credit
        self._task_recordings = task_recordings
        self.sdk_used: bool = True
        self.sees_all: bool = False
        self.entered: int = 0
        self.without_rows: int = 0
        self.unchecked: int = 0

    @property
    def logging_calls(self) -> int:
        """The number of logging calls that `enter` has counted until now, to any recording."""
        return self.entered - self.without_rows

    def enter(self, size: int, rows: int, recording: Any) -> None:
        """Count a call that is about to hand `size` bytes and `rows` rows to the SDK. May wait for credit.

        `rows` is 0 if the number is not known. `recording` is the SDK's handle of the recording; None for the current
        one. Raises `DeliveryError` if 1 MiB (`CHECK_EVERY_BYTES`) was logged since the last call of `take_unchecked`,
        and this process is `spent`.
        """
        self.sdk_used = True
        self.entered += 1
        self.counters[ROWS] += rows
        self.unchecked += size
        if self.unchecked >= CHECK_EVERY_BYTES:
            self._wait_for_credit()
        if self._task_recordings.known:
            self._task_recordings.entered(recording, rows)

    def count_call(self) -> None:
        """Count a call that logs nothing itself, but makes a flush necessary."""
        self.entered += 1
        self.without_rows += 1

    def take_unchecked(self) -> int:
        """Return the number of bytes that were logged since the last call of this method."""
        unchecked, self.unchecked = self.unchecked, 0
        return unchecked

    def set_sees_all(self, sees_all: bool) -> None:
        self.sees_all = sees_all

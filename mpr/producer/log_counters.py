"""Counts the logging calls of a process, their rows and their bytes.

Each logging call runs this code, so the code must be fast. A logging call spends about 20 us in the SDK. After that,
the processor's caches hold no data of mpr. Code that takes 0.1 us in a loop of its own takes 0.5 us then (measured). So
a call uses only the few numbers of `LogCounters`, which lie together in memory.

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

    Any thread may call the methods, because CPython does not switch threads within a `+=`.

    Parameters
    ----------
    counters:
        The numbers in the status page, which the parent reads.
    wait_for_credit:
        Waits until the outbox has room. `enter` calls this function each time `CHECK_EVERY_BYTES` more bytes were
        logged.
    task_recordings:
        Counts the rows of the recordings that tasks make themselves.

    Attributes
    ----------
    counters:
        The numbers in the status page. One of them is the number of rows.
    sdk_used:
        True if the SDK was used since the last task began. If so, the SDK's times and its current recording have to be
        reset before the next task.
    entered:
        The number of logging calls, plus the number of other calls that make a flush necessary.
    without_rows:
        The number of these other calls. They log no rows.
    unchecked:
        The number of bytes that were logged since the last call of `take_unchecked`.
    sees_all:
        True if `enter` is called for every logging call of the process. If it is False, a row may have been logged
        without being counted, so the producer flushes the SDK even if `entered` has not changed.
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
        """Set the counts of this object to 0. `sees_all` is False until `set_sees_all` is called."""
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
        """The number of logging calls of this process until now, to any recording."""
        return self.entered - self.without_rows

    def enter(self, size: int, rows: int, recording: Any) -> None:
        """Count a call that is about to hand `size` bytes and `rows` rows to the SDK. May wait for credit.

        `rows` is 0 if the number is not known. `recording` is the SDK's handle of the recording; None for the current
        one. The thread that logs calls this method. Raises `DeliveryError` if the process can send no more rows to the
        recording.
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
        """Set the attribute `sees_all`. It is True if `enter` is called for every logging call from now on."""
        self.sees_all = sees_all

"""A worker's status page: a page of counters that the worker and its parent both map, and that outlives the worker.

Covers: the task that the worker runs, the work items that the parent has taken back, counts of rows and waits.
Does not cover: the results behind it in the same file (`result_journal.py`), and the use of all this (`scheduler`).

A worker that is killed cannot say which task it ran. So it writes that down first: a few numbers in shared memory,
which cost a worker nanoseconds, where a message would wake two other threads.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpr.transport.outbox import Outbox, open_shared

#: The size of the page, behind which the journal begins.
PAGE_BYTES = 4096
# Numbers in the page: the worker writes the first eleven, the parent the others, which have cache lines of their own.
(
    _SEQUENCE,
    _BEGUN,
    POSITION,
    SINCE,
    ROWS,
    _FLUSHED,
    _UNSENT_ROWS,
    _BACK_PRESSURE,
    _BACK_PRESSURE_SINCE,
    JOURNALED,
    SENT,
) = range(11)
_REVOKED, TAKEN = 16, 17


@dataclass(frozen=True, slots=True)
class At:
    """The task that a worker runs, or comes to next.

    Attributes
    ----------
    sequence:
        The worker has begun the `sequence`-th work item that it was sent; 0: none yet.
    task:
        The task in that work item which it runs, or which comes next.
    running:
        Whether that task runs: the user's function has been called, and has not returned.
    begun_ns, since_ns:
        `time.monotonic_ns()` when it began the work item, and when it began the last task that it has begun. The
        second may be too early by the time that short tasks before it took (about 0.01 s, see `worker/clock.py`).
    """

    sequence: int
    begun_ns: int
    task: int
    running: bool
    since_ns: int


class StatusPage:
    """The worker's end. Without memory files (macOS) the parent does not see it.

    Attributes
    ----------
    address:
        Where the parent opens the file; empty if it cannot.
    fd:
        The file; None if there is none.
    counters:
        The numbers in the page, for code that has no time for a call.
    """

    def __init__(self, folder: Path) -> None:
        self.address = ""
        self.fd: int | None = None
        self._file: Outbox | None = None
        self._fence = threading.Lock()
        if sys.platform == "linux":
            self._file = Outbox(folder)
            self.address, self.fd = self._file.address, self._file.fd
            os.ftruncate(self.fd, PAGE_BYTES)
            self.counters = memoryview(mmap.mmap(self.fd, PAGE_BYTES)).cast("Q")
        else:
            self.counters = memoryview(bytearray(PAGE_BYTES)).cast("Q")

    def begin_work_item(self, sequence: int, first: int) -> bool:
        """Begin the `sequence`-th work item, with task `first` next; False if the parent has taken it back."""
        counters = self.counters
        counters[_BEGUN] = time.monotonic_ns()
        counters[POSITION] = 2 * first
        counters[_SEQUENCE] = sequence
        _pass(self._fence)
        return sequence > counters[_REVOKED]

    @contextlib.contextmanager
    def back_pressure(self) -> Iterator[None]:
        """Within it, a task waits until the sinks have taken what it has logged."""
        began = self.counters[_BACK_PRESSURE_SINCE] = time.monotonic_ns()
        try:
            yield
        finally:
            # Several threads of a task may wait: the last one counts for all.
            self.counters[_BACK_PRESSURE] += time.monotonic_ns() - began
            self.counters[_BACK_PRESSURE_SINCE] = 0

    def logged(self) -> int:
        """How many rows this process has logged."""
        return self.counters[ROWS]

    def flushed(self, rows: int) -> None:
        """Note that the first `rows` rows are flushed: they survive if the worker dies."""
        self.counters[_FLUSHED] = rows

    def set_unsent_rows(self, rows: int) -> None:
        """Note that `rows` rows, of recordings that tasks have made, would die with the worker."""
        self.counters[_UNSENT_ROWS] = rows

    def begin(self, task: int, now_ns: int) -> None:
        """Note that task `task` of the work item runs from now on."""
        # In this order: a reader that sees the task sees its time, too.
        self.counters[SINCE] = now_ns
        self.counters[POSITION] = 2 * task + 1

    def end(self, task: int) -> None:
        """Note that the user's function has returned."""
        self.counters[POSITION] = 2 * task + 2

    def close(self) -> None:
        """Close the file; the parent has opened its own."""
        if self._file is not None:
            self._file.close()


class StatusPageReader:
    """The parent's end of a worker's status page.

    Parameters
    ----------
    address, folder:
        Where the worker has its page, and the folder of the recording.

    Attributes
    ----------
    fd, counters:
        The file and the numbers in its first page.

    Raises
    ------
    OSError
        If this process may not open it, or cannot.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self.fd = open_shared(address, folder)
        try:
            self._map = mmap.mmap(self.fd, PAGE_BYTES)
        except (OSError, ValueError) as error:
            os.close(self.fd)
            raise OSError(f"not a status page: {error}") from error
        self.counters = memoryview(self._map).cast("Q")
        self._fence = threading.Lock()

    def at(self) -> At:
        """The task that the worker runs at this moment."""
        counters = self.counters
        sequence, begun, position, since = counters[_SEQUENCE], counters[_BEGUN], counters[POSITION], counters[SINCE]
        return At(sequence, begun, position // 2, position % 2 == 1, since)

    def rows(self) -> int:
        """How many rows the worker has logged until now."""
        return self.counters[ROWS]

    def back_pressure(self) -> tuple[int, int]:
        """Since when the worker's `rr.log` waits (0: it does not), and for how long it waited before (nanoseconds)."""
        return self.counters[_BACK_PRESSURE_SINCE], self.counters[_BACK_PRESSURE]

    def unflushed(self) -> int:
        """How many of its rows would be lost, at most, if the worker died at this moment."""
        return self.counters[ROWS] - self.counters[_FLUSHED]

    def unsent_rows(self) -> int:
        """How many rows of recordings that tasks have made the worker has not sent."""
        return self.counters[_UNSENT_ROWS]

    def revoke(self, sequence: int) -> At:
        """Take back each work item up to the `sequence`-th that the worker has not begun.

        Returns the task that it runs then; work items behind that one will not be run. The worker may pass over that
        one, too, if it began it at this very moment, and says so (`Skipped`).
        """
        self.counters[_REVOKED] = sequence
        _pass(self._fence)
        return self.at()

    def close(self) -> None:
        """Close the page. A call in another thread raises `ValueError` from now on."""
        self.counters.release()
        self._map.close()
        os.close(self.fd)


def _pass(fence: threading.Lock) -> None:
    """Let all processors see what was written before, by an atomic operation, before anything else is read.

    Each side writes a number and then reads the other's. Without this, both could read the old one.
    """
    with fence:
        pass

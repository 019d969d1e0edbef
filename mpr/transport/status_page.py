"""Shares a page of counters, the status page, between a worker and its parent.

A producer that is no worker has such a page, too, but writes no tasks into it. On Linux, the parent can read the page
even if the worker was killed. The worker gets its tasks in work items: messages with one or several tasks. The parent
may take a work item back, as long as the worker has not begun it.

Covers: the task that the worker runs, the work items that the parent has taken back, counts of rows and waits.
Does not cover: the results behind the page in the same file (`result_journal.py`), the use of the counters
(`scheduler`).
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpr.transport import shared_file
from mpr.transport.outbox import Outbox

#: The size of the page in bytes. The journal begins behind the page.
PAGE_BYTES = 4096
# The places of the numbers in the page: each number has 8 bytes. The worker writes the first thirteen numbers, and the
# parent writes the numbers from `_REVOKED` on. The numbers of the parent lie in other cache lines, so that the two
# processes do not slow each other down.
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
    COUNTED_ROWS,
    FLUSHED_COUNTED_ROWS,
) = range(13)
_REVOKED, TAKEN = 16, 17


@dataclass(frozen=True, slots=True)
class At:
    """The task that a worker runs, or will run next.

    Attributes
    ----------
    sequence:
        The number of the last work item that the worker has begun, among those sent to the worker; 0 if it has begun
        none.
    begun_ns:
        The time at which the worker began this work item (`time.monotonic_ns()`).
    task:
        The index in this work item of the task that runs, or that comes next.
    running:
        True if the task runs: the user's function was called and has not returned. Also True while the worker loads the
        function and the arguments of the work item.
    since_ns:
        The time at which the worker began its last task (`time.monotonic_ns()`). It may be about 0.01 s too early,
        because the worker reads the clock only every 0.01 s (`worker/clock.py`).
    """

    sequence: int
    begun_ns: int
    task: int
    running: bool
    since_ns: int


class StatusPage:
    """Writes the status page, in the worker. On systems other than Linux, the parent cannot read the page.

    Parameters
    ----------
    folder:
        The private folder of the recording. If the system has no files in memory, the file is made there.

    Attributes
    ----------
    address:
        The address by which the parent opens the file; empty if the system is not Linux.
    fd:
        The descriptor of the file; None if the system is not Linux.
    counters:
        The numbers in the page. Code that must be very fast uses them without a method call.
    """

    def __init__(self, folder: Path) -> None:
        self.address: str = ""
        self.fd: int | None = None
        self._file: Outbox | None = None
        self._fence = threading.Lock()
        if sys.platform == "linux":
            self._file = Outbox(folder)
            self.address, self.fd = self._file.address, self._file.fd
            # Take the space now. If the file is on a full disk, a later write into the mapped page would kill this
            # process. Not by `posix_fallocate`, which some systems do not have.
            if os.pwrite(self.fd, bytes(PAGE_BYTES), 0) < PAGE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.counters: memoryview = memoryview(mmap.mmap(self.fd, PAGE_BYTES)).cast("Q")
        else:
            self.counters = memoryview(bytearray(PAGE_BYTES)).cast("Q")

    def begin_work_item(self, sequence: int, first: int) -> bool:
        """Note that the worker begins its `sequence`-th work item, with task number `first`.

        Returns True if the worker may run the work item, and False if the parent has taken this work item back.
        """
        counters = self.counters
        counters[_BEGUN] = time.monotonic_ns()
        counters[POSITION] = 2 * first
        counters[_SEQUENCE] = sequence
        _pass(self._fence)
        return sequence > counters[_REVOKED]

    @contextlib.contextmanager
    def back_pressure(self) -> Iterator[None]:
        """Within the `with` block, note that a logging call waits for credit."""
        began = self.counters[_BACK_PRESSURE_SINCE] = time.monotonic_ns()
        try:
            yield
        finally:
            # If several threads wait at the same time, the durations of all their waits are added.
            self.counters[_BACK_PRESSURE] += time.monotonic_ns() - began
            self.counters[_BACK_PRESSURE_SINCE] = 0

    def logged(self) -> int:
        """Return the number of rows that this process has logged to any recording, as far as the number is known."""
        return self.counters[ROWS]

    def flushed(self, rows: int) -> None:
        """Note that the first `rows` logged rows are in the outbox, so the parent can read them if the worker dies."""
        self.counters[_FLUSHED] = rows

    def set_unsent_rows(self, rows: int) -> None:
        """Note that `rows` rows of task recordings are not sent yet. They are lost if the worker dies now."""
        self.counters[_UNSENT_ROWS] = rows

    def begin(self, task: int, now_ns: int) -> None:
        """Note that task number `task` of the work item runs from now on. `now_ns` is `time.monotonic_ns()`."""
        # Written in this order, so that the parent sees the time of the task if it sees the task.
        self.counters[SINCE] = now_ns
        self.counters[POSITION] = 2 * task + 1

    def end(self, task: int) -> None:
        """Note that the user's function has ended for task number `task` of the work item."""
        self.counters[POSITION] = 2 * task + 2

    def is_in_task(self) -> bool:
        """Return True if a task of a work item runs now, or its function or arguments are being loaded."""
        return bool(self.counters[POSITION] % 2)

    def close(self) -> None:
        """Close the file. The parent has its own descriptor."""
        if self._file is not None:
            self._file.close()


class StatusPageReader:
    """Reads the status page of a worker, in the parent, and takes work items back.

    Parameters
    ----------
    address, folder:
        The address of the worker's page, and the private folder of the recording.

    Attributes
    ----------
    fd, counters:
        The descriptor of the file, and the numbers in the page.

    Raises
    ------
    OSError
        If this process cannot open the page.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self.fd: int = shared_file.open_shared(address, folder)
        try:
            if not shared_file.is_sealed(self.fd):
                # A page that vanishes would end this process (SIGBUS).
                raise OSError("its size can shrink")
            self._map = mmap.mmap(self.fd, PAGE_BYTES)
        except (OSError, ValueError) as error:
            fd, self.fd = self.fd, -1
            os.close(fd)
            raise OSError(f"not a status page: {error}") from error
        self.counters: memoryview = memoryview(self._map).cast("Q")
        self._fence = threading.Lock()

    def at(self) -> At:
        """Return the task that the worker runs at this moment, or will run next."""
        counters = self.counters
        sequence, begun, position, since = counters[_SEQUENCE], counters[_BEGUN], counters[POSITION], counters[SINCE]
        return At(sequence, begun, position // 2, position % 2 == 1, since)

    def rows(self) -> int:
        """Return the number of rows that the worker has logged to any recording, as far as the number is known."""
        return self.counters[ROWS]

    def back_pressure(self) -> tuple[int, int]:
        """Return since when `rr.log` waits in the worker, and how many nanoseconds all earlier waits took.

        `rr.log` waits if too many bytes of the process are not accepted by the sinks yet. The first number is a
        `time.monotonic_ns()`; 0 if `rr.log` does not wait now.
        """
        return self.counters[_BACK_PRESSURE_SINCE], self.counters[_BACK_PRESSURE]

    def flushed_counted_rows(self) -> int:
        """Return how many of the rows that the worker has counted are certainly in its outboxes.

        The outboxes may have more rows, because the worker does not count every row.
        """
        return self.counters[FLUSHED_COUNTED_ROWS]

    def unflushed(self) -> int:
        """Return how many logged rows are perhaps not in the outbox yet, and would be lost if the worker died now.

        Rows of calls with an unknown number of rows are not counted.
        """
        return self.counters[ROWS] - self.counters[_FLUSHED]

    def unsent_rows(self) -> int:
        """Return how many rows of task recordings the worker has not sent yet. A call of unknown size counts as one."""
        return self.counters[_UNSENT_ROWS]

    def revoke(self, sequence: int) -> At:
        """Take back each work item, up to the `sequence`-th, that the worker has not begun.

        Returns the work item and the task that the worker runs at that moment. A work item that the worker begins at
        the moment of the call may be skipped, too. The worker then sends the message `Skipped`.
        """
        self.counters[_REVOKED] = sequence
        _pass(self._fence)
        return self.at()

    def close(self) -> None:
        """Close the page. From now on, all other methods raise `ValueError`."""
        self.counters.release()
        self._map.close()
        fd, self.fd = self.fd, -1
        os.close(fd)


def _pass(fence: threading.Lock) -> None:
    """Make the earlier writes of this thread visible to other processes, before this thread reads anything else.

    On x86-64, acquiring a lock has this effect. Worker and parent each write a number, call this function, and then
    read the number of the other process. So at least one of the two processes sees the new number of the other.
    """
    with fence:
        pass

"""A worker's status page: a file in memory that both sides see, and that outlives the worker.

Covers: what the worker is at, which work items the parent has taken back, the worker's last results.
Does not cover: what follows from it (`scheduler/dispatcher.py`).

A message takes its time, and ZeroMQ sends from a thread of its own: a worker that ends a task and is killed in the next
one, microseconds later, takes the result with it, and nobody could say which task it was at. So a worker writes both
down first. What it is at are a few numbers in a page that both sides have mapped, which cost nothing to write; the last
results follow, and are read when the worker has died.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mpr.limits import WORK_ITEMS_MAX
from mpr.transport.messages import Buffer, Result, SegmentReady
from mpr.transport.outbox import Outbox, open_shared

_PAGE = 4096
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
    _JOURNALED,
    _SENT,
) = range(11)
_REVOKED, _TAKEN = 16, 17

# Slots follow, one for each result that can be on its way: as many as the worker has work items, and the present one.
_SLOTS = WORK_ITEMS_MAX + 1
_HEADER = struct.Struct("<QIIBBQIbQQQQQIQQ")
_SIZE = struct.Struct("<Q")
# What does not fit into its slot lies in one of these areas, and the parent takes it from there: two copies through
# memory that is there already instead of the way through a socket. Only written pages take memory.
_AREAS = 3
_AREA_BYTES = 8 * 1024 * 1024
_AREAS_START = _PAGE * (1 + _SLOTS)


@dataclass(frozen=True, slots=True)
class At:
    """What a worker is at.

    Attributes
    ----------
    turn:
        It has begun the `sequence`-th work item that it was sent; 0: none yet.
    task:
        The task in that work item which it runs, or which comes next.
    running:
        Whether that task runs: the user's function has been called, and has not returned.
    claimed_ns, since_ns:
        `time.monotonic_ns()` when it began the work item, and when it began the last task that it has begun; that may
        be
        too early by the time that short tasks of the same work item took before it (see `Ticker`, about 0.01 s).
    """

    sequence: int
    begun_ns: int
    task: int
    running: bool
    since_ns: int


class StatusPage:
    """The worker's end. Without memory files (macOS) nothing is written."""

    def __init__(self, folder: Path) -> None:
        self.address = ""
        self._file: Outbox | None = None
        self._next = 0
        #: How often each area was written, so that the parent can say which of it was taken.
        self._written = [0] * _AREAS
        self._fence = threading.Lock()
        if sys.platform == "linux":
            self._file = Outbox(folder)
            self.address = self._file.address
            os.ftruncate(self._file.fd, _PAGE)
            #: The numbers in the page, for who has no time for a call.
            self.counters = memoryview(mmap.mmap(self._file.fd, _PAGE)).cast("Q")
        else:
            self.counters = memoryview(bytearray(_PAGE)).cast("Q")

    def begin_work_item(self, sequence: int, first: int) -> bool:
        """Begin the `sequence`-th work item, with task `first` next; False where the parent has taken it back."""
        counters = self.counters
        counters[_BEGUN] = time.monotonic_ns()
        counters[POSITION] = 2 * first
        counters[_SEQUENCE] = sequence
        _pass(self._fence)
        return sequence > counters[_REVOKED]

    @contextlib.contextmanager
    def back_pressure(self) -> Iterator[None]:
        """Within, a task waits until the sinks have taken what it has logged."""
        began = self.counters[_BACK_PRESSURE_SINCE] = time.monotonic_ns()
        try:
            yield
        finally:
            # Several threads of a task may wait: who comes last counts for all.
            self.counters[_BACK_PRESSURE] += time.monotonic_ns() - began
            self.counters[_BACK_PRESSURE_SINCE] = 0

    def logged(self) -> int:
        """How many rows that were."""
        return self.counters[ROWS]

    def flushed(self, rows: int) -> None:
        """The first so many of them are where nobody's death can take them."""
        self.counters[_FLUSHED] = rows

    def set_unsent_rows(self, rows: int) -> None:
        """So many rows, of recordings of its own, would die with the worker."""
        self.counters[_UNSENT_ROWS] = rows

    def begin(self, task: int, now_ns: int) -> None:
        """Task `task` of the work item runs from now on."""
        # In this order: who sees the task sees its time, too.
        self.counters[SINCE] = now_ns
        self.counters[POSITION] = 2 * task + 1

    def end(self, task: int) -> None:
        """The user's function has returned."""
        self.counters[POSITION] = 2 * task + 2

    def write(
        self, result: Result, behind: SegmentReady, sent: int, *, needed: int = 0, parent_reads: bool
    ) -> tuple[Result, bool]:
        """Note `result`, how far the outbox was written then, and that it comes behind the first `sent` messages.

        The first `needed` messages must have arrived before the result may be read here, because rows are in them.

        Returns what to send, and whether it was noted: it can be read then, whatever becomes of this process. With
        `parent_reads`, a large payload stays here for the parent to take. What is too large for that, or comes while
        all areas are in use, is not noted.
        """
        if self._file is None:
            return result, False
        payload = result.payload
        size = sum(len(part) for part in payload)
        sizes = b"".join([_SIZE.pack(len(part)) for part in payload])
        fits = _HEADER.size + len(sizes) + size <= _PAGE
        area = -1 if fits else self._free_area(size, len(sizes)) if parent_reads else None
        if area is None:
            return result, False
        slot = _PAGE * (1 + self._next % _SLOTS)
        self._next += 1
        fields = (result.work_item, result.first, result.count, result.status, result.last, result.micros, len(payload))
        spent = (result.flush_micros, result.rows, result.data_bytes, result.number, result.ended_nanos)
        head = _HEADER.pack(*fields, area, *spent, behind.outbox, behind.end, needed) + sizes
        # The header makes it valid, so it comes last. Within one page all of it is written, or nothing.
        if area < 0:
            os.pwritev(self._file.fd, [head, *payload], slot)
        elif os.pwritev(self._file.fd, payload, _AREAS_START + area * _AREA_BYTES) < size:
            # There is no memory for it.
            return result, False
        else:
            os.pwrite(self._file.fd, head, slot)
            self._written[area] += 1
            result = replace(result, payload=[bytes([area]), sizes], in_memory=True)
        # In this order: who sees the result sees what it comes behind, too.
        self.counters[_SENT] = sent
        self.counters[_JOURNALED] = result.number
        return result, True

    def _free_area(self, size: int, head: int) -> int | None:
        if size > _AREA_BYTES or _HEADER.size + head > _PAGE:
            return None
        return next((area for area in range(_AREAS) if self.counters[_TAKEN + area] == self._written[area]), None)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class StatusPageReader:
    """The parent's end of a worker's status page."""

    def __init__(self, address: str, folder: Path) -> None:
        """Open the status page at `address`; raises `OSError` where this process may not or cannot."""
        self._fd = open_shared(address, folder)
        try:
            self._map = mmap.mmap(self._fd, _PAGE)
        except (OSError, ValueError) as error:
            os.close(self._fd)
            raise OSError(f"not a slate: {error}") from error
        self._counters = memoryview(self._map).cast("Q")
        self._fence = threading.Lock()

    def at(self) -> At:
        """What the worker is at, at this moment."""
        counters = self._counters
        sequence, begun, position, since = counters[_SEQUENCE], counters[_BEGUN], counters[POSITION], counters[SINCE]
        return At(sequence, begun, position // 2, position % 2 == 1, since)

    def rows(self) -> int:
        """How many rows the worker has logged until now."""
        return self._counters[ROWS]

    def back_pressure(self) -> tuple[int, int]:
        """Since when the worker's `rr.log` waits (0: it does not), and for how long it waited before (nanoseconds)."""
        return self._counters[_BACK_PRESSURE_SINCE], self._counters[_BACK_PRESSURE]

    def unflushed(self) -> int:
        """How many of them would be lost, at most, if the worker died at this moment."""
        return self._counters[ROWS] - self._counters[_FLUSHED]

    def unsent_rows(self) -> int:
        """How many rows of recordings of its own the worker has not sent."""
        return self._counters[_UNSENT_ROWS]

    def revoke(self, sequence: int) -> At:
        """Take back every work item up to the `sequence`-th that the worker has not begun. Returns what it is at then.

        Work items behind the one that it is at will not be run. That one itself, where it was begun in this very
        moment,
        the worker may pass over, too; it says so (`Skipped`).
        """
        self._counters[_REVOKED] = sequence
        _pass(self._fence)
        return self.at()

    def take(self, result: Result) -> Result:
        """`result` with its payload, which the worker has left here; the worker may use the place again then."""
        (area,) = result.payload[0][:1] or b"\xff"
        if area >= _AREAS:
            raise ValueError(f"a slate has no area {area}")
        payload = self._read(_AREAS_START + area * _AREA_BYTES, bytes(result.payload[1]))
        self._counters[_TAKEN + area] += 1
        return replace(result, payload=payload, in_memory=False)

    def journaled(self) -> tuple[int, int]:
        """The number of the last result that the worker has noted (0: none yet), and how many messages come before."""
        return self._counters[_JOURNALED], self._counters[_SENT]

    def results(self) -> Iterator[tuple[SegmentReady, int, Result]]:
        """The last results that the worker has noted, the oldest first, each with the segment that it comes behind.

        The number says how many of the worker's messages must have arrived before the result may be taken.

        Of a worker that lives, the last one may be incomplete, which has a higher number than `journaled` says.
        """
        found = []
        for slot in range(_PAGE, _AREAS_START, _PAGE):
            head = os.pread(self._fd, _PAGE, slot)
            if len(head) < _HEADER.size:
                continue
            work_item, first, count, status, last, micros, parts, area, *rest = _HEADER.unpack_from(head)
            if work_item:
                end = _HEADER.size + parts * _SIZE.size
                start = slot + end if area < 0 else _AREAS_START + area * _AREA_BYTES
                payload = self._read(start, head[_HEADER.size : end])
                *spent, outbox, written, needed = rest
                result = Result(work_item, first, count, status, bool(last), micros, payload, False, *spent)
                found.append((SegmentReady(outbox, 0, written), needed, result))
        return iter(sorted(found, key=lambda journaled: journaled[2].number))

    def _read(self, offset: int, sizes: bytes) -> list[Buffer]:
        if len(sizes) % _SIZE.size:
            raise ValueError("not a list of sizes")
        parts = [bytearray(size) for (size,) in _SIZE.iter_unpack(sizes)]
        if parts and os.preadv(self._fd, parts, offset) < sum(map(len, parts)):
            raise OSError("a slate ends too early")
        return [memoryview(part) for part in parts]

    def close(self) -> None:
        self._counters.release()
        self._map.close()
        os.close(self._fd)


def _pass(fence: threading.Lock) -> None:
    """What was written before can be seen elsewhere before anything is read: an atomic operation in between.

    Each side writes a number and then reads the other's. Without this, both could read the old one.
    """
    with fence:
        pass

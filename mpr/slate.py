"""A worker's slate: a file in memory that both sides see, and that outlives the worker.

Covers: what the worker is at, which parcels the parent has taken back, the worker's last results.
Does not cover: what follows from it (`dispatcher.py`).

A message takes its time, and ZeroMQ sends from a thread of its own: a worker that ends a task and is killed in the next
one, microseconds later, takes the result with it, and nobody could say which task it was at. So a worker writes both
down first. What it is at are a few numbers in a page that both sides have mapped, which cost nothing to write; the last
results follow, and are read when the worker has died.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpr.messages import Buffer, Result
from mpr.outbox import Outbox, open_shared, punch_hole
from mpr.scheduler import MOST

_PAGE = 4096
# Numbers in the page: the worker writes the first four, the parent the last, which has a cache line of its own.
_TURN, _CLAIMED, _POSITION, _SINCE, _REVOKED = 0, 1, 2, 3, 8

# As many results are on their way at most as the worker has parcels.
_SLOTS = MOST + 1
_HEADER = struct.Struct("<QIIBBII")
_SIZE = struct.Struct("<Q")
_PAYLOAD = 4096
_MAX_PARTS = (_PAYLOAD - _HEADER.size) // _SIZE.size
_MAX_BYTES = 16 * 1024 * 1024
# Of those that are larger only the last few stay.
_KEEP_BYTES = 1024 * 1024
_LARGE = 3
# Only written pages of the file take memory.
_SLOT_BYTES = _PAYLOAD + _MAX_BYTES


@dataclass(frozen=True, slots=True)
class At:
    """What a worker is at.

    Attributes
    ----------
    turn:
        It has begun the `turn`-th parcel that it was sent; 0: none yet.
    task:
        The task in that parcel which it runs, or which comes next.
    running:
        Whether that task runs: the user's function has been called, and has not returned.
    claimed_ns, since_ns:
        `time.monotonic_ns()` when it began the parcel, and when it began the last task that it has begun.
    """

    turn: int
    claimed_ns: int
    task: int
    running: bool
    since_ns: int


class Slate:
    """The worker's end. Without memory files (macOS) nothing is written."""

    def __init__(self, folder: Path) -> None:
        self.address = ""
        self._file: Outbox | None = None
        self._next = 0
        self._large: deque[int] = deque()
        self._fence = threading.Lock()
        if sys.platform == "linux":
            self._file = Outbox(folder)
            self.address = self._file.address
            os.ftruncate(self._file.fd, _PAGE)
            self._cells = memoryview(mmap.mmap(self._file.fd, _PAGE)).cast("Q")
        else:
            self._cells = memoryview(bytearray(_PAGE)).cast("Q")

    def claim(self, turn: int, first: int) -> bool:
        """Begin the `turn`-th parcel, with task `first` next; False where the parent has taken it back."""
        cells = self._cells
        cells[_CLAIMED] = time.monotonic_ns()
        cells[_POSITION] = 2 * first
        cells[_TURN] = turn
        _pass(self._fence)
        return turn > cells[_REVOKED]

    def begin(self, task: int, now_ns: int) -> None:
        """Task `task` of the parcel runs from now on."""
        # In this order: who sees the task sees its time, too.
        self._cells[_SINCE] = now_ns
        self._cells[_POSITION] = 2 * task + 1

    def end(self, task: int) -> None:
        """The user's function has returned."""
        self._cells[_POSITION] = 2 * task + 2

    def write(self, result: Result) -> None:
        """Note `result`; when this returns, it can be read whatever becomes of this process."""
        if self._file is None:
            return
        fd = self._file.fd
        payload = result.payload
        size = sum(len(part) for part in payload)
        if size > _MAX_BYTES or len(payload) > _MAX_PARTS:
            # Too large to be written twice. That its tasks have ended is on the slate all the same.
            return
        slot = self._next % _SLOTS
        start = _PAGE + slot * _SLOT_BYTES
        self._next += 1
        if slot in self._large:
            self._forget(slot)
        if size > _KEEP_BYTES:
            self._large.append(slot)
            if len(self._large) > _LARGE:
                self._forget(self._large[0])
        sizes = [_SIZE.pack(len(part)) for part in payload]
        fields = (result.parcel, result.first, result.count, result.status, result.last, result.micros, len(payload))
        head = _HEADER.pack(*fields) + b"".join(sizes)
        if len(head) + size <= _PAYLOAD:
            # Within one page all of it is written, or nothing.
            os.pwritev(fd, [head, *payload], start)
        else:
            # The header makes it valid, so it comes last.
            os.pwritev(fd, payload, start + _PAYLOAD)
            os.pwrite(fd, head, start)

    def _forget(self, slot: int) -> None:
        """Give back the memory of a slot."""
        assert self._file is not None
        self._large.remove(slot)
        start = _PAGE + slot * _SLOT_BYTES
        punch_hole(self._file.fd, start, start + _SLOT_BYTES)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class SlateReader:
    """The parent's end of a worker's slate."""

    def __init__(self, address: str, folder: Path) -> None:
        """Open the slate at `address`; raises `OSError` where this process may not or cannot."""
        self._fd = open_shared(address, folder)
        try:
            self._map = mmap.mmap(self._fd, _PAGE)
        except (OSError, ValueError) as error:
            os.close(self._fd)
            raise OSError(f"not a slate: {error}") from error
        self._cells = memoryview(self._map).cast("Q")
        self._fence = threading.Lock()

    def at(self) -> At:
        """What the worker is at, at this moment."""
        cells = self._cells
        turn, claimed, position, since = cells[_TURN], cells[_CLAIMED], cells[_POSITION], cells[_SINCE]
        return At(turn, claimed, position // 2, position % 2 == 1, since)

    def revoke(self, turn: int) -> At:
        """Take back every parcel up to the `turn`-th that the worker has not begun. Returns what it is at then.

        Parcels behind the one that it is at will not be run. That one itself, where it was begun in this very moment,
        the worker may pass over, too; it says so (`Skipped`).
        """
        self._cells[_REVOKED] = turn
        _pass(self._fence)
        return self.at()

    def results(self) -> Iterator[Result]:
        """The last results that the worker has written, the oldest first."""
        found = []
        for slot in range(_SLOTS):
            start = _PAGE + slot * _SLOT_BYTES
            head = os.pread(self._fd, _PAYLOAD, start)
            if len(head) < _HEADER.size:
                continue
            parcel, first, count, status, last, micros, parts = _HEADER.unpack_from(head)
            if parcel:
                payload = self._payload(start, head, parts)
                found.append(Result(parcel, first, count, status, bool(last), micros, payload))
        return iter(sorted(found, key=lambda result: (result.parcel, result.first)))

    def _payload(self, start: int, head: bytes, parts: int) -> Sequence[Buffer]:
        sizes = [size for (size,) in _SIZE.iter_unpack(head[_HEADER.size : _HEADER.size + parts * _SIZE.size])]
        offset = _HEADER.size + parts * _SIZE.size
        offset = start + (offset if offset + sum(sizes) <= _PAYLOAD else _PAYLOAD)
        payload = []
        for size in sizes:
            payload.append(os.pread(self._fd, size, offset))
            offset += size
        return payload

    def close(self) -> None:
        self._cells.release()
        self._map.close()
        os.close(self._fd)


def _pass(fence: threading.Lock) -> None:
    """What was written before can be seen elsewhere before anything is read: an atomic operation in between.

    Each side writes a number and then reads the other's. Without this, both could read the old one.
    """
    with fence:
        pass

"""A worker's slate: its last results, written down where they outlive it.

ZeroMQ sends from a thread of its own. A worker that ends a task and is killed in the next one, microseconds later,
takes the result with it: a task that was done would fail. So a worker writes each result to a file in memory first; the
parent reads it there when the worker has died, and only the task that really ran is lost.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mpr.messages import LOST, Buffer, Result
from mpr.outbox import Outbox, punch_hole

# A worker has at most three parcels, so at most three results are on their way.
_SLOTS = 4
_HEADER = struct.Struct("<QBII")
_SIZE = struct.Struct("<Q")
_PAYLOAD = 4096
_MAX_PARTS = (_PAYLOAD - _HEADER.size) // _SIZE.size
# Of a larger result only the fact is noted.
_MAX_BYTES = 16 * 1024 * 1024
_KEEP_BYTES = 1024 * 1024
# Only written pages of the file take memory.
_SLOT_BYTES = _PAYLOAD + _MAX_BYTES


class Slate:
    """The worker's end. Without memory files (macOS) nothing is written."""

    def __init__(self, folder: Path) -> None:
        self._file = Outbox(folder) if sys.platform == "linux" else None
        self.address = self._file.address if self._file is not None else ""
        self._next = 0
        self._large: set[int] = set()

    def write(self, result: Result) -> None:
        """Note `result`; when this returns, it can be read whatever becomes of this process."""
        if self._file is None:
            return
        fd = self._file.fd
        size = sum(len(part) for part in result.payload)
        if size > _MAX_BYTES or len(result.payload) > _MAX_PARTS:
            # Too large to be written twice: what is noted is that this task has ended, and must not run again.
            result, size = Result(result.parcel, LOST, (), result.micros), 0
        slot = self._next % _SLOTS
        start = slot * _SLOT_BYTES
        self._next += 1
        if slot in self._large:
            self._large.remove(slot)
            punch_hole(fd, start, start + _SLOT_BYTES)
        if size > _KEEP_BYTES:
            self._large.add(slot)
        if result.payload:
            os.pwritev(fd, result.payload, start + _PAYLOAD)
        # The header makes it valid, so it comes last.
        sizes = b"".join(_SIZE.pack(len(part)) for part in result.payload)
        head = _HEADER.pack(result.parcel, result.status, result.micros, len(result.payload))
        os.pwrite(fd, head + sizes, start)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_slate(fd: int) -> Iterator[Result]:
    """The results on a slate, the oldest first."""
    found = []
    for slot in range(_SLOTS):
        head = os.pread(fd, _PAYLOAD, slot * _SLOT_BYTES)
        if len(head) < _HEADER.size:
            continue
        parcel, status, micros, parts = _HEADER.unpack_from(head)
        if parcel:
            found.append(Result(parcel, status, _payload(fd, slot, head, parts), micros))
    return iter(sorted(found, key=lambda result: result.parcel))


def _payload(fd: int, slot: int, head: bytes, parts: int) -> Sequence[Buffer]:
    offset = slot * _SLOT_BYTES + _PAYLOAD
    payload = []
    for number in range(parts):
        (size,) = _SIZE.unpack_from(head, _HEADER.size + number * _SIZE.size)
        payload.append(os.pread(fd, size, offset))
        offset += size
    return payload

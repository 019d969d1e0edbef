"""Keeps a worker's last results in a journal: memory that the parent can read on Linux, even if the worker has died.

ZeroMQ sends a message in a thread of its own. If the worker is killed before this thread has sent the message of a
result, the parent reads the result here. If a large payload was written into an area, it is not in the message
(`ResultInMemory`), and the parent copies it from the area.

```
page 0      counters              the status page
page 1..33  slots                 a result without its payload, sizes of its payload, and the payload if it fits
areas 0..2  8 MiB each            the payload of a larger result, until the parent has read it
```

The journal is the part of a file in memory behind page 0. A *slot* is a place for one result. The *payload* of a result
consists of the pickled outcomes of its tasks. An *area* is a place for a payload that is too large for its slot.

Covers: writing results into slots and areas, and reading them in the parent.
Does not cover: the counters at the beginning of the file (`status_page.py`), and which results are sent later
(`producer/result_sender.py`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import replace

from mpr.limits import WORK_ITEMS_MAX
from mpr.transport.messages import Result, ResultInMemory, SegmentReady
from mpr.transport.packing import Buffer
from mpr.transport.status_page import JOURNALED, PAGE_BYTES, SENT, TAKEN, StatusPage, StatusPageReader

# One slot for each result that may not have arrived at the parent: one for each work item that the worker may have, and
# one for the result that is being written.
_SLOTS = WORK_ITEMS_MAX + 1
_HEADER = struct.Struct("<QIIBBQIbQQQQQIQQ")
_SIZE = struct.Struct("<Q")
# A payload that does not fit into its slot lies in one of these areas, and the parent takes the payload from there. Two
# copies through memory are faster than a socket. Only pages that were written take memory.
_AREAS = 3
_AREA_BYTES = 8 * 1024 * 1024
_AREAS_START = PAGE_BYTES * (1 + _SLOTS)


class ResultJournal:
    """Writes results into the journal, in the worker. The journal is in the file of the status page.

    On systems other than Linux there is no such file, and `write` writes nothing.
    """

    def __init__(self, status_page: StatusPage) -> None:
        self._counters = status_page.counters
        self._fd = status_page.fd
        self._next = 0
        #: How often each area was written. If the parent has taken as many payloads from an area, the area is free.
        self._written = [0] * _AREAS

    def write(
        self, result: Result, behind: SegmentReady, sent: int, *, needed: int = 0, parent_reads: bool
    ) -> tuple[Result | ResultInMemory, bool]:
        """Write `result` into the journal. Returns the message to send, and a bool: True if the result was written.

        The message is a `ResultInMemory` if the payload was written into an area, and else `result` itself. The bool is
        False if the result could not be written, for example because all areas are in use.

        Parameters
        ----------
        behind:
            The rows of `result` are in the outboxes up to byte `behind.end` of outbox number `behind.outbox`.
        sent:
            How many messages the worker has sent before this result.
        needed:
            The parent may use the result only after this number of the worker's messages has arrived.
        parent_reads:
            False if the parent cannot read areas. A payload that does not fit into a slot is not written then.
        """
        sizes = b"".join([_SIZE.pack(len(part)) for part in result.payload])
        size = sum(len(part) for part in result.payload)
        fits = _HEADER.size + len(sizes) + size <= PAGE_BYTES
        area = -1 if fits else self._free_area(size, len(sizes)) if parent_reads else None
        if self._fd is None or area is None:
            return result, False
        head = _head(result, behind, area, needed) + sizes
        try:
            if not self._write_slot(head, result, area, size):
                return result, False
        except OSError:
            # A limit of the process forbids writing (RLIMIT_FSIZE). The message is sent with its payload.
            return result, False
        # `SENT` is written first. So when the parent sees the new number in `JOURNALED`, it also sees the new `SENT`.
        self._counters[SENT] = sent
        self._counters[JOURNALED] = result.number
        return (result if fits else ResultInMemory(replace(result, payload=[]), area, sizes)), True

    def _write_slot(self, head: bytes, result: Result, area: int, size: int) -> bool:
        """Write the payload of `result`, and `head` not before it, because `head` makes the slot valid.

        `area` is the number of the area for the payload; -1 if the payload goes into the slot. `size` is the size of
        the payload in bytes. Returns False if there is not enough memory for the payload.
        """
        assert self._fd is not None
        slot = PAGE_BYTES * (1 + self._next % _SLOTS)
        if area < 0:
            # Head and payload lie within one page, so this call writes both or nothing.
            os.pwritev(self._fd, [head, *result.payload], slot)
        elif os.pwritev(self._fd, result.payload, _AREAS_START + area * _AREA_BYTES) < size:
            return False
        else:
            os.pwrite(self._fd, head, slot)
            self._written[area] += 1
        self._next += 1
        return True

    def _free_area(self, size: int, sizes_bytes: int) -> int | None:
        """Return the number of a free area for a payload of `size` bytes; None if no area can be used.

        `sizes_bytes` is the length of the list of sizes, which must fit into a slot.
        """
        if size > _AREA_BYTES or _HEADER.size + sizes_bytes > PAGE_BYTES:
            return None
        return next((area for area in range(_AREAS) if self._counters[TAKEN + area] == self._written[area]), None)


class ResultJournalReader:
    """Reads the journal of a worker, in the parent."""

    def __init__(self, status_page: StatusPageReader) -> None:
        self._page = status_page

    def take(self, message: ResultInMemory) -> Result:
        """Return the result of `message`, with its payload from the journal. The worker may then use the area again.

        Raises `ValueError` or `OSError` if the payload cannot be read.
        """
        payload = self._read_area(message.area, message.sizes)
        self._page.counters[TAKEN + message.area] += 1
        return replace(message.result, payload=payload)

    def journaled(self) -> tuple[int, int]:
        """Return the number of the last written result (0: none), and how many messages were sent before it."""
        return self._page.counters[JOURNALED], self._page.counters[SENT]

    def results(self) -> Iterator[tuple[SegmentReady, int, Result]]:
        """Return the results in the journal, the oldest first, as (segment, needed, result).

        The rows of `result` are in the outboxes up to byte `segment.end` of outbox number `segment.outbox`. The result
        may be used only after the first `needed` messages of the worker have arrived. The message with this result may
        have arrived before.

        While the worker lives, the last result may be incomplete. Raises `ValueError` or `OSError` if the journal is
        damaged.
        """
        found = []
        for slot in range(PAGE_BYTES, _AREAS_START, PAGE_BYTES):
            head = os.pread(self._page.fd, PAGE_BYTES, slot)
            if len(head) < _HEADER.size:
                continue
            work_item, first, count, status, last, micros, parts, area, *rest = _HEADER.unpack_from(head)
            if work_item:
                end = _HEADER.size + parts * _SIZE.size
                sizes = head[_HEADER.size : end]
                payload = self._read(slot + end, sizes, PAGE_BYTES - end) if area < 0 else self._read_area(area, sizes)
                *spent, outbox, written, needed = rest
                result = Result(work_item, first, count, status, bool(last), micros, payload, *spent)
                found.append((SegmentReady(outbox, 0, written), needed, result))
        return iter(sorted(found, key=lambda journaled: journaled[2].number))

    def _read_area(self, area: int, sizes: bytes) -> list[Buffer]:
        if not 0 <= area < _AREAS:
            raise ValueError(f"a journal has no area {area}")
        return self._read(_AREAS_START + area * _AREA_BYTES, sizes, _AREA_BYTES)

    def _read(self, offset: int, sizes: bytes, most: int) -> list[Buffer]:
        if len(sizes) % _SIZE.size:
            raise ValueError("not a list of sizes")
        found = [size for (size,) in _SIZE.iter_unpack(sizes)]
        # Checked before memory is allocated for the payload.
        if sum(found) > most:
            raise ValueError(f"a payload of {sum(found)} bytes where {most} fit")
        parts = [bytearray(size) for size in found]
        if parts and os.preadv(self._page.fd, parts, offset) < sum(found):
            raise OSError("a journal ends too early")
        return [memoryview(part) for part in parts]


def _head(result: Result, behind: SegmentReady, area: int, needed: int) -> bytes:
    return _HEADER.pack(
        result.work_item,
        result.first,
        result.count,
        result.status,
        result.last,
        result.micros,
        len(result.payload),
        area,
        result.flush_micros,
        result.rows,
        result.data_bytes,
        result.number,
        result.ended_nanos,
        behind.outbox,
        behind.end,
        needed,
    )

"""Finds the whole messages of a file, up to bytes that cannot be a frame. The file may be made by an attacker.

Here, a message is a frame, but no `END` frame, whose payload begins with the fields that its kind must have.

Covers: which frames are messages, and where the messages end.
Does not cover: the contents of chunks, which only the SDK can read (`footer_process.py`), and the new file
(`recover.py`).
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from mpr.errors import FormatError
from mpr.limits import MESSAGE_MAX_BYTES
from mpr.rrd import framing, protobuf, store_id
from mpr.rrd.framing import Frame, Read
from mpr.rrd.manifest import ChunkLocation

# The number of bytes that are scanned at a time. An empty frame has 16 bytes, so there are up to 65,536 frames in them.
_SPAN = 1024 * 1024
# The largest store info, and the largest id at the beginning of a message (bytes). Usually both are much shorter, so
# only the smaller number of bytes is read first.
_INFO_MAX_BYTES = 1024 * 1024
_QUICK_BYTES = 512


@dataclass
class Survey:
    """Lists the messages in a file.

    Attributes
    ----------
    header:
        The header of the file.
    runs:
        The places of all messages: start and end of each run of messages without a gap, one after another.
    chunks:
        The offset of the frame and the size of the payload of each chunk, as in `ChunkLocation`, one after another.
    infos:
        The payload of the first store info of each store, by the store's encoded id.
    end:
        The offset behind the last whole frame that is no `END` frame. If there is none, the offset behind the header.
    is_damaged:
        True if a whole frame is no message, or if there are bytes that cannot be a frame. An incomplete message at the
        end of the file, and an `END` frame, do not count.
    has_footer:
        True if there is an `END` frame.
    has_more:
        True if another stream may follow behind the footer.
    """

    header: bytes
    runs: array[int] = field(default_factory=lambda: array("Q"))
    chunks: array[int] = field(default_factory=lambda: array("Q"))
    infos: dict[bytes, bytes] = field(default_factory=dict)
    end: int = framing.HEADER_SIZE
    is_damaged: bool = False
    has_footer: bool = False
    has_more: bool = False

    @property
    def chunk_count(self) -> int:
        return len(self.chunks) // 2

    @property
    def kept_bytes(self) -> int:
        """The number of bytes of all messages."""
        return sum(self.runs[1::2]) - sum(self.runs[::2])

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield the start and the end of each run of messages, as offsets in the file."""
        return zip(self.runs[::2], self.runs[1::2], strict=True)

    def places(self) -> Iterator[ChunkLocation]:
        """Yield the place of each chunk, as in `ChunkLocation`."""
        return zip(self.chunks[::2], self.chunks[1::2], strict=True)

    def keep(self, frame: Frame) -> None:
        """Add the message `frame`. Messages must be added in their order in the file."""
        if self.runs and self.runs[-1] == frame.start:
            self.runs[-1] = frame.end
        else:
            self.runs.extend((frame.start, frame.end))
        if frame.kind == framing.ARROW_MSG:
            self.chunks.extend((frame.start, frame.size))

    def without(self, unreadable: set[int]) -> Survey:
        """Return a copy of the survey without the chunks whose indexes are in `unreadable`.

        In the copy, `is_damaged` is True.
        """
        rest = replace(self, runs=array("Q"), chunks=array("Q"), is_damaged=True)
        gaps: deque[tuple[int, int]] = deque()
        for index, (start, size) in enumerate(self.places()):
            if index in unreadable:
                gaps.append((start, start + framing.FRAME_HEADER_SIZE + size))
            else:
                rest.chunks.extend((start, size))
        for start, end in self.spans():
            while gaps and gaps[0][0] < end:
                before, after = gaps.popleft()
                if start < before:
                    rest.runs.extend((start, before))
                start = after
            if start < end:
                rest.runs.extend((start, end))
        return rest


def survey(read: Read, size: int) -> Survey:
    """Return the messages in a file of `size` bytes, which `read` reads.

    The search ends at an `END` frame, and at bytes that cannot be a frame. A frame of more than `MESSAGE_MAX_BYTES` (8
    GiB) counts as such bytes, because no message is so large. Raises `FormatError` if mpr does not know the file's
    format.
    """
    header = read(0, framing.HEADER_SIZE)
    framing.check_header(header)
    found = Survey(header)
    try:
        for frame in _frames(read, framing.HEADER_SIZE, size):
            if frame.kind == framing.END:
                found.has_footer = True
                found.has_more = bool(frame.size) and size > frame.end + framing.STREAM_FOOTER_SIZE
                break
            found.end = frame.end
            if _is_message(read, frame, found):
                found.keep(frame)
            else:
                found.is_damaged = True
    except framing.DamagedError:
        found.is_damaged = True
    return found


def _frames(read: Read, start: int, end: int) -> Iterator[Frame]:
    """Yield the whole frames in the bytes `[start, end)` of the file. Stop before an incomplete frame.

    Raises `DamagedError` at bytes that cannot be a frame.
    """
    while end - start >= framing.FRAME_HEADER_SIZE:
        try:
            frames, stop = framing.scan(read, start, min(end, start + _SPAN))
        except framing.DamagedError as error:
            yield from error.frames
            raise
        if not frames:
            # The frame has more bytes than are scanned at a time, or it is incomplete, or the file was cut meanwhile.
            try:
                frame = framing.frame_at(read, start)
            except FormatError:
                return
            if frame.size > MESSAGE_MAX_BYTES:
                raise framing.DamagedError(frame.kind, start, [])
            if frame.end > end:
                return
            frames, stop = [frame], frame.end
        yield from frames
        start = stop


def _is_message(read: Read, frame: Frame, found: Survey) -> bool:
    """Return True if `frame` is a message. If it is a store info, also add it to `found.infos`."""
    try:
        if frame.kind == framing.SET_STORE_INFO:
            if frame.size > _INFO_MAX_BYTES:
                return False
            info = read(frame.payload, frame.size)
            protobuf.field(info, 1)
            found.infos.setdefault(store_id.store_id_of_info(info), info)
        else:
            _leading_store(read, frame)
    except FormatError:
        return False
    return True


def _leading_store(read: Read, frame: Frame) -> None:
    """Raise `FormatError` if the payload of `frame` does not begin with a field that can be a store id."""
    try:
        protobuf.leading_field(read(frame.payload, min(frame.size, _QUICK_BYTES)))
    except FormatError:
        if frame.size <= _QUICK_BYTES:
            raise
        protobuf.leading_field(read(frame.payload, min(frame.size, _INFO_MAX_BYTES)))


def reader_of(fd: int) -> Read:
    """Return a function that reads the file with the descriptor `fd`, by offset and size in bytes."""
    return lambda offset, size: os.pread(fd, size, offset)

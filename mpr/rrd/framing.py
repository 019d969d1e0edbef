"""The bytes of an `.rrd` file: frames, the few protobuf messages that mpr reads, header and footer.

Covers: finding the frames of a stream, the store id of a message, the closing frames of a file.
Does not cover: the contents of a chunk (mpr never decodes one) and the manifest's table (`manifest.py`).

A stream is a 12-byte header and then frames, each `<kind: u64><length: u64><payload>`. The last frame (kind `END`)
holds the footer, followed by 20 bytes per footer and `RRF2FOOT<count: u32>`. Source: rerun-io/rerun,
`crates/store/re_log_encoding/src/rrd/frames.rs` and `re_protos/proto/rerun/v1alpha1/log_msg.proto`.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mpr.errors import FormatError
from mpr.limits import SLICE_BYTES
from mpr.rrd.protobuf import encode_field

FOURCC = b"RRF2"
HEADER_SIZE = 12

END = 0
SET_STORE_INFO = 1
ARROW_MSG = 2
BLUEPRINT_ACTIVATION = 3

_FRAME = struct.Struct("<QQ")
FRAME_HEADER_SIZE = _FRAME.size
_FOOTER_ENTRY = struct.Struct("<QQI")
#: The end of the bytes after the `END` frame: one entry, then this mark and number of entries.
CLOSING = FOURCC + b"FOOT" + struct.pack("<I", 1)
STREAM_FOOTER_SIZE = _FOOTER_ENTRY.size + len(CLOSING)
# `StreamFooter::CRC_SEED` of the SDK's `frames.rs`.
_CRC_SEED = 7850921

# One read finds the headers of many small frames; a large frame's payload is never read here.
_SCAN_WINDOW = 64 * 1024

Read = Callable[[int, int], bytes]
"""`read(offset, size)`: up to `size` bytes of a stream, fewer only at its end."""


class Frame(NamedTuple):
    """One frame: `start` is the offset of its 16-byte header, `size` the length of its payload, both in bytes."""

    kind: int
    start: int
    size: int

    @property
    def payload(self) -> int:
        return self.start + FRAME_HEADER_SIZE

    @property
    def end(self) -> int:
        return self.start + FRAME_HEADER_SIZE + self.size


class DamagedError(FormatError):
    """A stream continues with bytes that are no frame; `frames` are the whole frames before them."""

    def __init__(self, kind: int, position: int, frames: list[Frame]) -> None:
        super().__init__(f"unknown frame kind {kind} at offset {position}")
        self.frames = frames


def check_header(header: bytes) -> None:
    """Raise `FormatError` if `header` is not the header of a stream of the known format."""
    if len(header) < HEADER_SIZE or header[:4] != FOURCC or header[9] != 2:
        raise FormatError(f"not an RRF2 stream of protobuf messages: it starts with {header[:HEADER_SIZE]!r}")


def scan(read: Read, start: int, end: int) -> tuple[list[Frame], int]:
    """Return the whole frames within `[start, end)`, and the offset behind the last of them.

    An incomplete frame at the end is left for the next call. Nothing behind an `END` frame is read. Raises
    `DamagedError`.
    """
    frames: list[Frame] = []
    position = start
    while position + FRAME_HEADER_SIZE <= end:
        window = read(position, min(_SCAN_WINDOW, end - position))
        base = position
        if len(window) < FRAME_HEADER_SIZE:
            break
        while position - base + FRAME_HEADER_SIZE <= len(window):
            kind, size = _FRAME.unpack_from(window, position - base)
            if kind > BLUEPRINT_ACTIVATION:
                raise DamagedError(kind, position, frames)
            frame = Frame(kind, position, size)
            if frame.end > end:
                return frames, position
            frames.append(frame)
            position = frame.end
            if kind == END:
                return frames, position
    return frames, position


def frames_of(stream: bytes) -> list[Frame]:
    """Return the whole frames of `stream`, which begins with a header. Raises `DamagedError`."""
    return scan(lambda at, size: stream[at : at + size], HEADER_SIZE, len(stream))[0]


def whole(stream: bytes) -> bytes:
    """Return `stream` without an incomplete frame at its end; empty if no frame is whole. Raises `FormatError`."""
    check_header(stream[:HEADER_SIZE])
    try:
        frames = frames_of(stream)
    except DamagedError as error:
        frames = error.frames
    return stream[: frames[-1].end] if frames else b""


def frame_at(read: Read, start: int) -> Frame:
    """Return the frame whose header is at `start`; raises `FormatError` if there is none."""
    header = read(start, FRAME_HEADER_SIZE)
    if len(header) < FRAME_HEADER_SIZE:
        raise FormatError(f"no frame at offset {start}")
    kind, size = _FRAME.unpack(header)
    return Frame(kind, start, size)


def whole_frames(read: Read, start: int, end: int) -> tuple[bytes, int]:
    """Return the bytes of some whole frames from `start` on, without an `END`, and how many chunks they are.

    They are at least one frame of any size, and a few megabytes at most. They are empty if the stream is damaged, or
    has its `END` there. A hole in a file reads as zeros, which look like an end.
    """
    try:
        frames, stop = scan(read, start, min(end, start + SLICE_BYTES))
        if not frames:
            frames = [frame_at(read, start)]
            stop = frames[0].end
    except FormatError:
        return b"", 0
    if frames[-1].kind == END:
        stop = frames.pop().start
    data = read(start, stop - start)
    if stop > end or len(data) < stop - start:
        return b"", 0
    return data, sum(frame.kind == ARROW_MSG for frame in frames)


def footer_span(file: BinaryIO) -> tuple[int, int]:
    """Return the offset and the size of the footer of an open file.

    Raises `FormatError` if it has none, and `OSError` if it is shorter than any file with a footer.
    """
    file.seek(-STREAM_FOOTER_SIZE, os.SEEK_END)
    tail = file.read()
    if tail[_FOOTER_ENTRY.size :] != CLOSING:
        raise FormatError("a file without a footer")
    start, size, _ = _FOOTER_ENTRY.unpack_from(tail)
    return start, size


def is_finished(path: Path) -> bool:
    """Return whether a file ends with a footer; it may be growing, damaged or missing."""
    with contextlib.suppress(OSError, FormatError), path.open("rb") as file:
        footer_span(file)
        return True
    return False


# --- writing ------------------------------------------------------------------------------------------------------


def frame_header(kind: int, size: int) -> bytes:
    return _FRAME.pack(kind, size)


def closing(offset: int, manifests: list[bytes]) -> bytes:
    """Return the end of a file whose frames end at `offset`: the `END` frame and the stream footer."""
    # Imported here because only a parent that closes a file computes a hash.
    import xxhash

    footer = b"".join(encode_field(1, manifest) for manifest in manifests)
    entry = _FOOTER_ENTRY.pack(offset + FRAME_HEADER_SIZE, len(footer), xxhash.xxh32_intdigest(footer, seed=_CRC_SEED))
    return frame_header(END, len(footer)) + footer + entry + CLOSING

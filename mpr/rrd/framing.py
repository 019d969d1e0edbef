"""Finds the frames of an `.rrd` stream, and makes the headers of frames and the bytes that close a file.

Covers: the header, the frames and the footer of a stream.
Does not cover: store ids (`store_id.py`), protobuf messages (`protobuf.py`), the table of a manifest (`manifest.py`),
and the contents of a chunk, which only the SDK decodes.

A stream is a header of 12 bytes, and then frames. Each frame is `<kind: u64><length: u64><payload>`, little-endian. The
last frame of a complete stream is of the kind `END`. Its payload is the footer. Behind this frame there are 32 bytes.
The first 20 bytes are the offset (`u64`), the size (`u64`) and the hash (`u32`) of the footer. The other 12 bytes are
the mark `RRF2FOOT` and the number of footers (`u32`). mpr knows only streams with one footer.

Source: rerun-io/rerun, `crates/store/re_log_encoding/src/rrd/frames.rs` and
`re_protos/proto/rerun/v1alpha1/log_msg.proto`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mpr.errors import FormatError
from mpr.limits import FRAME_MAX_BYTES, SLICE_BYTES
from mpr.rrd.protobuf import encode_field

FOURCC = b"RRF2"
HEADER_SIZE = 12

# The kinds of frames: the footer, a store info, a chunk, and the message that makes a blueprint the active one.
END = 0
SET_STORE_INFO = 1
ARROW_MSG = 2
BLUEPRINT_ACTIVATION = 3

_FRAME = struct.Struct("<QQ")
FRAME_HEADER_SIZE = _FRAME.size
_FOOTER_ENTRY = struct.Struct("<QQI")
#: The last 12 bytes of a file: a mark, and the number of footers (one).
CLOSING = FOURCC + b"FOOT" + struct.pack("<I", 1)
STREAM_FOOTER_SIZE = _FOOTER_ENTRY.size + len(CLOSING)
# The seed of the hash of a footer. Source: `StreamFooter::CRC_SEED` of the SDK's `frames.rs`.
_CRC_SEED = 7850921

# The number of bytes that `scan` reads at a time. One read finds the headers of many small frames. Most of the payload
# of a large frame is not read.
_SCAN_WINDOW = 64 * 1024

Read = Callable[[int, int], bytes]
"""`read(offset, size)`: up to `size` bytes of a stream, fewer only at its end."""


class Frame(NamedTuple):
    """The place of one frame in a stream, and its kind.

    `kind` is one of four constants of this module, such as `ARROW_MSG`, if the header is not damaged. `start` is the
    offset of the frame's header, which has 16 bytes. `size` is the length of the payload behind the header, in bytes.
    """

    kind: int
    start: int
    size: int

    @property
    def payload(self) -> int:
        """The offset of the payload, in bytes from the beginning of the stream."""
        return self.start + FRAME_HEADER_SIZE

    @property
    def end(self) -> int:
        """The offset of the first byte after the frame."""
        return self.start + FRAME_HEADER_SIZE + self.size


class DamagedError(FormatError):
    """Raised if a stream has bytes that cannot be a frame, because the kind is unknown or the size is impossible.

    A size of more than `FRAME_MAX_BYTES` (8 GiB) is impossible. `frames` are the whole frames that the search has found
    before these bytes.
    """

    def __init__(self, kind: int, position: int, frames: list[Frame]) -> None:
        reason = f"unknown frame kind {kind}" if kind > BLUEPRINT_ACTIVATION else "impossible size of a frame"
        super().__init__(f"{reason} at offset {position}")
        self.frames = frames


def check_header(header: bytes) -> None:
    """Raise `FormatError` if `header` does not begin with the header of a stream of protobuf messages.

    The version of the SDK in the header is not checked.
    """
    if len(header) < HEADER_SIZE or header[:4] != FOURCC or header[9] != 2:
        raise FormatError(f"not an RRF2 stream of protobuf messages: it starts with {header[:HEADER_SIZE]!r}")


def scan(read: Read, start: int, end: int) -> tuple[list[Frame], int]:
    """Return the whole frames of a stream within the bytes `[start, end)`, and the offset behind the last one.

    `start` is the offset of a frame. If no frame is whole, the returned offset is `start`. An incomplete frame at the
    end is left out. The search ends at an `END` frame. Raises `DamagedError` if there are bytes that cannot be a
    frame.
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
            if kind > BLUEPRINT_ACTIVATION or size > FRAME_MAX_BYTES:
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
    """Return the whole frames of `stream`, also its `END` frame. `stream` begins with a header, which is not checked.

    Raises `DamagedError` if there are bytes that cannot be a frame.
    """
    return scan(lambda at, size: stream[at : at + size], HEADER_SIZE, len(stream))[0]


def whole(stream: bytes) -> bytes:
    """Return `stream` up to the end of its last whole frame, or empty bytes if no frame is whole.

    Bytes that cannot be a frame are left out, with everything behind them. Raises `FormatError` if the header has an
    unknown format.
    """
    check_header(stream[:HEADER_SIZE])
    try:
        frames = frames_of(stream)
    except DamagedError as error:
        frames = error.frames
    return stream[: frames[-1].end] if frames else b""


def frame_at(read: Read, start: int) -> Frame:
    """Return the frame whose header is at the offset `start`. Its payload may be incomplete.

    The kind and the size are not checked. Raises `FormatError` if there are fewer than the 16 bytes of a frame's
    header.
    """
    header = read(start, FRAME_HEADER_SIZE)
    if len(header) < FRAME_HEADER_SIZE:
        raise FormatError(f"no frame at offset {start}")
    kind, size = _FRAME.unpack(header)
    return Frame(kind, start, size)


def whole_frames(read: Read, start: int, end: int) -> tuple[bytes, int]:
    """Return the bytes of the next whole frames from `start` on, and the number of chunks in these frames.

    Only bytes before the offset `end` are returned, and `SLICE_BYTES` at most, unless the first frame is larger. An
    `END` frame is left out. Returns empty bytes and 0 if there is no whole frame before the `END` frame, or if bytes
    within this range cannot be a frame.
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
    # Nothing is read beyond `end`, because a damaged size may be larger than the memory.
    data = read(start, stop - start) if stop <= end else b""
    if len(data) < stop - start:
        return b"", 0
    return data, sum(frame.kind == ARROW_MSG for frame in frames)


def footer_span(file: BinaryIO) -> tuple[int, int]:
    """Return the offset and the size in bytes of the footer of the open file `file`.

    Raises `FormatError` if the file has no footer, and `OSError` if it has fewer than 32 bytes.
    """
    file.seek(-STREAM_FOOTER_SIZE, os.SEEK_END)
    tail = file.read()
    if tail[_FOOTER_ENTRY.size :] != CLOSING:
        raise FormatError("a file without a footer")
    start, size, _ = _FOOTER_ENTRY.unpack_from(tail)
    return start, size


def is_finished(path: Path) -> bool:
    """Return True if the file at `path` ends with the mark of a footer, and False if it does not or cannot be read."""
    with contextlib.suppress(OSError, FormatError), path.open("rb") as file:
        footer_span(file)
        return True
    return False


# --- writing ------------------------------------------------------------------------------------------------------


def frame_header(kind: int, size: int) -> bytes:
    """Return the 16 bytes of the header of a frame of the kind `kind`, whose payload has `size` bytes."""
    return _FRAME.pack(kind, size)


def closing(offset: int, manifests: list[bytes]) -> bytes:
    """Return the bytes that close a file: the `END` frame, and the 32 bytes behind it.

    `offset` is the offset of the `END` frame. `manifests` are encoded manifests, one for each store.
    """
    footer = b"".join(encode_field(1, manifest) for manifest in manifests)
    return frame_header(END, len(footer)) + footer + stream_footer(offset + FRAME_HEADER_SIZE, footer)


def stream_footer(offset: int, footer: bytes) -> bytes:
    """Return the 32 bytes behind the `END` frame (see the docstring of this module).

    `footer` is the payload of the `END` frame, and `offset` is the offset of this payload.
    """
    return _FOOTER_ENTRY.pack(offset, len(footer), _hash_function()(footer, seed=_CRC_SEED)) + CLOSING


@functools.cache
def _hash_function() -> Callable[..., int]:
    """Return the hash function of footers. It is kept, because code under test may break a second import."""
    # Imported here because only a parent computes a hash.
    import xxhash

    return xxhash.xxh32_intdigest

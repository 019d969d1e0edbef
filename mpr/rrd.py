"""The bytes of an `.rrd` file: frames, the few protobuf messages that mpr reads, header and footer.

Covers: finding the frames of a stream, the store id of a message, the closing frames of a file.
Does not cover: what is inside a chunk (mpr never decodes one) and the manifest's table (`manifest.py`).

A stream is a 12-byte header and then frames, each `<kind: u64><length: u64><payload>`. The last frame (kind `END`)
holds the footer, followed by 20 bytes per footer and `RRF2FOOT<count: u32>`. Source: rerun-io/rerun,
`crates/store/re_log_encoding/src/rrd/frames.rs` and `re_protos/proto/rerun/v1alpha1/log_msg.proto`.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mpr.errors import FormatError
from mpr.limits import SLICE_BYTES

FOURCC = b"RRF2"
HEADER_SIZE = 12

END = 0
SET_STORE_INFO = 1
ARROW_MSG = 2
BLUEPRINT_ACTIVATION = 3

_FRAME = struct.Struct("<QQ")
FRAME_HEADER_SIZE = _FRAME.size
_FOOTER_ENTRY = struct.Struct("<QQI")
#: What follows the `END` frame: one entry, the mark, and the number of entries.
_CLOSING = FOURCC + b"FOOT" + struct.pack("<I", 1)
STREAM_FOOTER_SIZE = _FOOTER_ENTRY.size + len(_CLOSING)
# `StreamFooter::CRC_SEED` of the SDK's `frames.rs`.
_CRC_SEED = 7850921

# `StoreKind` of the SDK.
_RECORDING = 1

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
    """A stream that goes on with bytes that are no frame; `frames` are the whole ones before them."""

    def __init__(self, kind: int, position: int, frames: list[Frame]) -> None:
        super().__init__(f"unknown frame kind {kind} at offset {position}")
        self.frames = frames


def check_header(header: bytes) -> None:
    """Raise `FormatError` where `header` does not open a stream of the known format."""
    if len(header) < HEADER_SIZE or header[:4] != FOURCC or header[9] != 2:
        raise FormatError(f"not an RRF2 stream of protobuf messages: it starts with {header[:HEADER_SIZE]!r}")


def scan(read: Read, start: int, end: int) -> tuple[list[Frame], int]:
    """The whole frames within `[start, end)`, and the offset behind the last of them.

    A torn frame at the end is left for the next call. Nothing behind an `END` frame is read. Raises `DamagedError`.
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
    """The whole frames of `stream`, which begins with a header. Raises `DamagedError`."""
    return scan(lambda at, size: stream[at : at + size], HEADER_SIZE, len(stream))[0]


def whole(stream: bytes) -> bytes:
    """`stream` without a torn frame at its end; empty where it has no whole one. Raises `FormatError`."""
    check_header(stream[:HEADER_SIZE])
    try:
        frames = frames_of(stream)
    except DamagedError as error:
        frames = error.frames
    return stream[: frames[-1].end] if frames else b""


def frame_at(read: Read, start: int) -> Frame:
    """The frame whose header is at `start`; raises `FormatError` where there is none."""
    header = read(start, FRAME_HEADER_SIZE)
    if len(header) < FRAME_HEADER_SIZE:
        raise FormatError(f"no frame at offset {start}")
    kind, size = _FRAME.unpack(header)
    return Frame(kind, start, size)


def whole_frames(read: Read, start: int, end: int) -> tuple[bytes, int]:
    """Some whole frames from `start` on, without an `END`, and how many chunks they are.

    At least one, whatever its size, and a few megabytes at most. None where they cannot be had: where the stream is
    damaged, or has its `END` there. In a hole of a file zeros are read, which look like an end.
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


# --- protobuf: enough to read ids and to write a footer -----------------------------------------------------------


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise FormatError("a protobuf message ends within a number")


def _spans(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """The fields of one message as (tag, where it starts, where its value starts, where it ends)."""
    end = 0
    while end < len(data):
        start = end
        tag, position = _varint(data, start)
        kind = tag & 7
        if kind == 0:
            _, end = _varint(data, position)
        elif kind == 2:
            size, position = _varint(data, position)
            end = position + size
        elif kind in (1, 5):
            end = position + (8 if kind == 1 else 4)
        else:
            raise FormatError(f"protobuf wire type {kind}")
        if end > len(data):
            raise FormatError("a protobuf field ends beyond its message")
        yield tag, start, position, end


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of one protobuf message as (number, value); a nested message is its bytes."""
    for tag, _, position, end in _spans(data):
        yield tag >> 3, data[position:end] if tag & 7 else _varint(data, position)[0]


def field(data: bytes, number: int) -> bytes:
    """The nested message or bytes in field `number`; raises `FormatError` where there is none."""
    for found, value in fields(data):
        if found == number and isinstance(value, bytes):
            return value
    raise FormatError(f"a protobuf message lacks field {number}")


def leading_field(data: bytes) -> tuple[bytes, int]:
    """The nested message or bytes that a message begins with, in field 1, and where it ends; `data` may be torn."""
    if data[:1] != b"\x0a":
        raise FormatError("a message does not begin with its store id")
    size, position = _varint(data, 1)
    end = position + size
    if end > len(data):
        raise FormatError("a store id that is too long")
    return data[position:end], end


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _encode_varint(number << 3) + _encode_varint(value)
    return _encode_varint(number << 3 | 2) + _encode_varint(len(value)) + value


def replace_field(data: bytes, number: int, value: bytes) -> bytes:
    """The message `data` with `value` in its nested field `number`; the other fields keep their bytes and places."""
    for tag, start, _, end in _spans(data):
        if tag == number << 3 | 2:
            return data[:start] + encode_field(number, value) + data[end:]
    raise FormatError(f"a protobuf message lacks field {number}")


def store_id_of_info(payload: bytes) -> bytes:
    """The encoded `StoreId` of a `SetStoreInfo` message (its `info.store_id`)."""
    return field(field(payload, 2), 2)


def store_id_of_chunk(payload: bytes) -> bytes:
    """The encoded `StoreId` of an `ArrowMsg`."""
    return field(payload, 1)


def recording_of_stream(data: bytes, frames: list[Frame]) -> bytes | None:
    """The encoded `StoreId` of the recording in a stream; None where there is none, but at most a blueprint."""
    for frame in frames:
        payload = data[frame.payload : frame.end]
        if frame.kind == SET_STORE_INFO:
            store = store_id_of_info(payload)
        elif frame.kind == ARROW_MSG:
            store = store_id_of_chunk(payload)
        else:
            continue
        if dict(fields(store)).get(1) == _RECORDING:
            return store
    return None


def ids_of_store(store: bytes) -> tuple[str, str]:
    """The application id and the recording id in an encoded `StoreId`."""
    return field(field(store, 3), 1).decode(), field(store, 2).decode()


def chunk_id(payload: bytes) -> bytes:
    """The id of the chunk in an `ArrowMsg`, in the form that manifests have it (16 bytes, big-endian)."""
    halves = dict(fields(field(payload, 6)))
    return b"".join(bytes(reversed(half)) for half in (halves[1], halves[2]) if isinstance(half, bytes))


def footer_span(file: BinaryIO) -> tuple[int, int]:
    """Where the footer of an open file is: its offset and its size.

    Raises `FormatError` where it has none, and `OSError` where it is shorter than any that has one.
    """
    file.seek(-STREAM_FOOTER_SIZE, os.SEEK_END)
    tail = file.read()
    if tail[_FOOTER_ENTRY.size :] != _CLOSING:
        raise FormatError("a file without a footer")
    start, size, _ = _FOOTER_ENTRY.unpack_from(tail)
    return start, size


def is_finished(path: Path) -> bool:
    """Whether a file ends as whole ones do, with a footer; it may be growing, damaged or not there at all."""
    with contextlib.suppress(OSError, FormatError), path.open("rb") as file:
        footer_span(file)
        return True
    return False


# --- writing ------------------------------------------------------------------------------------------------------


def frame_header(kind: int, size: int) -> bytes:
    return _FRAME.pack(kind, size)


def closing(offset: int, manifests: list[bytes]) -> bytes:
    """Everything that ends a file whose frames end at `offset`: the `END` frame and the stream footer."""
    # Imported here because only a parent that closes a file hashes anything.
    import xxhash

    footer = b"".join(encode_field(1, manifest) for manifest in manifests)
    entry = _FOOTER_ENTRY.pack(offset + FRAME_HEADER_SIZE, len(footer), xxhash.xxh32_intdigest(footer, seed=_CRC_SEED))
    return frame_header(END, len(footer)) + footer + entry + _CLOSING

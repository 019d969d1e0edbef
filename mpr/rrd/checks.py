"""Checks the bytes that a producer (a process that logs) has sent, before a sink gets them. Decodes no row.

If a checked part is damaged, the checks raise `FormatError`. Without the checks, damaged bytes of one process could
make the file with the rows of all processes unreadable.

Covers: the store id at the beginning of each frame's payload, the footer of a stream, the bytes behind the footer.
Does not cover: finding frames (`framing.py`), and the contents of a chunk, which only the SDK can check.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from mpr.errors import FormatError
from mpr.rrd import compat, framing, manifest, protobuf, store_id
from mpr.rrd.framing import ARROW_MSG, SET_STORE_INFO, Frame, Read
from mpr.rrd.segment import MessageBytes

# The store id is read from this many bytes at the beginning of a chunk's payload. Even the longest ids fit into them.
_HEAD_BYTES = 8192
# The largest payload of a frame that is no chunk (bytes). Usually it has some hundred bytes.
_INFO_MAX = 1024 * 1024


class FrameCheck:
    """Checks the frames of one outbox. It keeps the last store id, because most frames have this id again."""

    def __init__(self) -> None:
        # The first bytes of the last chunk's payload, up to the end of its store id. Most chunks begin with the same
        # bytes as the chunk before.
        self._known = b""

    def check(self, read: Read, frames: Iterable[Frame]) -> None:
        """Raise `FormatError` if one of `frames` has no valid store id, or has more than 1 MiB and is no chunk.

        `read` reads the outbox. No frame in `frames` is of the kind `END`.
        """
        for frame in frames:
            if frame.kind == ARROW_MSG:
                known = self._known
                if not known or read(frame.payload, len(known)) != known:
                    self._known = _store_id_field(read(frame.payload, min(frame.size, _HEAD_BYTES)))
            elif frame.size > _INFO_MAX:
                raise FormatError(f"a frame of kind {frame.kind} with {frame.size} bytes")
            elif frame.kind == SET_STORE_INFO:
                _check_store(store_id.store_id_of_info(read(frame.payload, frame.size)))
            else:
                _check_store(protobuf.field(read(frame.payload, frame.size), 1))


def _store_id_field(payload: bytes) -> bytes:
    """Return `payload`, the beginning of a chunk's payload, up to the end of its store id.

    Raises `FormatError` if `payload` does not begin with a valid store id.
    """
    store, end = protobuf.leading_field(payload)
    _check_store(store)
    return payload[:end]


def _check_store(store: bytes) -> None:
    """Raise `FormatError` if `store` is no encoded store id, or if its ids are not valid UTF-8."""
    try:
        store_id.ids_of_store(store)
    except UnicodeDecodeError as error:
        raise FormatError(f"a store id that is no text: {error}") from error


def knows_format() -> bool:
    """Return True if mpr can read the streams of the installed SDK (see `compat.format_is_known`)."""
    return compat.format_is_known() is None


def closed_footer(read: Read, last: Frame, end: int) -> bytes | None:
    """Return the footer of a stream, which is the payload of its `END` frame `last`.

    `read` reads the stream, which has `end` bytes. Returns None if some of the 32 bytes behind the `END` frame are not
    there yet. Raises `FormatError` if the bytes behind the `END` frame are not exactly the 32 that fit the footer.
    """
    if end < last.end + framing.STREAM_FOOTER_SIZE:
        return None
    footer = read(last.payload, last.size)
    if read(last.end, end - last.end) != framing.stream_footer(last.payload, footer):
        raise FormatError(f"the end of a stream at offset {last.start} is damaged")
    return footer


def unknown_footer(read: Read, last: Frame, end: int) -> bytes | None:
    """Return the footer of a stream in a format that mpr does not know, which is the payload of its `END` frame `last`.

    `read` reads the stream, which has `end` bytes. Returns None if there is no byte behind the `END` frame yet. Raises
    `FormatError` if the next 32 bytes are zeros, because zeros stand in place of missing bytes.
    """
    if end == last.end:
        return None
    if not any(read(last.end, framing.STREAM_FOOTER_SIZE)):
        raise FormatError(f"zeros at offset {last.start} where rows should be")
    return read(last.payload, last.size)


def check_footer(footer: bytes) -> None:
    """Raise `FormatError` if the manifests in `footer` or their columns cannot be read. An empty footer is fine."""
    if footer:
        manifest.parse(footer)
        for _ in manifest.schemas(footer):
            pass


def check_stream(stream: bytes) -> tuple[list[Frame], bytes, bytes | None]:
    """Check the bytes of a whole stream. Return its frames without the `END` frame, its footer, and a store id.

    The store id is the encoded id of the first recording, or None if the stream has only blueprints. Raises
    `FormatError` if `stream` is incomplete, or if a checked part is damaged. The contents of chunks are not checked. If
    mpr does not know the format, the payloads and the footer are not checked.
    """
    framing.check_header(stream[: framing.HEADER_SIZE])
    frames = framing.frames_of(stream)
    if not frames or frames[-1].kind != framing.END:
        raise FormatError("a stream without an end")
    last = frames.pop()
    footer: bytes | None = stream[last.payload : last.end]
    if knows_format():
        read = MessageBytes(0, stream).read
        footer = closed_footer(read, last, len(stream))
        FrameCheck().check(read, frames)
        check_footer(footer or b"")
    if footer is None:
        raise FormatError("a stream that is cut")
    try:
        store = store_id.recording_of_stream(stream, frames)
    except (struct.error, IndexError) as error:
        raise FormatError(f"a stream of no recording: {error}") from error
    return frames, footer, store

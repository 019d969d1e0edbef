"""Checks the bytes of a producer before a sink gets them, without decoding a row.

Covers: the beginnings of frames, the bytes that close a stream, its footer.
Does not cover: finding frames (`framing.py`), and the contents of a chunk. Only the SDK can check these.

A sink copies frames as they are. If one of them had no store id, or a store info could not be read, the whole file
would be unreadable, with the rows of all other producers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from mpr.errors import FormatError
from mpr.rrd import compat, framing, manifest, protobuf, store_id
from mpr.rrd.framing import ARROW_MSG, SET_STORE_INFO, Frame, Read
from mpr.rrd.segment import MessageBytes

# Even the longest ids fit into this many bytes. A store info has a hundred bytes, and the versions of some programs.
_HEAD_BYTES = 8192
_INFO_MAX = 1024 * 1024


class FrameCheck:
    """Checks the frames of one outbox."""

    def __init__(self) -> None:
        # The first bytes of the last chunk, which are its store id. The next chunk has the same, as a rule.
        self._known = b""

    def check(self, read: Read, frames: Iterable[Frame]) -> None:
        """Raise `FormatError` if the payload of a frame does not begin as its kind requires."""
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
    """Return the beginning of a chunk up to the end of its store id. Raises `FormatError` if there is none."""
    store, end = protobuf.leading_field(payload)
    _check_store(store)
    return payload[:end]


def _check_store(store: bytes) -> None:
    """Raise `FormatError` if `store` is no encoded store id, whose parts are texts."""
    try:
        store_id.ids_of_store(store)
    except UnicodeDecodeError as error:
        raise FormatError(f"a store id that is no text: {error}") from error


def knows_format() -> bool:
    """Whether streams can be checked, because the format of the installed SDK is known. If not, the SDK checks them."""
    return compat.format_is_known() is None


def closed_footer(read: Read, last: Frame, end: int) -> bytes | None:
    """Return the footer of a stream, which is the payload of its `END` frame `last`.

    Returns None if the bytes that close the stream are not all there before `end`. Raises `FormatError` if they do not
    fit the footer, which is so if the frame is a hole, or if other bytes follow.
    """
    if end < last.end + framing.STREAM_FOOTER_SIZE:
        return None
    footer = read(last.payload, last.size)
    if read(last.end, end - last.end) != framing.stream_footer(last.payload, footer):
        raise FormatError(f"the end of a stream at offset {last.start} is damaged")
    return footer


def unknown_footer(read: Read, last: Frame, end: int) -> bytes | None:
    """Do as `closed_footer` for a stream whose format is not known. Raises `FormatError` only if zeros follow."""
    if end == last.end:
        return None
    if not any(read(last.end, framing.STREAM_FOOTER_SIZE)):
        raise FormatError(f"zeros at offset {last.start} where rows should be")
    return read(last.payload, last.size)


def check_footer(footer: bytes) -> None:
    """Raise `FormatError` if the manifests in `footer` cannot be read."""
    if footer:
        manifest.parse(footer)
        for _ in manifest.schemas(footer):
            pass


def check_stream(stream: bytes) -> tuple[list[Frame], bytes, bytes | None]:
    """Check a whole stream. Returns its frames without the last one, its footer, and the id of its first recording.

    Raises `FormatError` if it is no whole stream.
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

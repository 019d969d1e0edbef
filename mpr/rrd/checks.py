"""Checks the bytes that a producer (a process that logs) has sent, before a sink gets them. Decodes no row.

If the bytes are damaged, the checks raise `FormatError`.

Covers: the store id at the beginning of each frame's payload, the footer of a stream, the bytes behind the footer.
Does not cover: finding frames (`framing.py`), and the contents of a chunk, which only the SDK can check.

A sink copies frames without a change. If one process sends a frame without a store id, or with a damaged store info,
the whole file becomes unreadable. Then the rows of all other processes are lost, too.
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
    """Checks the frames of one outbox. Remembers the last store id, so that most chunks are checked fast."""

    def __init__(self) -> None:
        # The first bytes of the last chunk's payload, up to the end of its store id. Most chunks begin with the same
        # bytes as the chunk before.
        self._known = b""

    def check(self, read: Read, frames: Iterable[Frame]) -> None:
        """Raise `FormatError` if a payload in `frames` does not begin with the fields that its kind must have.

        Also raises `FormatError` if a frame that is no chunk has more than 1 MiB. `read` reads the outbox.
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
    """Return the payload of a chunk up to the end of its store id. Raises `FormatError` if there is no store id."""
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
    """Return True if mpr knows the format of the installed SDK, so that mpr can check its streams itself."""
    return compat.format_is_known() is None


def closed_footer(read: Read, last: Frame, end: int) -> bytes | None:
    """Return the footer of a stream: the payload of its `END` frame `last`.

    `read` reads the stream, which has bytes up to the offset `end`. Returns None if some of the 32 bytes that close the
    stream behind the `END` frame are not there yet.

    Raises `FormatError` if the bytes behind the `END` frame do not fit this footer, or if more than 32 bytes follow.
    This also happens if zeros stand in place of missing bytes, because zeros look like an `END` frame.
    """
    if end < last.end + framing.STREAM_FOOTER_SIZE:
        return None
    footer = read(last.payload, last.size)
    if read(last.end, end - last.end) != framing.stream_footer(last.payload, footer):
        raise FormatError(f"the end of a stream at offset {last.start} is damaged")
    return footer


def unknown_footer(read: Read, last: Frame, end: int) -> bytes | None:
    """Return the footer of a stream whose format mpr does not know: the payload of its `END` frame `last`.

    `read` reads the stream, which has bytes up to the offset `end`. Returns None if there is no byte behind the `END`
    frame yet. Raises `FormatError` if only zeros are behind it, because these zeros stand in place of missing bytes.
    """
    if end == last.end:
        return None
    if not any(read(last.end, framing.STREAM_FOOTER_SIZE)):
        raise FormatError(f"zeros at offset {last.start} where rows should be")
    return read(last.payload, last.size)


def check_footer(footer: bytes) -> None:
    """Raise `FormatError` if the manifests in `footer` cannot be read. An empty footer is accepted."""
    if footer:
        manifest.parse(footer)
        for _ in manifest.schemas(footer):
            pass


def check_stream(stream: bytes) -> tuple[list[Frame], bytes, bytes | None]:
    """Check the bytes of a whole stream. Return its frames without the `END` frame, its footer, and a store id.

    The store id is the encoded id of the first recording, or None if the stream has only blueprints. Raises
    `FormatError` if `stream` is incomplete or damaged. If mpr does not know the format, only the frames are checked.
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

"""Cuts a growing stream into parts, for viewers that get data piece by piece.

Covers: the places at which to cut.
Does not cover: waiting for more bytes (`byte_log.py`).
"""

from __future__ import annotations

from mpr.rrd import framing


class Slices:
    """Cuts the stream that `read` reads into parts. Each part is a stream of whole frames that can be read alone.

    Each part begins with the header of the stream, and with the store infos of all parts before.
    """

    def __init__(self, read: framing.Read) -> None:
        self._read = read
        self._position = framing.HEADER_SIZE
        # The header and the store infos of the parts before. A store info has the ids of a recording. Each part begins
        # with these bytes, because a reader of this part alone needs the ids.
        self._head = b""

    def next(self, end: int) -> bytes:
        """Return the next part within the first `end` bytes of the stream, or empty bytes if there is no part yet.

        The new frames in a part have `SLICE_BYTES` (4 MiB) at most, unless a single frame is larger. The `END` frame
        and the bytes behind it are not returned. If the next `SLICE_BYTES` of the stream have bytes that cannot be a
        frame, returns empty bytes.
        """
        if end <= self._position:
            return b""
        data, _ = framing.whole_frames(self._read, self._position, end)
        if not data:
            # There is no whole frame yet, or only the `END` frame and the bytes behind it are left.
            return b""
        self._position += len(data)
        part = (self._head or self._read(0, framing.HEADER_SIZE)) + data
        infos = (
            part[frame.start : frame.end] for frame in framing.frames_of(part) if frame.kind == framing.SET_STORE_INFO
        )
        self._head = part[: framing.HEADER_SIZE] + b"".join(infos)
        return part


class Pieces:
    """Cuts the stream that `read` reads into pieces of `size` bytes at most. A piece may end within a frame."""

    def __init__(self, read: framing.Read, size: int) -> None:
        self._read = read
        self._size = size
        self._position = 0

    def next(self, end: int) -> bytes:
        """Return the next piece within the first `end` bytes of the stream, or empty bytes if none is left."""
        data = self._read(self._position, min(self._size, end - self._position))
        self._position += len(data)
        return data

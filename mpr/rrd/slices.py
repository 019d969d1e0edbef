"""Cuts a growing stream into streams that can each be read without those before them.

Viewers that get data piece by piece need this.

Covers: the places at which to cut. Does not cover: waiting for more (`byte_log.py`).
"""

from __future__ import annotations

from mpr.rrd import framing


class Slices:
    """Cuts the stream that `read` reads into parts of whole frames."""

    def __init__(self, read: framing.Read) -> None:
        self._read = read
        self._position = framing.HEADER_SIZE
        # Header and store infos of the parts before, from which a reader learns which recordings there are.
        self._head = b""

    def next(self, end: int) -> bytes:
        """Return the next part within the first `end` bytes, a few megabytes at most; empty if there is none yet."""
        if end <= self._position:
            return b""
        data, _ = framing.whole_frames(self._read, self._position, end)
        if not data:
            # After the last frame comes the stream's own end.
            return b""
        self._position += len(data)
        part = (self._head or self._read(0, framing.HEADER_SIZE)) + data
        infos = (
            part[frame.start : frame.end] for frame in framing.frames_of(part) if frame.kind == framing.SET_STORE_INFO
        )
        self._head = part[: framing.HEADER_SIZE] + b"".join(infos)
        return part


class Pieces:
    """Cuts the stream that `read` reads into pieces of `size` bytes at most, without regard to frames."""

    def __init__(self, read: framing.Read, size: int) -> None:
        self._read = read
        self._size = size
        self._position = 0

    def next(self, end: int) -> bytes:
        """Return the next piece within the first `end` bytes; empty if there is none yet."""
        data = self._read(self._position, min(self._size, end - self._position))
        self._position += len(data)
        return data

"""A stream that grows in a file, cut into streams of their own: each can be read without those before it.

Viewers that are fed piece by piece want it so.

Covers: where to cut. Does not cover: waiting for more (`sinks/binary_stream.py`, `recording/replay.py`).
"""

from __future__ import annotations

from mpr.rrd import framing


class Slices:
    """The parts of the stream behind `read`, one after the other."""

    def __init__(self, read: framing.Read) -> None:
        self._read = read
        self._position = framing.HEADER_SIZE
        # Header and store infos of the parts before: a reader asks them which recordings there are.
        self._head = b""

    def next(self, end: int) -> bytes:
        """The next part within the first `end` bytes, a few megabytes at most; empty where there is none, yet."""
        if end <= self._position:
            return b""
        data, _ = framing.whole_frames(self._read, self._position, end)
        if not data:
            # Behind the last frame there is the stream's own end.
            return b""
        self._position += len(data)
        part = (self._head or self._read(0, framing.HEADER_SIZE)) + data
        infos = (
            part[frame.start : frame.end] for frame in framing.frames_of(part) if frame.kind == framing.SET_STORE_INFO
        )
        self._head = part[: framing.HEADER_SIZE] + b"".join(infos)
        return part


class Pieces:
    """As `Slices`, of the same bytes as they are, one behind the other."""

    def __init__(self, read: framing.Read, size: int) -> None:
        self._read = read
        self._size = size
        self._position = 0

    def next(self, end: int) -> bytes:
        """The next piece within the first `end` bytes, of `size` at most; empty where there is none, yet."""
        data = self._read(self._position, min(self._size, end - self._position))
        self._position += len(data)
        return data

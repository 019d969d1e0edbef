"""What the durable sinks have accepted, once more, for live sinks that come later or take longer.

Covers: where the bytes are (a file that a `FileSink` writes anyway, else a bounded memory ring in memory), how many
chunks.
Does not cover: who reads them when (`supervisor.py`, `exporter.py`).

A replay log has a head (header, store infos, properties, blueprint), which every reader gets first, and files of the
log with frames.
Usually there is one file of the log, the file. Where there is no file, or it fails, what comes goes to a memory ring: a
file in memory
that drops its oldest segments. It says in its first 8 bytes how far it has dropped, and says so before it does: a
reader who finds that number unchanged behind what he has read, has read what was written.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from pathlib import Path

from mpr.limits import REPLAY_MAX_BYTES
from mpr.rrd import framing, store_id
from mpr.rrd.byte_log import ByteLog
from mpr.rrd.segment import Segment, runs
from mpr.transport.outbox import Outbox

_MARK = struct.Struct("<Q")
_MEMORY_START = 4096


class LogFile:
    """A file with frames from `start` to `end`, at which it grows. The end is that of a whole frame."""

    is_memory = False

    def __init__(self, fd: int, start: int) -> None:
        # Its own: the file may be closed for having failed, and what it has is good all the same.
        self.fd = os.dup(fd)
        self.start = start
        self.end = start

    def close(self) -> None:
        os.close(self.fd)


class MemoryRing(LogFile):
    """A file of the log in memory with the newest segments."""

    is_memory = True

    def __init__(self, folder: Path) -> None:
        self._file = Outbox(folder)
        super().__init__(self._file.fd, _MEMORY_START)
        self._segments: deque[tuple[int, int]] = deque()
        self._mark()

    def accept(self, segment: Segment) -> None:
        """Copy the frames of `segment`; where memory does not suffice, they are missing."""
        end = self.end
        os.lseek(self.fd, end, os.SEEK_SET)
        try:
            for start, stop in runs(segment.frames):
                segment.source.copy(self.fd, start, stop - start)
                end += stop - start
        except OSError:
            os.ftruncate(self.fd, self.end)
            return
        self._segments.append((self.end, end))
        while end - self._segments[0][0] > REPLAY_MAX_BYTES and len(self._segments) > 1:
            first, last = self._segments.popleft()
            self.start = last
            self._mark()
            self._file.release(first, last)
        self.end = end

    def _mark(self) -> None:
        os.pwrite(self.fd, _MARK.pack(self.start), 0)

    def close(self) -> None:
        super().close()
        self._file.close()


def dropped_until(fd: int) -> int:
    """How far the memory ring behind `fd` has dropped what it had; may be asked in another process."""
    return int(_MARK.unpack(os.pread(fd, _MARK.size, 0))[0])


class ReplayLog:
    """Everything that was accepted, as far as it is kept. The aggregator's thread writes, others may look.

    Parameters
    ----------
    head:
        A stream without its end: header, store infos, properties, blueprint.
    file:
        The log of a file that has it all, which other processes can read; None where there is none.
    folder:
        For files that nobody else sees.
    """

    def __init__(self, head: bytes, file: ByteLog | None, folder: Path) -> None:
        self._head = head
        self._stores: set[bytes] = set()
        self._file = file
        self._folder = folder
        self._memory_ring: MemoryRing | None = None
        self.sources: list[LogFile] = []
        self.chunks = 0
        if file is not None and file.shared_fd is not None:
            self.sources.append(LogFile(file.shared_fd, file.end))

    @property
    def head(self) -> bytes:
        return self._head

    def accepted(self, segment: Segment) -> None:
        """The writers have `segment`, those that have not failed."""
        if self._file is not None and self._file.end > self.sources[0].end:
            self.sources[0].end = self._file.end
        else:
            # It went to another file, or this one has failed.
            if self._memory_ring is None:
                self._memory_ring = MemoryRing(self._folder)
                self.sources.append(self._memory_ring)
            self._note_stores(segment)
            self._memory_ring.accept(segment)
        self.chunks += sum(frame.kind == framing.ARROW_MSG for frame in segment.frames)

    def _note_stores(self, segment: Segment) -> None:
        """A memory ring drops its beginning; which stores there are must not be lost with it."""
        for frame in segment.frames:
            if frame.kind == framing.SET_STORE_INFO:
                info = segment.source.read(frame.start, frame.end - frame.start)
                store = store_id.store_id_of_info(info[framing.FRAME_HEADER_SIZE :])
                if store not in self._stores:
                    self._stores.add(store)
                    self._head += info

    def close(self) -> None:
        for source in self.sources:
            source.close()

"""Keeps the rows that the durable sinks have accepted, for live sinks that connect late or are slow.

The readers of the log are exporters: the processes that send rows to live sinks. Words of the file format, such as
frame and segment, are in `rrd/__init__.py`.

A replay log has one or two files with frames. Usually there is one file, which belongs to a `FileSink`. If there is no
such file, or if its writer fails, new rows go to a memory ring: a file in memory that drops its oldest segments. Rows
of recordings that tasks make themselves go there, too, because the file does not get them.

The first 8 bytes of the ring are a mark: the offset up to which bytes are dropped. The ring writes the mark before it
drops bytes. A reader first reads frames, and then the mark. The frames are valid if they do not begin before this
offset.
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

# The form of the mark in the first 8 bytes of a memory ring.
_MARK = struct.Struct("<Q")
# The frames in a memory ring begin at this offset, so that they lie on other pages of memory than the mark.
_MEMORY_START = 4096


class LogFile:
    """A file of a replay log, with whole frames from the offset `start` to the offset `end`.

    New frames follow at `end`. `fd` is a descriptor of the file, of which this object makes a copy.
    """

    is_memory = False

    def __init__(self, fd: int, start: int) -> None:
        # A copy of the descriptor, because the writer closes its own one if the file fails. The rows in the file are
        # still valid then.
        self.fd: int = os.dup(fd)
        self.start = start
        self.end: int = start

    def grow(self, end: int) -> None:
        """Set `end`, because the file now has whole frames up to this offset."""
        self.end = end

    def close(self) -> None:
        """Close this object's own descriptor of the file."""
        fd, self.fd = self.fd, -1
        os.close(fd)


class MemoryRing(LogFile):
    """A file in memory with the newest segments, which have up to `REPLAY_MAX_BYTES` bytes together.

    The newest segment is kept even if this segment alone has more bytes.

    Parameters
    ----------
    folder:
        A private folder. If the system has no files in memory, the file is made there.
    """

    is_memory = True

    def __init__(self, folder: Path) -> None:
        self._file = Outbox(folder)
        super().__init__(self._file.fd, _MEMORY_START)
        self._segments: deque[tuple[int, int]] = deque()
        self._mark()

    def accept(self, segment: Segment) -> None:
        """Copy the frames of `segment` into the ring, and drop the oldest segments if the ring has too many bytes then.

        If there is not enough memory, the frames of `segment` are left out.
        """
        end = self.end
        os.lseek(self.fd, end, os.SEEK_SET)
        try:
            for start, stop in runs(segment.frames):
                segment.source.copy(self.fd, start, stop - start)
                end += stop - start
        except OSError:
            # Not truncated, because a memory file cannot shrink. The next segment is written over these bytes.
            self._file.release(self.end, self._file.size())
            return
        self._segments.append((self.end, end))
        while end - self._segments[0][0] > REPLAY_MAX_BYTES and len(self._segments) > 1:
            first, last = self._segments.popleft()
            self.start = last
            self._mark()
            self._file.release(first, last)
        self.end: int = end

    def _mark(self) -> None:
        """Write `start`, the offset up to which bytes are dropped, to the first 8 bytes of the file."""
        os.pwrite(self.fd, _MARK.pack(self.start), 0)

    def close(self) -> None:
        super().close()
        self._file.close()


def dropped_until(fd: int) -> int:
    """Return the offset up to which a memory ring has dropped its bytes. `fd` is a descriptor of the ring's file.

    Any process that has the descriptor may call this.
    """
    return int(_MARK.unpack(os.pread(fd, _MARK.size, 0))[0])


class ReplayLog:
    """Keeps the rows that the durable sinks have accepted, so that exporters can send them.

    Only the aggregator's thread writes, but any thread may read the attributes.

    Parameters
    ----------
    head:
        A stream without its `END` frame: header, store infos, properties, blueprint.
    file:
        The `ByteLog` of a file that gets all rows of the shared recording, or None if there is no such file.
    folder:
        A private folder. If the system has no files in memory, the memory ring makes its file there.
    """

    def __init__(self, head: bytes, file: ByteLog | None, folder: Path) -> None:
        self._head = head
        self._stores: set[bytes] = set()
        self._file = file
        self._folder = folder
        self._memory_ring: MemoryRing | None = None
        #: The files with the frames. The index in this list is the number of the file in messages to exporters.
        self.sources: list[LogFile] = []
        #: The number of chunks that the durable sinks have accepted since this log was made.
        self.chunks: int = 0
        if file is not None and file.shared_fd is not None:
            self.sources.append(LogFile(file.shared_fd, file.end))

    @property
    def head(self) -> bytes:
        """The stream that an exporter gets first: header, store infos, properties, blueprint.

        It also has the store infos of all segments that the memory ring has got.
        """
        return self._head

    def accepted(self, segment: Segment) -> None:
        """Keep the frames of `segment`.

        Call this after all durable sinks that still work have accepted `segment`, because the frames in the file of a
        `FileSink` are not copied.
        """
        if self._file is not None and self._file.end > self.sources[0].end:
            self.sources[0].grow(self._file.end)
        else:
            # The file has not grown: there is none, it has failed, or the segment belongs to another recording, which
            # has its own file.
            if self._memory_ring is None:
                self._memory_ring = MemoryRing(self._folder)
                self.sources.append(self._memory_ring)
            self._note_stores(segment)
            self._memory_ring.accept(segment)
        self.chunks += sum(frame.kind == framing.ARROW_MSG for frame in segment.frames)

    def _note_stores(self, segment: Segment) -> None:
        """Keep the store infos of `segment` in the head, because a memory ring drops its oldest frames."""
        for frame in segment.frames:
            if frame.kind == framing.SET_STORE_INFO:
                info = segment.bytes_of(frame)
                store = store_id.store_id_of_info(info[framing.FRAME_HEADER_SIZE :])
                if store not in self._stores:
                    self._stores.add(store)
                    self._head += info

    def close(self) -> None:
        for source in self.sources:
            source.close()

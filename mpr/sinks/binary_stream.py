"""The bytes of a recording as they come, for any number of readers: in memory at first, then in a temporary file.

Covers: where the bytes wait, readers in threads and in `asyncio`, the end.
Does not cover: what the bytes are (`rrd/writer.py` writes them).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpr.errors import ConfigError, SinkError
from mpr.limits import STREAM_MEMORY_BYTES
from mpr.rrd.segment import Segment
from mpr.rrd.slices import Pieces, Slices
from mpr.rrd.writer import FileWriter
from mpr.sinks.base import Sink

_READ_BYTES = 1024 * 1024
_COPY_BYTES = 32 * 1024 * 1024


class StreamFile:
    """What the bytes are written to: a file without a name, in memory up to `memory_bytes`."""

    published = True

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._in_memory = sys.platform == "linux"
        self.fd = os.memfd_create("mpr-stream", os.MFD_CLOEXEC) if sys.platform == "linux" else _temporary()
        self._close = weakref.finalize(self, os.close, self.fd)

    @property
    def readable_path(self) -> str:
        """Where the SDK's reader finds the file."""
        return f"/proc/self/fd/{self.fd}" if sys.platform == "linux" else f"/dev/fd/{self.fd}"

    def check(self, size: int) -> None:
        """Nobody else has it; this is where it leaves the memory. Raises `OSError`."""
        if not self._in_memory or size <= self._memory_bytes:
            return
        fd = _temporary()
        try:
            done = 0
            while data := os.pread(self.fd, _COPY_BYTES, done):
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                done += len(data)
            # Under the same number, which others have.
            os.dup2(fd, self.fd, inheritable=False)
        finally:
            os.close(fd)
        self._in_memory = False

    def publish(self) -> None:
        """It has none."""

    def cut(self, size: int) -> None:
        """Drop what was written beyond `size` bytes."""
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, size)
            os.lseek(self.fd, size, os.SEEK_SET)

    def close(self) -> None:
        """Readers still read: the last of them lets go of it."""


def _temporary() -> int:
    with tempfile.TemporaryFile(prefix="mpr-stream-") as file:
        return os.dup(file.fileno())


class ByteStream:
    """The bytes that have been accepted. One thread adds, any may read; each reader gets all, from the beginning."""

    def __init__(self, file: StreamFile) -> None:
        self._file = file
        self._changed = threading.Condition()
        self._listeners: set[Callable[[], None]] = set()
        self._end = 0
        self._is_over = False
        self._failure: BaseException | None = None

    def grow(self, end: int) -> None:
        """Everything up to `end` may be read."""
        self._note(end, False, None)

    def finish(self, end: int, failure: BaseException | None = None) -> None:
        """There is nothing behind `end`; with `failure`, readers that come so far are told."""
        self._note(end, True, failure)

    def _note(self, end: int, is_over: bool, failure: BaseException | None) -> None:
        with self._changed:
            self._end, self._is_over, self._failure = end, is_over, failure
            self._changed.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def _cursor(self, parts: bool) -> Slices | Pieces:
        return Slices(self._pread) if parts else Pieces(self._pread, _READ_BYTES)

    def _pread(self, offset: int, size: int) -> bytes:
        return os.pread(self._file.fd, size, offset)

    def _next(self, cursor: Slices | Pieces) -> tuple[bytes | None, int]:
        """What comes next, and how far it was looked for: nothing yet where it is empty, nothing ever for None."""
        with self._changed:
            end, is_over, failure = self._end, self._is_over, self._failure
        data = cursor.next(end)
        if not data and failure is not None:
            raise failure
        return None if is_over and not data else data, end

    def read_all(self, *, parts: bool = False) -> Iterator[bytes]:
        """All bytes, with `parts` as streams of their own; waits for those to come until the recording is closed."""
        cursor = self._cursor(parts)
        while True:
            data, end = self._next(cursor)
            if data is None:
                return
            if data:
                yield data
                continue
            with self._changed:
                if self._end == end and not self._is_over:
                    # In turns, so that Ctrl-C is noticed on every platform.
                    self._changed.wait(1.0)

    async def aread_all(self, *, parts: bool = False) -> AsyncIterator[bytes]:
        """As `read_all`, in an event loop; a reader that is cancelled leaves nothing behind."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def wake() -> None:
            # The loop may be closed already.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)

        with self._changed:
            self._listeners.add(wake)
        try:
            cursor = self._cursor(parts)
            while True:
                changed.clear()
                data, _ = self._next(cursor)
                if data is None:
                    return
                if data:
                    yield data
                else:
                    await changed.wait()
        finally:
            with self._changed:
                self._listeners.discard(wake)


class _StreamFile(FileWriter):
    """What is once read cannot be written anew."""

    def __init__(self, file: StreamFile) -> None:
        super().__init__(Path(file.readable_path), file)

    def _failure(self, verb: str, error: OSError) -> SinkError:
        return SinkError(error.errno, f"cannot {verb} the binary stream: {error.strerror or error}")

    def _rebuild(self, refused: str) -> None:
        raise SinkError(
            f"the end of the binary stream is not accepted by the Rerun SDK ({refused}). All rows are in it: write it "
            "to a file, and give that to `mpr recover`. Please report this."
        )


class StreamWriter:
    """The writer behind a `BinaryStreamSink`: everything in one stream, also recordings that tasks make themselves."""

    name = "the binary stream"
    paths: tuple[()] = ()
    # What readers have cannot be taken back, so it has to be finished.
    published = True

    def __init__(self, file: StreamFile, stream: ByteStream) -> None:
        #: What readers read.
        self.stream = stream
        self._file = _StreamFile(file)

    def open(self, preamble: bytes) -> None:
        self._file.open(preamble)
        self.stream.grow(self._file.end)

    def accept(self, segment: Segment, *, published: bool) -> None:
        self._file.accept(segment, published=published)
        self.stream.grow(self._file.end)

    def add_manifests(self, outbox: int, footer: bytes) -> None:
        self._file.add_manifests(outbox, footer)

    def rows_of(self, outbox: int, skip: int) -> int | None:
        return self._file.rows_of(outbox, skip)

    def close(self) -> None:
        try:
            self._file.close()
        except SinkError as error:
            self.stream.finish(self._file.end, error)
            raise
        self.stream.finish(self._file.end)

    def abort(self) -> None:
        self.stream.finish(self._file.end, SinkError("the stream ends before its recording: a sink has failed"))
        self._file.abort()


@dataclass(frozen=True, kw_only=True, eq=False)
class BinaryStreamSink(Sink):
    """The encoded recording, for whoever iterates over it: `for data in sink` or `async for data in sink`.

    All bytes that one iteration yields, one behind the other, are one valid `.rrd` file; what it has yielded until the
    result of a task is there holds the rows of that task, or they come next. An iteration begins at the beginning,
    whenever it starts, waits for more as long as the recording is open, and ends with it. Any number may go on at once,
    in threads and in event loops. The rows wait for nobody: all is kept in memory, then in a temporary file, until the
    sink is forgotten. Recordings that tasks make themselves are in the same stream, under their own ids.

    A sink is good for one recording. A copy that was pickled is a new one.

    Parameters
    ----------
    memory_bytes:
        Bytes of the recording that are kept in memory; when there are more, all are in a temporary file.

    Raises
    ------
    ConfigError
        If `memory_bytes` is no number of bytes.
    """

    memory_bytes: int = STREAM_MEMORY_BYTES
    _used: list[ByteStream] = field(default_factory=list, init=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.memory_bytes, bool) or not isinstance(self.memory_bytes, int) or self.memory_bytes < 0:
            raise ConfigError(f"memory_bytes must be a number of bytes, got {self.memory_bytes!r}")

    def __iter__(self) -> Iterator[bytes]:
        """The bytes; raises `SinkError` where the sink has failed, behind all that it had accepted."""
        return self._stream().read_all()

    def __aiter__(self) -> AsyncIterator[bytes]:
        """As `for data in sink`, without a thread that waits."""
        return self._stream().aread_all()

    def parts(self) -> StreamParts:
        """The same data as parts that can each be read alone: `for part in sink.parts()`, also with `async for`.

        Each part is a stream of its own, of a few megabytes at most, without a footer. This is what viewers want that
        are fed piece by piece, such as `gradio_rerun.Rerun(streaming=True)`. An iteration begins at the beginning.
        """
        return StreamParts(self)

    def _stream(self) -> ByteStream:
        if not self._used:
            raise SinkError("there is nothing to read yet: give the BinaryStreamSink to a pool or recording first")
        return self._used[0]

    def _use(self, stream: ByteStream) -> None:
        """A recording writes to it."""
        with self._lock:
            if self._used:
                raise SinkError("a BinaryStreamSink is good for one recording, and this one has had it: make a new one")
            self._used.append(stream)

    def _places(self) -> tuple[str, ...]:
        return (f"a BinaryStreamSink ({id(self):#x})",)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self.memory_bytes,)


@dataclass(frozen=True)
class StreamParts:
    """What `BinaryStreamSink.parts` returns: to be iterated over, any number of times."""

    _sink: BinaryStreamSink

    def __iter__(self) -> Iterator[bytes]:
        return self._sink._stream().read_all(parts=True)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._sink._stream().aread_all(parts=True)


def _make(memory_bytes: int) -> BinaryStreamSink:
    return BinaryStreamSink(memory_bytes=memory_bytes)

"""Defines `BinaryStreamSink`, from which threads and event loops of this process read the encoded recording."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from multiprocessing import util
from pathlib import Path
from typing import Any

from mpr import files
from mpr.errors import ConfigError, SinkError
from mpr.limits import STREAM_MEMORY_BYTES
from mpr.rrd import framing
from mpr.rrd.byte_log import ByteLog, LogReader
from mpr.rrd.writer import FileWriter
from mpr.sinks.base import OpenContext, Sink, Writer

_COPY_BYTES = 32 * 1024 * 1024


class StreamFile:
    """The file of one stream: in memory if possible, until it has more than `memory_bytes` bytes, and then on the disk.

    The file is closed, and its space is released, when nothing refers to this object any more. The class has the
    attributes and methods that a `FileWriter` (`rrd/writer.py`) needs of its file.
    """

    # `published` is always True, because readers may have read any byte already, so the stream has to be finished.
    published = True
    # False, because the bytes may move from memory to the disk.
    stays = False

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        # If the system has no files in memory, this is a temporary file with a name.
        file = files.MemoryFile("mpr-stream")
        self._in_memory = file.in_memory
        self.fd: int = file.fd
        #: The path at which the SDK's reader can open the file.
        self.readable_path: str = file.path
        self._close = weakref.finalize(self, file.close)
        # Not at the exit of the interpreter, because the recording is closed later than that and still writes.
        self._close.atexit = False
        # A file on the disk must not stay there. It is removed after the recording is closed (see `RecordingRuntime`).
        util.Finalize(self, file.remove, exitpriority=-1)

    def check(self, size: int) -> None:
        """Move the file to the disk if its `size` is more than `memory_bytes`. Raises `OSError` if this fails."""
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
            # The descriptor keeps its number, because readers use this number.
            os.dup2(fd, self.fd, inheritable=False)
        finally:
            os.close(fd)
        self._in_memory = False

    def publish(self) -> None:
        """Do nothing, because this file gets no final name."""

    def reader(self) -> tuple[framing.Read, None]:
        """Return (function, None). The function reads the file by offset and size in bytes, also after `close`.

        The second value is the size of a file that may be written anew. It is None, because this file is never written
        anew.
        """
        return self._read, None

    def _read(self, offset: int, size: int) -> bytes:
        # The number of the descriptor stays the same when the bytes move to the disk.
        return os.pread(self.fd, size, offset)

    def cut(self, size: int) -> None:
        """Drop all bytes behind the first `size` bytes. Errors of the system are ignored."""
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, size)
            os.lseek(self.fd, size, os.SEEK_SET)

    def close(self) -> None:
        """Do nothing, because readers still need the file. The file is closed when nothing refers to this object."""


def _temporary() -> int:
    with tempfile.TemporaryFile(prefix="mpr-stream-") as file:
        return os.dup(file.fileno())


class StreamWriter(FileWriter, Writer):
    """Writes the shared recording, and all recordings that tasks make themselves, into `file`, as one stream."""

    name = "the binary stream"
    paths: tuple[()] = ()

    def __init__(self, file: StreamFile) -> None:
        super().__init__(Path(file.readable_path), file)

    def distrust(self) -> None:
        """Do nothing, because readers have the rows already."""

    def _failure(self, verb: str, error: OSError) -> SinkError:
        return SinkError(error.errno, f"cannot {verb} the binary stream: {error.strerror or error}")

    def _rebuild(self, refused: str) -> None:
        # Readers have the stream already, so it cannot be written anew.
        raise SinkError(
            f"the end of the binary stream is not accepted by the Rerun SDK ({refused}). All rows are in it: write it "
            "to a file, and give that to `mpr recover`. Please report this."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class BinaryStreamSink(Sink):
    """Gives the encoded recording as bytes to a program that iterates: `for data in sink` or `async for data in sink`.

    Each iteration starts at the first byte. An iteration waits for more bytes while the recording is open, and ends
    when the recording is closed. If no error is raised, all bytes of one iteration together are one valid `.rrd` file.
    When the caller has the result of a task, an iteration can read the rows of that task without waiting.

    Any number of iterations may run at once, in threads and in event loops. A slow iteration delays nothing, because
    all bytes are kept as long as the sink exists: first in memory, then in a temporary file. Recordings that tasks make
    themselves are in the same stream, under their own ids.

    A sink can be used for one recording only. A second recording with this sink raises `SinkError` at its start. An
    unpickled copy is a new sink, without the bytes.

    Parameters
    ----------
    memory_bytes:
        The largest number of bytes that are kept in memory. If the recording has more, all its bytes are moved to a
        temporary file.

    Raises
    ------
    ConfigError
        If `memory_bytes` is not an integer of 0 or more.
    """

    memory_bytes: int = STREAM_MEMORY_BYTES

    is_readable = True

    _used: list[ByteLog] = field(default_factory=list, init=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.memory_bytes, bool) or not isinstance(self.memory_bytes, int) or self.memory_bytes < 0:
            raise ConfigError(f"memory_bytes must be a number of bytes, got {self.memory_bytes!r}")

    def __iter__(self) -> Iterator[bytes]:
        """Return an iterator over the bytes. If the sink fails, the iterator raises `SinkError` after the last byte.

        Raises `SinkError` at once if no pool or recording has opened the sink yet.
        """
        return self._reader().read_all()

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return an asynchronous iterator over the bytes, which waits without blocking the event loop.

        Errors are raised as in `for data in sink`.
        """
        return self._reader().aread_all()

    def parts(self) -> StreamParts:
        """Return an object to iterate over the recording in parts: `for part in sink.parts()`, or `async for`.

        Each part is bytes, usually of a few megabytes at most: a separate stream without a footer, which can be decoded
        without the other parts. Viewers that get data in pieces need this, for example
        `gradio_rerun.Rerun(streaming=True)`. Each iteration starts at the first part. Errors are raised as in `for data
        in sink`.
        """
        return StreamParts(self)

    def open(self, context: OpenContext) -> StreamWriter:
        """Return a new writer for this sink. Only mpr itself calls this.

        Raises `SinkError` if the sink was used before, or if mpr does not know the file format of the SDK.
        """
        context.check_format("a BinaryStreamSink needs")
        writer = StreamWriter(StreamFile(self.memory_bytes))
        with self._lock:
            if self._used:
                raise SinkError("a BinaryStreamSink is good for one recording, and this one has had it: make a new one")
            self._used.append(writer.log)
        return writer

    def _reader(self) -> LogReader:
        if not self._used:
            raise SinkError("there is nothing to read yet: give the BinaryStreamSink to a pool or recording first")
        return self._used[0].reader()

    def _places(self) -> tuple[str, ...]:
        return (f"a BinaryStreamSink ({id(self):#x})",)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self.memory_bytes,)


@dataclass(frozen=True)
class StreamParts:
    """The object that `BinaryStreamSink.parts` returns. Each iteration yields all parts of the recording as bytes."""

    _sink: BinaryStreamSink

    def __iter__(self) -> Iterator[bytes]:
        return self._sink._reader().read_all(parts=True)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._sink._reader().aread_all(parts=True)


def _make(memory_bytes: int) -> BinaryStreamSink:
    return BinaryStreamSink(memory_bytes=memory_bytes)

"""The sink whose bytes the user takes."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mpr.errors import ConfigError, SinkError
from mpr.limits import STREAM_MEMORY_BYTES
from mpr.sink import Sink

if TYPE_CHECKING:
    from mpr.byte_stream import ByteStream


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

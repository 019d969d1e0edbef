"""Defines the segment: frames for the sinks, with rows of one producer (a process that logs) or of the parent itself.

An outbox is a file in memory. A producer writes its encoded rows into the outbox, and the parent reads them there. A
store is a recording or a blueprint. A store info is the frame that introduces a store. A task is a function call that a
worker runs. An attempt is one run of a task. If the worker dies, the pool may make another attempt.

Covers: the segment and its task, and joining the bytes of a segment.
Does not cover: the form of a frame (`framing.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mpr.errors import ReleasedError
from mpr.rrd import framing, store_id
from mpr.rrd.framing import Frame

#: The outbox number of the streams that the parent itself makes, and writes at the beginning of a file.
PREAMBLE = 0


class SegmentSource(Protocol):
    """The interface of a source with the bytes of a segment, which are in an outbox, in a message or in a stream.

    All offsets are offsets in the outbox or, for a stream that the parent has made, in this stream. `read` and `copy`
    raise `ReleasedError` for bytes that the source does not have any more.
    """

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on. Returns fewer bytes only at the end of the source."""

    def copy(self, target: int, offset: int, size: int) -> None:
        """Write `size` bytes from `offset` on to the current position of the descriptor `target`.

        The source must have all these bytes. Raises `OSError` if `target` cannot be written.
        """


@dataclass(frozen=True, slots=True)
class Segment:
    """Some whole frames of one outbox, or of a stream that the parent has made, in the form in which a sink gets them.

    Attributes
    ----------
    outbox:
        The number of the outbox, unique in the recording. A stream has such a number, too, or else `PREAMBLE`. The
        offsets of the frames are offsets in this outbox or stream.
    source:
        The bytes of the frames.
    frames:
        The frames in ascending order, none of kind `END`.
    store:
        If the frames come from a recording that a task has made itself: the encoded id of the first recording in them,
        or None if they have only blueprints. In all other cases None.
    task:
        The task that ran when the frames were written, if a sink writes the rows of each task separately. Else
        None.
    telemetry:
        True if the frames are telemetry of a pool, and not data of the user.
    """

    outbox: int
    source: SegmentSource
    frames: list[Frame]
    store: bytes | None = None
    task: TaskInfo | None = None
    telemetry: bool = False

    def bytes_of(self, frame: Frame) -> bytes:
        """Return the bytes of `frame`, one of `frames`, with its header."""
        return self.source.read(frame.start, frame.end - frame.start)


def runs(frames: Iterable[Frame]) -> list[tuple[int, int]]:
    """Return the runs of bytes of `frames` as offsets (start, end) in their source. Adjacent frames are one run."""
    found: list[tuple[int, int]] = []
    for frame in frames:
        if found and found[-1][1] == frame.start:
            found[-1] = (found[-1][0], frame.end)
        else:
            found.append((frame.start, frame.end))
    return found


class StandaloneStreams:
    """Makes a stream from each segment of a series. Each stream can be read without the streams before it.

    Parameters
    ----------
    header:
        The header with which each stream begins: the first 12 bytes of a stream of the SDK.
    """

    def __init__(self, header: bytes) -> None:
        self._header = header
        # The frame of the latest store info of each store.
        self._infos: dict[bytes, bytes] = {}

    def stream(self, segment: Segment) -> bytes:
        """Return a stream: the header, the store infos of all segments until now, and the other frames of `segment`.

        Of several store infos of one store, only the last one is used.

        Returns empty bytes if `segment` has only store infos. Raises `FormatError` if a store info has no store id.
        """
        frames = []
        for frame in segment.frames:
            data = segment.bytes_of(frame)
            if frame.kind == framing.SET_STORE_INFO:
                self._infos[store_id.store_id_of_info(data[framing.FRAME_HEADER_SIZE :])] = data
            else:
                frames.append(data)
        return b"".join([self._header, *self._infos.values(), *frames]) if frames else b""


class MessageBytes:
    """A `SegmentSource` whose bytes are in a message or in a stream that the parent has made, and not in an outbox.

    `data` has the bytes. `base` is the offset of the first byte of `data` in the outbox; 0 for a stream.
    """

    def __init__(self, base: int, data: bytes) -> None:
        self._base = base
        self._data = memoryview(data)

    def read(self, offset: int, size: int) -> bytes:
        start = self._start(offset)
        return bytes(self._data[start : start + size])

    def copy(self, target: int, offset: int, size: int) -> None:
        start = self._start(offset)
        view = self._data[start : start + size]
        while view:
            view = view[os.write(target, view) :]

    def _start(self, offset: int) -> int:
        """Return the index in the message of the byte that has the offset `offset` in the outbox.

        Raises `ReleasedError` if this byte was in an earlier message.
        """
        if offset < self._base:
            raise ReleasedError(
                f"the bytes from {offset} on were in an earlier message; this one begins at {self._base}"
            )
        return offset - self._base


@dataclass(eq=False, frozen=True, slots=True, weakref_slot=True)
class TaskCall:
    """Describes the call of one task, for sinks that write the rows of each task separately.

    Attributes
    ----------
    arguments:
        The fields of the arguments with their plain values, such as `{"lr": 0.1}` (see `datasets/arguments.py`).
    function:
        The name of the task function.
    digest:
        The digest of the call (see `datasets/digest.py`); "" if it has none, or if no sink needs it.
    obstacle:
        Says why the call has no digest; "" if it has one.
    floats:
        The names of the parameters whose annotation is `float`.
    index, length:
        The index of the task in its call, and the number of tasks of the call; None if they are not known yet.
    is_complete:
        True if the task need not run, because its recording of an earlier run is complete.
    """

    arguments: Mapping[str, Any]
    function: str = ""
    digest: str = ""
    obstacle: str = ""
    floats: frozenset[str] = frozenset()
    index: int | None = None
    length: int | None = None
    is_complete: bool = False


@dataclass(eq=False, kw_only=True, slots=True, weakref_slot=True)
class TaskInfo:
    """Describes one attempt at one task.

    Attributes
    ----------
    number:
        The number of the task in the pool. Tasks are counted from 0, in the order in which they were submitted.
    name:
        The name of the task function.
    index:
        The index of the task in the call that submitted it, counted from 0. For a call that submits one task (`apply`,
        `submit`), this is `number`.
    attempt:
        1 for the first attempt, and one more for each retry.
    worker:
        The number of the worker that runs the attempt.
    pid:
        The process id of this worker.
    started_nanos:
        The time at which the attempt began, in nanoseconds since the Unix epoch.
    is_over:
        True if the attempt has returned or raised. Its last rows may still be in its outbox.
    seconds:
        The duration of the attempt in seconds; 0 while the attempt runs.
    error:
        A text about the exception that the attempt raised; None if there is none.
    call:
        The call of the task; None if nobody has described it.
    """

    number: int
    name: str
    index: int
    attempt: int
    worker: int
    pid: int
    started_nanos: int
    is_over: bool = False
    seconds: float = 0.0
    error: str | None = None
    call: TaskCall | None = None

    def ended(self, seconds: float, error: str | None) -> None:
        """Mark the attempt as over.

        `seconds` is its duration in seconds. `error` is a text about the exception that it raised, or None.
        """
        self.is_over, self.seconds, self.error = True, seconds, error

"""All that a recording has taken, from the beginning and on, for viewers that come at any time.

Covers: reading it out of the recording's own sinks, while it is open and later, in parts that are streams of their own.
Does not cover: viewers in processes of their own (`live/supervisor.py`) and who shows the parts (`notebook.py`).
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence

from mpr.errors import SinkError
from mpr.rrd.slices import Slices
from mpr.rrd.writer import FileWriter
from mpr.sinks.active_recording import ActiveRecordingWriter
from mpr.sinks.base import Writer
from mpr.sinks.binary_stream import StreamWriter
from mpr.sinks.per_recording import PerRecordingWriter

# How often a file that grows is looked at; a viewer draws 60 times a second, but workers need the CPU.
_LOOK_EVERY_SECS = 0.05

Replay = Callable[[], Iterator[bytes]]
"""Streams that can each be read alone; each call begins at the beginning, and waits for more until all is there."""


def replay(writers: Sequence[Writer], ended: threading.Event) -> Replay:
    """The parts of the recording that `writers` write; `ended` is set when nothing comes any more.

    Raises `SinkError` where none of them has the recording in one piece.
    """
    for writer in writers:
        match writer:
            case PerRecordingWriter(file=FileWriter() as file):
                return _FileReplay(file, ended).parts
            case StreamWriter():
                return functools.partial(writer.stream.read_all, parts=True)
    if any(isinstance(writer, ActiveRecordingWriter) for writer in writers):
        raise SinkError("the rows go to your own active recording, which can show them itself: rr.notebook_show()")
    raise SinkError(
        "there is nothing to show them from: the recording needs a FileSink or a BinaryStreamSink, beside its other "
        "sinks, such as sinks=['run.rrd', ...]"
    )


class _FileReplay:
    def __init__(self, file: FileWriter, ended: threading.Event) -> None:
        self._file = file
        self._ended = ended
        self._is_closed = ended.is_set()
        # Its own: the recording closes its descriptor, and a compact file takes the place of this one.
        try:
            self._fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC) if self._is_closed else os.dup(file.fd)
        except OSError as error:
            raise SinkError(error.errno, f"cannot read {file.path}: {error.strerror}") from error
        weakref.finalize(self, os.close, self._fd)

    def parts(self) -> Iterator[bytes]:
        parts = Slices(self._read)
        while True:
            is_over = self._is_closed or self._ended.is_set()
            end = os.fstat(self._fd).st_size if self._is_closed else self._file.end
            while part := parts.next(end):
                yield part
            if is_over:
                return
            self._ended.wait(_LOOK_EVERY_SECS)

    def _read(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, offset)

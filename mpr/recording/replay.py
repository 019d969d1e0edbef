"""Reads the recording from one of its sinks, for a viewer in a notebook.

Covers: which sink is read, and how often new rows are read.
Does not cover: how a sink is read (`rrd/byte_log.py`), how the rows are shown (`notebook.py`), and live sinks
(`live/supervisor.py`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

from mpr.errors import SinkError
from mpr.rrd.byte_log import ByteLog, LogReader
from mpr.sinks.base import Writer

# The interval (seconds) at which a viewer gets new rows. A viewer could draw more often, but the workers need the CPU.
_SEND_EVERY_SECS = 0.05

Replay = Callable[[], Iterator[bytes]]
"""A function that yields the recording as streams (bytes). Each stream can be decoded without the others.

Each call begins with the first row. It waits for more rows until the recording has ended.
"""


def replay(writers: Sequence[Writer]) -> Replay:
    """Return a function that yields the recording from the beginning, from the first sink that can be read.

    `writers` are the writers of the durable sinks. Raises `SinkError` if no sink has the whole recording in one file or
    in memory, or if this file cannot be opened.
    """
    for writer in writers:
        if writer.log is not None:
            return functools.partial(_parts, _reader(writer.log, writer.name))
    raise SinkError(
        next((writer.replay_hint for writer in writers if writer.replay_hint), "")
        or "there is nothing to show them from: the recording needs a FileSink or a BinaryStreamSink, beside its other "
        "sinks, such as sinks=['run.rrd', ...]"
    )


def _reader(log: ByteLog, name: str) -> LogReader:
    try:
        return log.reader()
    except OSError as error:
        raise SinkError(error.errno, f"cannot read {name}: {error.strerror}") from error


def _parts(reader: LogReader) -> Iterator[bytes]:
    # If the sink fails, no error is raised here, because `SharedRecording.close` raises it.
    with contextlib.suppress(SinkError):
        yield from reader.read_all(parts=True, pause_secs=_SEND_EVERY_SECS)

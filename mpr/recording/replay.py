"""Finds the sink from which the viewer in a notebook gets a recording, from the beginning and on.

Covers: which sink it is, and at which pace it is read.
Does not cover: reading it (`rrd/byte_log.py`), showing it (`notebook.py`), and viewers in processes of their own
(`live/supervisor.py`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

from mpr.errors import SinkError
from mpr.rrd.byte_log import ByteLog, LogReader
from mpr.sinks.base import Writer

# The interval at which a viewer gets new rows; it draws 60 times a second, but the workers need the CPU.
_SEND_EVERY_SECS = 0.05

Replay = Callable[[], Iterator[bytes]]
"""Yields streams that can each be read alone; each call begins at the beginning, and waits for more until the end."""


def replay(writers: Sequence[Writer]) -> Replay:
    """Return the parts of the recording that `writers` write.

    Raises `SinkError` if none of them has the recording in one piece, or its file cannot be read.
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
    # The recording itself reports a sink that fails.
    with contextlib.suppress(SinkError):
        yield from reader.read_all(parts=True, pause_secs=_SEND_EVERY_SECS)

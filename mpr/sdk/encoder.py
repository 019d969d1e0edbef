"""Lets the SDK encode rows, blueprints and properties, by its public API only."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr.sdk.internal import internal
from mpr.sdk.reader import ReadableFile

if TYPE_CHECKING:
    import rerun as rr


def new_stream(application_id: str, recording_id: str, *, send_properties: bool) -> rr.RecordingStream:
    """Return a new stream of the SDK without a sink."""
    import rerun as rr

    return rr.RecordingStream(application_id, recording_id=recording_id, send_properties=send_properties)


@functools.cache
def _scratch(pid: int) -> tuple[rr.RecordingStream, rr.BinaryStream, threading.Lock, bytes]:
    """Return the one stream of process `pid` that mpr encodes with, its storage, a lock, and its first bytes.

    There is only one, because each stream of the SDK costs two threads that never end. The first bytes are a stream
    with the store info, which the SDK writes once; they are empty if logging is switched off.
    """
    import rerun as rr

    stream = new_stream("mpr", "mpr", send_properties=False)
    storage = rr.binary_stream(stream)
    return stream, storage, threading.Lock(), storage.read(flush=True) or b""


def encoded_head() -> bytes:
    """Return the stream that begins a recording, with a store id of no recording; empty if logging is off."""
    return _scratch(os.getpid())[3]


def encoded_by_sdk(write: Callable[[rr.RecordingStream], None]) -> bytes:
    """Return the stream (header to footer, no store info) of the rows that `write` logs; empty if it logs none."""
    for _ in range(2):
        stream, storage, lock, head = _scratch(os.getpid())
        with lock:
            with internal():
                stream.reset_time()
                write(stream)
            data = storage.read(flush=True) or b""
        if data or not head:
            break
        # At the interpreter's exit the SDK shuts all streams down, and a recording may still be open then.
        _scratch.cache_clear()
    return data


def encoded_blueprint(application_id: str, blueprint: Any) -> bytes:
    """Return a whole stream that makes `blueprint` (as `rr.send_blueprint` takes it) active and the default."""
    import rerun.blueprint as rrb

    if not isinstance(blueprint, rrb.Blueprint):
        blueprint = rrb.Blueprint(blueprint)
    with ReadableFile(b"") as path, internal():
        blueprint.save(application_id, path)
        return Path(path).read_bytes()


def preamble(start_time_nanos: int) -> bytes:
    """Return a stream with the properties of a recording that began at `start_time_nanos` (ns since the Unix epoch).

    Its store id is not that of the recording yet.
    """
    return encoded_by_sdk(lambda stream: stream.send_recording_start_time_nanos(start_time_nanos))


def warnings_by_sdk(entity_path: str, texts: Iterable[str]) -> bytes:
    """Return a stream with `texts` as log entries of level WARN, at the present time.

    Its store id is no recording's.
    """
    import rerun as rr

    def write(stream: rr.RecordingStream) -> None:
        for text in texts:
            stream.log(entity_path, rr.TextLog(text, level=rr.TextLogLevel.WARN))

    return encoded_by_sdk(write)

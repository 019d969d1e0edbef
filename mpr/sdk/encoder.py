"""The SDK's own reader and writer, as the parent uses them: by public API only."""

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
    import rerun as rr

    return rr.RecordingStream(application_id, recording_id=recording_id, send_properties=send_properties)


@functools.cache
def _scratch(pid: int) -> tuple[rr.RecordingStream, rr.BinaryStream, threading.Lock, bytes]:
    """The one stream of process `pid` with which mpr lets the SDK encode; each costs two threads for ever.

    With what the SDK writes once, before all else: a stream with the store info; empty where logging is switched off.
    """
    import rerun as rr

    stream = new_stream("mpr", "mpr", send_properties=False)
    storage = rr.binary_stream(stream)
    return stream, storage, threading.Lock(), storage.read(flush=True) or b""


def encoded_head() -> bytes:
    """The stream that begins a recording, with a store id that is no recording's; empty where logging is off."""
    return _scratch(os.getpid())[3]


def encoded_by_sdk(write: Callable[[rr.RecordingStream], None]) -> bytes:
    """The stream (header to footer, no store info) that the SDK makes of what `write` logs; empty for nothing."""
    for _ in range(2):
        stream, storage, lock, head = _scratch(os.getpid())
        with lock:
            with internal():
                stream.reset_time()
                write(stream)
            data = storage.read(flush=True) or b""
        if data or not head:
            break
        # The SDK has shut all streams down, as it does at the interpreter's exit, where a recording may be still open.
        _scratch.cache_clear()
    return data


def encoded_blueprint(application_id: str, blueprint: Any) -> bytes:
    """`blueprint` (as `rr.send_blueprint` takes it) as a whole stream that makes it active and the default."""
    import rerun.blueprint as rrb

    if not isinstance(blueprint, rrb.Blueprint):
        blueprint = rrb.Blueprint(blueprint)
    with ReadableFile(b"") as path, internal():
        blueprint.save(application_id, path)
        return Path(path).read_bytes()


def preamble(start_time_nanos: int) -> bytes:
    """A stream with the properties of a recording that began at `start_time_nanos` (since the Unix epoch).

    Its store id is not the recording's yet.
    """
    return encoded_by_sdk(lambda stream: stream.send_recording_start_time_nanos(start_time_nanos))


def warnings_by_sdk(entity_path: str, texts: Iterable[str]) -> bytes:
    """A stream with `texts` as log entries of level WARN, at the present time. Its store id is no recording's."""
    import rerun as rr

    def write(stream: rr.RecordingStream) -> None:
        for text in texts:
            stream.log(entity_path, rr.TextLog(text, level=rr.TextLogLevel.WARN))

    return encoded_by_sdk(write)

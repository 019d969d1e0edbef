"""The SDK's own reader and writer, as the parent uses them: by public API only."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr import errors, hooks, rrd
from mpr.manifest import CHUNK_ID, OFFSET, SIZE, Manifest, parse
from mpr.sdk.reader import ReadableFile, send_decoded

if TYPE_CHECKING:
    import rerun as rr


def new_stream(application_id: str, recording_id: str, *, send_properties: bool) -> rr.RecordingStream:
    import rerun as rr

    return rr.RecordingStream(application_id, recording_id=recording_id, send_properties=send_properties)


@functools.cache
def _scratch(pid: int) -> tuple[rr.RecordingStream, rr.BinaryStream, threading.Lock, bytes]:
    """The one stream of process `pid` with which mpr lets the SDK encode; each costs two threads for ever.

    With its store info (the payload of that frame), which the SDK writes once, before all else.
    """
    import rerun as rr

    stream = new_stream("mpr", "mpr", send_properties=False)
    storage = rr.binary_stream(stream)
    data = storage.read(flush=True) or b""
    frames: list[rrd.Frame] = []
    # What an unknown format means is for `format_is_known` to say.
    with contextlib.suppress(errors.FormatError):
        frames = rrd.frames_of(data)
    infos = (data[frame.payload : frame.end] for frame in frames if frame.kind == rrd.SET_STORE_INFO)
    return stream, storage, threading.Lock(), next(infos, b"")


def store_info() -> bytes:
    """A store info, with a store id that is no recording's; empty where logging is switched off."""
    return _scratch(os.getpid())[3]


def encoded_by_sdk(write: Callable[[rr.RecordingStream], None]) -> bytes:
    """The stream (header to footer, no store info) that the SDK makes of what `write` logs; empty for nothing."""
    for _ in range(2):
        stream, storage, lock, info = _scratch(os.getpid())
        with lock:
            with hooks.nowhere():
                stream.reset_time()
                write(stream)
            data = storage.read(flush=True) or b""
        if data or not info:
            break
        # The SDK has shut all streams down, as it does at the interpreter's exit, where a recording may be still open.
        _scratch.cache_clear()
    return data


def encoded_blueprint(application_id: str, blueprint: Any) -> bytes:
    """`blueprint` (as `rr.send_blueprint` takes it) as a whole stream that makes it active and the default."""
    import rerun.blueprint as rrb

    if not isinstance(blueprint, rrb.Blueprint):
        blueprint = rrb.Blueprint(blueprint)
    with ReadableFile(b"") as path, hooks.nowhere():
        blueprint.save(application_id, path)
        return Path(path).read_bytes()


def prologue(start_time_nanos: int) -> bytes:
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


def manifest_by_sdk(data: bytes) -> Manifest:
    """The manifest that the SDK itself writes for the chunks in `data` (header, store infos, messages of one store).

    Its store id is not theirs, and its offsets are those of the SDK's own encoding; the chunk ids are those of `data`.
    """
    encoded = encoded_by_sdk(lambda stream: send_decoded(data, stream))
    frames = rrd.frames_of(encoded)
    if not frames:
        raise errors.FormatError("the SDK finds no chunk in a stream that has some")
    end = frames[-1]
    return parse(encoded[end.payload : end.end])[0]


@functools.cache
def format_is_known() -> str | None:
    """Whether re-framing understands what the installed SDK writes: None, or why not.

    Lets the SDK encode two chunks and looks for everything that `rrd.py` and `manifest.py` rely on.
    """
    import rerun as rr

    def write(stream: rr.RecordingStream) -> None:
        stream.set_time("probe", sequence=1)
        stream.log("probe", rr.TextLog("probe"))
        stream.log("probe/static", rr.TextLog("probe"), static=True)

    data = encoded_by_sdk(write)
    if not data:
        # RERUN=off: nothing will be logged, so there is nothing to understand.
        return None
    try:
        rrd.check_header(data[: rrd.HEADER_SIZE])
        frames = rrd.frames_of(data)
        end = frames[-1]
        footer = data[end.payload : end.end]
        if end.kind != rrd.END or data[end.start :] != rrd.closing(end.start, [rrd.field(footer, 1)]):
            return "its streams do not end as known"
        chunks = [frame for frame in frames if frame.kind == rrd.ARROW_MSG]
        places = {rrd.chunk_id(data[each.payload : each.end]): (each.payload, each.size) for each in chunks}
        (found,) = parse(footer)
        columns = [found.table[name].to_pylist() for name in (CHUNK_ID, OFFSET, SIZE)]
        if {each: (at, size) for each, at, size in zip(*columns, strict=True)} != places:
            return "its manifests do not say where the chunks are"
    except (errors.FormatError, KeyError, IndexError, ValueError) as error:
        return str(error)
    return None

"""Encodes rows, blueprints and properties with the SDK, by the SDK's public API only.

An encoded stream is bytes in the form of an `.rrd` file: a header, messages and a footer. The store info is a message
that introduces a recording. It has the application id and the recording id.

Covers: new streams of the SDK, and the bytes of rows that mpr itself makes.
Does not cover: the parts of an encoded stream, and the ids of the recording to which it is added (`rrd`).
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr.errors import ConfigError
from mpr.sdk import forks
from mpr.sdk.internal import internal
from mpr.sdk.reader import ReadableFile
from mpr.sdk.recordings import Ids

if TYPE_CHECKING:
    import pyarrow as pa
    import rerun as rr
    import rerun.blueprint as rrb


# More than the stream of a blueprint usually has, in bytes.
_BLUEPRINT_MAX_BYTES = 1024 * 1024
#: The ids of the recordings that mpr has made for itself in this process.
own_recordings: set[Ids] = set()


def new_stream(application_id: str, recording_id: str, flush_tick_secs: float | None = None) -> rr.RecordingStream:
    """Return a new `rr.RecordingStream` with these ids, without a sink and without properties.

    The ids are added to `own_recordings`.

    The SDK keeps rows for at most `flush_tick_secs` seconds before it writes them. If `flush_tick_secs` is None, or if
    the environment variable `RERUN_FLUSH_TICK_SECS` is set, the SDK itself chooses this time.
    """
    import rerun as rr

    batcher = None
    if flush_tick_secs is not None and "RERUN_FLUSH_TICK_SECS" not in os.environ:
        batcher = rr.ChunkBatcherConfig(flush_tick=flush_tick_secs)
    own_recordings.add((application_id, recording_id))
    with internal():
        return rr.RecordingStream(
            application_id, recording_id=recording_id, send_properties=False, batcher_config=batcher
        )


def drop_rows(stream: rr.RecordingStream) -> None:
    """Have the SDK drop all later rows of `stream`.

    Otherwise, the SDK keeps the rows of a stream without a sink in memory.
    """
    import rerun as rr

    if rr.is_enabled(stream):
        with internal():
            rr.set_sinks(recording=stream)


class _Scratch:
    """Holds the `rr.RecordingStream` with which `encoded_by_sdk` encodes, and three things that belong to it.

    Attributes
    ----------
    stream:
        The `rr.RecordingStream`.
    storage:
        The SDK's object that collects the encoded bytes of `stream` until they are read.
    lock:
        Held by the thread that uses `stream` and `storage`.
    head:
        The first encoded bytes: header and store info, which the SDK writes only once. Empty if logging is switched
        off (`RERUN=off`).
    """

    def __init__(self) -> None:
        import rerun as rr

        with internal():
            self.stream = new_stream("mpr", "mpr")
            self.storage = rr.binary_stream(self.stream)
        self.lock = threading.Lock()
        self.head = self.storage.read(flush=True) or b""


@functools.cache
def _scratch() -> _Scratch:
    # One `_Scratch` is used for all calls, because each new stream of the SDK starts two threads.
    scratch = _Scratch()
    _made.append(scratch)
    return scratch


# Has the `_Scratch` of this process, or is empty. A forked process looks here, because `_scratch()` would make one.
_made: list[_Scratch] = []


def _leave_parents_scratch() -> None:
    for scratch in _made:
        forks.never_free(scratch.storage)
    _made.clear()
    _scratch.cache_clear()


os.register_at_fork(after_in_child=_leave_parents_scratch)


def encoded_head() -> bytes:
    """Return the first bytes of an encoded stream: header and store info. The ids in the store info are placeholders.

    Returns empty bytes if logging is switched off (`RERUN=off`).
    """
    return _scratch().head


def encoded_by_sdk(write: Callable[[rr.RecordingStream], None]) -> bytes:
    """Call `write` with an `rr.RecordingStream`, and return the rows that `write` logs to it as an encoded stream.

    The encoded stream has no store info, and the ids of its recording are placeholders. Returns empty bytes if `write`
    logs no rows, or if logging is switched off (`RERUN=off`).

    If `write` logs no rows, although logging is switched on, it is called a second time with a new stream. The reason
    is that the SDK may have shut down the first one. If `write` raises an exception, this function raises the same
    exception.
    """
    for _ in range(2):
        scratch = _scratch()
        with scratch.lock:
            try:
                with internal():
                    scratch.stream.reset_time()
                    write(scratch.stream)
            except BaseException:
                # Drop the rows that `write` has logged until then, because they would be in the next encoded stream.
                scratch.storage.read(flush=True)
                raise
            data = scratch.storage.read(flush=True) or b""
        if data or not scratch.head:
            break
        # There are no bytes, perhaps because the stream is shut down. The SDK shuts down all streams at the
        # interpreter's exit, when a recording of mpr may still be open. So `write` is called again, with a new stream.
        _scratch.cache_clear()
    return data


def as_blueprint(blueprint: Any) -> rrb.Blueprint:
    """Return `blueprint` as a `rerun.blueprint.Blueprint`.

    A view or a container is put into a new `Blueprint`. A `Blueprint` is returned as it is. Raises `ConfigError` if the
    SDK cannot make a blueprint of `blueprint`.
    """
    import rerun.blueprint as rrb

    if isinstance(blueprint, rrb.Blueprint):
        return blueprint
    try:
        return rrb.Blueprint(blueprint)
    except (TypeError, ValueError) as error:
        call = f": call it, as in {blueprint.__name__}(...)" if isinstance(blueprint, type) else ""
        raise ConfigError(
            f"{blueprint!r} is no blueprint{call} (a `rerun.blueprint.Blueprint`, a view or a container is one)"
        ) from error


class _TypedArray:
    """A component batch whose array is `array` itself. The SDK never changes its type."""

    def __init__(self, array: pa.Array) -> None:
        self._array = array

    def as_arrow_array(self) -> pa.Array:
        return self._array


def send_typed_property(stream: rr.RecordingStream, name: str, columns: Mapping[str, pa.Array]) -> None:
    """Set the property `name` of the recording of `stream`. `columns` are its parts with their values.

    `rr.AnyValues` would cast a value to the type of an earlier value with the same name in this process, or drop it.
    """
    import rerun as rr

    if columns:
        batches = [
            rr.DescribedComponentBatch(_TypedArray(array), rr.ComponentDescriptor(key))
            for key, array in columns.items()
        ]
        stream.send_property(name, batches)


def encoded_blueprint(application_id: str, blueprint: Any) -> bytes:
    """Return an encoded stream that makes `blueprint` the active and the default blueprint of `application_id`.

    Raises `ConfigError` if `blueprint` is no value that `rr.send_blueprint` accepts, and `OSError` if there is no space
    to write the stream.
    """
    # If the SDK has no space for the file, it waits for ever. So mpr writes into the file first. The SDK then
    # overwrites these bytes.
    with ReadableFile(bytes(_BLUEPRINT_MAX_BYTES)) as path, internal():
        as_blueprint(blueprint).save(application_id, path)
        return Path(path).read_bytes()


def preamble(start_time_nanos: int) -> bytes:
    """Return an encoded stream with `start_time_nanos` as the start time of a recording.

    This time is in nanoseconds since the Unix epoch. The ids of the recording are placeholders. Returns empty bytes if
    logging is switched off (`RERUN=off`).
    """
    return encoded_by_sdk(lambda stream: stream.send_recording_start_time_nanos(start_time_nanos))


def warnings_by_sdk(entity_path: str, texts: Iterable[str]) -> bytes:
    """Return an encoded stream with an `rr.TextLog` of level WARN for each of `texts`.

    The rows are at the entity path `entity_path`, and have the present time. The ids of the recording are placeholders.
    Returns empty bytes if there are no texts, or if logging is switched off (`RERUN=off`).
    """
    import rerun as rr

    def write(stream: rr.RecordingStream) -> None:
        for text in texts:
            stream.log(entity_path, rr.TextLog(text, level=rr.TextLogLevel.WARN))

    return encoded_by_sdk(write)

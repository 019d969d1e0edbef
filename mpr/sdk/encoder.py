"""Encodes rows, blueprints and properties with the SDK, by the SDK's public API only."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr.errors import ConfigError
from mpr.sdk import forks
from mpr.sdk.internal import internal
from mpr.sdk.reader import ReadableFile

if TYPE_CHECKING:
    import rerun as rr
    import rerun.blueprint as rrb


def new_stream(application_id: str, recording_id: str, flush_tick_secs: float | None = None) -> rr.RecordingStream:
    """Return a new stream of the SDK that has no sink and no properties.

    With `flush_tick_secs`, the SDK keeps rows for at most this time (seconds) before it writes them. By default, that
    is 0.2 s. A value that the user has set for the SDK (`RERUN_FLUSH_TICK_SECS`) wins.
    """
    import rerun as rr

    batcher = None
    if flush_tick_secs is not None and "RERUN_FLUSH_TICK_SECS" not in os.environ:
        batcher = rr.ChunkBatcherConfig(flush_tick=flush_tick_secs)
    with internal():
        return rr.RecordingStream(
            application_id, recording_id=recording_id, send_properties=False, batcher_config=batcher
        )


class _Scratch:
    """The stream with which mpr encodes in this process, and three things that belong to this stream.

    These are the storage that collects the encoded bytes of the stream, a lock for both, and the first bytes of the
    stream. The first bytes contain the store info (the ids of the recording), which the SDK writes only once. The first
    bytes are empty if logging is switched off.
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
    # A process has only one, because each stream of the SDK costs two threads that never end.
    scratch = _Scratch()
    _made.append(scratch)
    return scratch


# The scratch of this process, in a list because a forked process needs it without making one.
_made: list[_Scratch] = []


def _leave_parents_scratch() -> None:
    for scratch in _made:
        forks.never_free(scratch.storage)
    _made.clear()
    _scratch.cache_clear()


os.register_at_fork(after_in_child=_leave_parents_scratch)


def encoded_head() -> bytes:
    """Return the first bytes of a stream: header and store info. Empty if logging is switched off.

    The ids in the store info are placeholders.
    """
    return _scratch().head


def encoded_by_sdk(write: Callable[[rr.RecordingStream], None]) -> bytes:
    """Return a stream of the rows that `write` logs: from the header to the footer, but without a store info.

    Returns empty bytes if `write` logs no rows. `write` may be called twice.
    """
    for _ in range(2):
        scratch = _scratch()
        with scratch.lock:
            try:
                with internal():
                    scratch.stream.reset_time()
                    write(scratch.stream)
            except BaseException:
                # Drop what was written until then. Otherwise it would be in the next recording.
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
    """Return `blueprint` as a `rerun.blueprint.Blueprint`. Views and containers are put into a new one.

    Raises `ConfigError` if the SDK cannot make a blueprint of the value.
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


def encoded_blueprint(application_id: str, blueprint: Any) -> bytes:
    """Return a whole stream that makes `blueprint` active and the default.

    `blueprint` is a value that `rr.send_blueprint` takes.
    """
    with ReadableFile(b"") as path, internal():
        as_blueprint(blueprint).save(application_id, path)
        return Path(path).read_bytes()


def preamble(start_time_nanos: int) -> bytes:
    """Return a stream with the properties of a recording that began at `start_time_nanos` (ns since the Unix epoch).

    The store id in the stream is a placeholder, not yet the id of the recording.
    """
    return encoded_by_sdk(lambda stream: stream.send_recording_start_time_nanos(start_time_nanos))


def warnings_by_sdk(entity_path: str, texts: Iterable[str]) -> bytes:
    """Return a stream with `texts` as log entries of level WARN, at the present time.

    The store id in the stream is a placeholder.
    """
    import rerun as rr

    def write(stream: rr.RecordingStream) -> None:
        for text in texts:
            stream.log(entity_path, rr.TextLog(text, level=rr.TextLogLevel.WARN))

    return encoded_by_sdk(write)

"""Looks up functions of the SDK before any test runs, and writes rows with these functions.

The pytest plugin writes its own rows with this module. A test may replace any public function of the SDK, such as
`rr.log`, and count its calls. The test must not see the calls of the plugin.

The functions are attributes of a class, because some tools replace functions in the globals of all loaded modules.

Covers: recordings, texts and properties that the plugin writes.
Does not cover: rows that the test logs (`copies.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow
import rerun

from mpr.sdk.private_names import original as _native
from mpr.sdk.recordings import Ids


class Native:
    """Holds functions and one class of the SDK, which are looked up once, when this module is imported.

    - `batcher_config`, `stream_of` and `unregister_shutdown` are functions of the SDK's Python modules.
    - `descriptor` is a class, and `ids` is a function of mpr.
    - All others are native functions without their wrappers, or None if this release of the SDK lacks them.

    A handle is the SDK's object that stands for one recording.
    """

    new_recording: Final = _native("new_recording")
    batcher_config: Final = rerun.ChunkBatcherConfig.LOW_LATENCY
    stream_of: Final = rerun.RecordingStream._from_native
    save: Final = _native("save")
    flush: Final = _native("flush")
    disconnect: Final = _native("disconnect")
    reset_time: Final = _native("reset_time")
    log_arrow_msg: Final = _native("log_arrow_msg")
    send_arrow_chunk: Final = _native("send_arrow_chunk")
    send_chunks: Final = _native("send_chunks")
    recording_id: Final = _native("get_recording_id")
    application_id: Final = _native("get_application_id")
    current: Final = _native("get_data_recording")
    current_of_process: Final = _native("get_global_data_recording")
    set_current_of_process: Final = _native("set_global_data_recording")
    current_of_thread: Final = _native("get_thread_local_data_recording")
    set_current_of_thread: Final = _native("set_thread_local_data_recording")
    escape: Final = _native("escape_entity_path_part")
    property_path: Final = _native("new_property_entity_path")
    descriptor = rerun.ComponentDescriptor
    clean_up: Final = _native("flush_and_cleanup_orphaned_recordings")
    unregister_shutdown: Final = rerun.unregister_shutdown

    @staticmethod
    def ids(handle: Any) -> Ids | None:
        """Return the ids of the recording with the handle `handle`; None if there is no such recording.

        If `handle` is None, the recording is the current one.
        """
        recording_id = Native.recording_id(handle)
        return None if recording_id is None else (Native.application_id(handle), recording_id)


class _Arrow:
    """Holds functions and types of Arrow, and `struct.pack`, with which this module makes Arrow arrays from bytes.

    `pyarrow.array` is not used, because each call of it imports a module.
    """

    from_buffers = pyarrow.Array.from_buffers
    buffer = pyarrow.py_buffer
    pack = struct.pack
    list_array = pyarrow.ListArray.from_arrays
    text, int32, int64, nanoseconds = pyarrow.utf8(), pyarrow.int32(), pyarrow.int64(), pyarrow.timestamp("ns")


def _numbers(kind: Any, numbers: Sequence[int]) -> Any:
    letter = "i" if kind == _Arrow.int32 else "q"
    data = _Arrow.pack(f"={len(numbers)}{letter}", *numbers)
    return _Arrow.from_buffers(kind, len(numbers), [None, _Arrow.buffer(data)])


def _texts(texts: Sequence[str]) -> Any:
    # File names may have lone surrogates, which are no valid text for Arrow.
    parts = [each.encode("utf-8", "backslashreplace") for each in texts]
    offsets = [0]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    buffers = [None, _Arrow.buffer(_Arrow.pack(f"={len(offsets)}i", *offsets)), _Arrow.buffer(b"".join(parts))]
    return _Arrow.from_buffers(_Arrow.text, len(parts), buffers)


def _one_text(text: str) -> Any:
    """Return the same array as `_texts([text])`, but faster."""
    data = text.encode("utf-8", "backslashreplace")
    buffers = [None, _Arrow.buffer(_Arrow.pack("=2i", 0, len(data))), _Arrow.buffer(data)]
    return _Arrow.from_buffers(_Arrow.text, 1, buffers)


class _TextLog:
    """Holds the descriptors of the two components of `rr.TextLog`: `text` and `level`.

    `levels` has an array for each level that `log_text` has used, by the level, so that the array is made only once.
    """

    text, level = (batch.component_descriptor() for batch in rerun.TextLog("text", level="INFO").as_component_batches())
    levels: Final[dict[str, Any]] = {}


class _TextDocument:
    """Holds the descriptors of the two components of `rr.TextDocument`: `text` and `media_type`."""

    text, media_type = (
        batch.component_descriptor()
        for batch in rerun.TextDocument("text", media_type="text/markdown").as_component_batches()
    )


def new_recording(application_id: str, recording_id: str) -> Any:
    """Make a recording with these ids and without a sink, and return its handle. The current recording stays."""
    return Native.new_recording(
        application_id=application_id,
        recording_id=recording_id,
        make_default=False,
        make_thread_default=False,
        default_enabled=True,
        send_properties=False,
        batcher_config=Native.batcher_config(),
    )


def log_text(handle: Any, path: str, text: str, level: str) -> None:
    """Log one `rr.TextLog`, with the present time and the times that this thread has set for the recording.

    `handle` is the handle of the recording, `path` the entity path, and `level` the level, such as "INFO".
    """
    levels = _TextLog.levels.get(level)
    if levels is None:
        levels = _TextLog.levels[level] = _texts([level])
    Native.log_arrow_msg(path, {_TextLog.text: _one_text(text), _TextLog.level: levels}, False, handle)


def send_texts(handle: Any, path: str, texts: Sequence[str], times: Sequence[float], level: str | None = None) -> None:
    """Log an `rr.TextLog` for each of `texts`.

    Parameters
    ----------
    handle:
        The handle of the recording.
    path:
        The entity path.
    texts:
        The texts.
    times:
        A time for each text, in seconds since the Unix epoch. The rows have only these times, on the timeline
        `log_time`.
    level:
        The level of all texts, such as "INFO"; None for no level.
    """
    offsets = _numbers(_Arrow.int32, range(len(texts) + 1))
    components = {_TextLog.text: _Arrow.list_array(offsets, _texts(texts))}
    if level is not None:
        components[_TextLog.level] = _Arrow.list_array(offsets, _texts([level] * len(texts)))
    index = _numbers(_Arrow.nanoseconds, [int(time * 1e9) for time in times])
    Native.send_arrow_chunk(path, timelines={"log_time": index}, components=components, recording=handle)


def send_property(handle: Any, name: str, values: Mapping[str, str | int]) -> None:
    """Write the property `name` of the recording with the handle `handle`.

    `values` has the value of each component of the property, by the component's name: a text, or an integer of 64 bits.
    """
    components = {
        Native.descriptor(key): _texts([value]) if isinstance(value, str) else _numbers(_Arrow.int64, [value])
        for key, value in values.items()
    }
    Native.log_arrow_msg(Native.property_path([name]), components, True, handle)


def log_document(handle: Any, path: str, text: str) -> None:
    """Log `text`, in Markdown, as one static `rr.TextDocument`.

    `handle` is the handle of the recording, and `path` the entity path.
    """
    components = {_TextDocument.text: _texts([text]), _TextDocument.media_type: _texts(["text/markdown"])}
    Native.log_arrow_msg(path, components, True, handle)

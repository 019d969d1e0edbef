"""Copies the rows that code logs to any recording to one more recording: that of the running test.

Code under test often makes a recording of its own (`rr.init`, `rr.RecordingStream`) and gives it sinks (`rr.save`). The
rows of such a recording go to its own sinks, as they do without mpr. In addition, this module makes each call once more
for the recording of the test. The copied rows have the times that the thread has set for the code's own recording.

A handle is the SDK's object that stands for one recording. A target (`Target`) has the recording that gets the copies.

Covers: the SDK's calls that log rows, set times, make recordings and change sinks.
Does not cover: calls that send data without a Python call per recording (`LazyChunkStream`, `UrdfTree`).

The calls are wrapped once per process. If a test itself runs pytest in the same process, only the inner run gets copies
until it ends.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any, Protocol

from mpr.sdk import internal, private_names
from mpr.sdk.native import Native
from mpr.sdk.times import watch_times

# Calls that log rows. The present times of a thread count for all but `send_arrow_chunk` and `send_chunks`.
_LOG_CALLS = ("log_arrow_msg", "send_arrow_chunk", "send_chunks", "log_file_from_path", "log_file_from_contents")
# Calls that give a recording another sink.
_SINK_CALLS = (
    "save", "set_sinks", "connect_grpc", "serve_grpc", "stdout", "memory_recording", "binary_stream", "spawn",
)  # fmt: skip


class Target(Protocol):
    """The interface of an object of the pytest plugin that has the recording to which rows are copied."""

    def handle(self) -> Any:
        """Return the handle of the recording that gets the copies; None if rows of this thread are not copied."""

    def is_ours(self, recording_id: str | None) -> bool:
        """Return True if the recording with the id `recording_id` belongs to the pytest plugin.

        The rows of such a recording are not copied.
        """

    def make_recording(self) -> Any:
        """Make a recording, and return its handle.

        This module calls the method if code under test gives the current recording another sink, for example by
        `rr.save`, and if this recording is that of the test. The new recording then becomes the current one and gets
        the sink, because the recording of the test must keep its own sink.
        """

    def logged(self) -> None:
        """Called by this module each time code under test logs rows, also if these rows are not copied.

        Not called while `handle` returns None.
        """


_Times = dict[str, tuple[Callable[..., None], Any]]


class _Thread(threading.local):
    """Holds times for each thread. Both attributes map the id of a recording to the times of this recording.

    `wanted` has the times that code has set. `shown` has the times that the recordings of tests have now.
    """

    def __init__(self) -> None:
        self.wanted: dict[str, _Times] = {}
        self.shown: dict[str, _Times] = {}


_thread = _Thread()
# The targets, the innermost last. Only the last one gets copies.
_targets: list[Target] = []
# Ids of recordings: those that code under test has made, those that mpr has made for itself, and those that
# `Target.make_recording` has made.
_made: set[str] = set()
_of_mpr: set[str] = set()
_stand_ins: set[str] = set()
_is_installed = False


def copy_to(target: Target) -> None:
    """Copy rows to the recording of `target` from now on.

    A target that was given before gets no copies until `stop(target)` is called.
    """
    global _is_installed
    _targets.append(target)
    if not _is_installed:
        _is_installed = True
        _install()


def stop(target: Target) -> None:
    """Copy no more rows to `target`. The target that was given before it gets the copies again."""
    with contextlib.suppress(ValueError):
        _targets.remove(target)


def forget_times(recording_id: str) -> None:
    """Forget which times this thread has set for the recording of a test, which has the id `recording_id`.

    Call this at the beginning of each test. The stream then writes a new file, and has no times, but this module still
    knows those of the previous test.
    """
    _thread.wanted.pop(recording_id, None)
    _thread.shown.pop(recording_id, None)


def _install() -> None:
    for name in _LOG_CALLS:
        private_names.wrap(name, functools.partial(_log_call, name))
    for name in _SINK_CALLS:
        private_names.wrap(name, _sink_call)
    private_names.wrap("disconnect", _disconnect)
    private_names.wrap("new_recording", _new_recording)
    private_names.wrap("finalize_deferred_sinks", _finalize)
    watch_times(_time_was_set)


def _target() -> Target | None:
    return _targets[-1] if _targets and not internal.thread.is_internal else None


# --- rows ----------------------------------------------------------------------------------------------------------


def _log_call(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    if name == "log_arrow_msg":

        @functools.wraps(original)
        def log(entity_path: str, components: Any, static_: bool, recording: Any = None) -> Any:
            # Its own wrapper, because packing and unpacking any arguments would make each `rr.log` slower.
            copy = _copy_of(recording)
            result = original(entity_path, components, static_, recording)
            if copy is not None:
                with contextlib.suppress(Exception):
                    original(entity_path, components, static_, copy)
            return result

        return log

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        copy = _copy_of(kwargs.get("recording"))
        if copy is not None and args and hasattr(args[0], "__next__"):
            # An iterator of chunks can be read only once.
            args = (list(args[0]), *args[1:])
        result = original(*args, **kwargs)
        if copy is not None:
            with contextlib.suppress(Exception):
                original(*args, **{**kwargs, "recording": copy})
        return result

    return call


def _copy_of(recording: Any) -> Any:
    """Return the handle of the test's recording if a row that is logged to `recording` must be copied, else None.

    `recording` is a handle; None stands for the current recording. If the row goes to the test's recording, directly or
    as a copy, this function first gives the test's recording the times that this thread has set for `recording`. It
    also calls `Target.logged`.
    """
    target = _target()
    handle = target.handle() if target is not None else None
    if target is None or handle is None:
        return None
    recording_id = Native.recording_id(recording)
    if recording_id is None or recording_id in _of_mpr:
        return None
    target.logged()
    its_id = Native.recording_id(handle)
    if recording_id == its_id:
        _show_times(handle, its_id, recording_id)
        return None
    is_of_code = recording is None or recording_id in _made or recording_id == Native.recording_id(None)
    if not is_of_code or target.is_ours(recording_id):
        return None
    _show_times(handle, its_id, recording_id)
    return handle


# --- times ---------------------------------------------------------------------------------------------------------


def _show_times(handle: Any, its_id: str, recording_id: str) -> None:
    """Give the test's recording the times that this thread has set for the recording with the id `recording_id`.

    `handle` and `its_id` are the handle and the id of the test's recording.
    """
    wanted, shown = _thread.wanted.get(recording_id), _thread.shown.get(its_id)
    if wanted == shown or (not wanted and not shown):
        return
    wanted, shown = wanted or {}, shown or {}
    if shown.keys() - wanted.keys():
        Native.reset_time(handle)
        shown = {}
    for timeline, time in wanted.items():
        if shown.get(timeline) != time:
            how, value = time
            how(timeline, value, handle)
    _thread.shown[its_id] = dict(wanted)


def _time_was_set(recording_id: str | None, timeline: str | None, time: tuple[Callable[..., None], Any] | None) -> None:
    target = _target()
    if recording_id is None or target is None:
        return
    noted = [_thread.wanted.setdefault(recording_id, {})]
    if target.is_ours(recording_id):
        noted.append(_thread.shown.setdefault(recording_id, {}))
    for times in noted:
        if timeline is None:
            times.clear()
        elif time is None:
            times.pop(timeline, None)
        else:
            times[timeline] = time


# --- recordings and their sinks ------------------------------------------------------------------------------------


def _new_recording(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def new_recording(*args: Any, **kwargs: Any) -> Any:
        handle = original(*args, **kwargs)
        recording_id = Native.recording_id(handle)
        if recording_id is not None:
            (_of_mpr if internal.thread.is_internal else _made).add(recording_id)
        return handle

    return new_recording


def _is_current(target: Target) -> bool:
    """Return True if the recording of `target` is the current recording of this thread."""
    handle = target.handle()
    return handle is not None and Native.recording_id(None) == Native.recording_id(handle)


def _sink_call(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a wrapper of `original`, a call of the SDK that changes a sink. The test's recording keeps its sink.

    If the call would change the sink of the test's recording, the wrapper makes a new recording the current one. The
    call then changes the sink of the new recording.
    """

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        target = _target()
        if target is not None and kwargs.get("recording") is None and _is_current(target):
            handle = target.make_recording()
            _stand_ins.add(Native.recording_id(handle))
            Native.set_current_of_process(handle)
        return original(*args, **kwargs)

    return call


def _disconnect(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def disconnect(recording: Any = None) -> Any:
        target = _target()
        if target is None or recording is not None:
            return original(recording)
        if _is_current(target):
            return None
        result = original(recording)
        if Native.recording_id(None) in _stand_ins:
            # The SDK would keep all later rows of this recording in memory.
            Native.set_current_of_process(target.handle())
        return result

    return disconnect


def _finalize(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def finalize_deferred_sinks(recording: Any = None) -> Any:
        target = _target()
        # The SDK would finish the file of the test's recording at the end of a `with stream:` block.
        if target is not None and target.is_ours(Native.recording_id(recording)):
            return None
        return original(recording)

    return finalize_deferred_sinks

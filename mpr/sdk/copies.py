"""Copies rows into the recording of the running test, if the code under test logs them to recordings of its own.

Code under test often makes a recording of its own (`rr.init`, `rr.RecordingStream`) and gives it sinks (`rr.save`). The
rows of such a recording go to its own sinks, as they do without mpr. In addition, this module makes each call that logs
rows once more for the recording of the test. The copied rows have the times that the thread has set for the code's own
recording.

A handle is the SDK's object that stands for one recording. A target (`Target`) has the recording that gets the copies.

Covers: the SDK's calls that log rows, set times and change sinks.
Does not cover: blueprints, and the names and starts of recordings.

The calls are wrapped while there is a target. Only the last target gets copies. The wrappers have the variable
`__tracebackhide__`, so that pytest does not show them if a call of the SDK raises an error.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol

from mpr.sdk import encoder, internal, kept_calls, private_names
from mpr.sdk.native import Native
from mpr.sdk.recordings import Ids
from mpr.sdk.times import SetTime, Times, watch_times

# Calls that log rows. The present times of a thread count for all but `send_arrow_chunk` and `send_chunks`.
_LOG_CALLS = ("log_arrow_msg", "send_arrow_chunk", "send_chunks", "log_file_from_path", "log_file_from_contents")
# Calls that log the rows of an object, with the object as first argument.
_SEND_CALLS = ("LazyChunkStreamInternal.send_to_recording", "_UrdfTreeInternal.log")
# Calls that give a recording another sink.
_SINK_CALLS = ("save", "set_sinks", "connect_grpc", "serve_grpc", "stdout", "memory_recording", "binary_stream")


class Target(Protocol):
    """The interface of an object of the pytest plugin that has the recording to which rows are copied."""

    def handle(self) -> Any:
        """Return the handle of the recording that gets the copies; None if rows of this thread are not copied."""

    def is_ours(self, ids: Ids | None) -> bool:
        """Return True if the recording with these ids belongs to the pytest plugin.

        The rows of such a recording are not copied.
        """

    def logged(self) -> None:
        """Called by this module when code under test logs rows.

        Not called while `handle` returns None, for rows of mpr itself, and for rows that the SDK drops.
        """


class _Thread(threading.local):
    """Holds the times of the present thread, by the ids of the recording for which they are set.

    `wanted` has the times that code has set. `shown` has the times that the recordings of tests have now.
    """

    def __init__(self) -> None:
        self.wanted: dict[Ids, Times] = {}
        self.shown: dict[Ids, Times] = {}


_thread = _Thread()
# The targets, the innermost last. Only the last one gets copies.
_targets: list[Target] = []
# For each wrapped function, what it was before, and the wrapper. Empty while nothing is wrapped.
_before: dict[str, Any] = {}
_wrappers: dict[str, Any] = {}


def copy_to(target: Target) -> None:
    """Copy rows to the recording of `target` from now on. Earlier targets get no copies until `stop(target)`."""
    _targets.append(target)
    if not _wrappers:
        _install()


def stop(target: Target) -> None:
    """Copy no more rows to `target`. The last one of the other targets gets the copies.

    If there is no other target, the calls are not wrapped any more, unless other code has wrapped them, too.
    """
    with suppress(ValueError):
        _targets.remove(target)
    # If other code has wrapped a call since then, its wrapper calls ours. Then ours stay, and are used again.
    if not _targets and all(private_names.find(name) is wrapper for name, wrapper in _wrappers.items()):
        private_names.put_back(_before)
        _before.clear()
        _wrappers.clear()


def forget_times(ids: Ids) -> None:
    """Note that this thread has no times any more for the test's recording, which has these `ids`."""
    _thread.wanted.pop(ids, None)
    _thread.shown.pop(ids, None)


def show_times_again(ids: Ids) -> None:
    """Have this thread set its times again before its next row, for the test's recording, which has these `ids`.

    Call this if other code has removed these times.
    """
    _thread.shown.pop(ids, None)


def _install() -> None:
    before = private_names.functions()
    for name in _LOG_CALLS:
        private_names.wrap(name, functools.partial(_log_call, name))
    for name in _SEND_CALLS:
        private_names.wrap(name, _send_call)
    for name in _SINK_CALLS:
        private_names.wrap(name, _sink_call)
    for name in (*_LOG_CALLS, *_SEND_CALLS):
        private_names.wrap(name, functools.partial(kept_calls.keeping, name, _times_of_rows))
    for name in ("new_recording", "set_global_data_recording"):
        private_names.wrap(name, _makes_current)
    private_names.wrap("is_enabled", _is_enabled)
    private_names.wrap("disconnect", _disconnect)
    private_names.wrap("finalize_deferred_sinks", _finalize)
    watch_times(_time_was_set)
    _wrappers.update((name, now) for name, now in private_names.functions().items() if now is not before[name])
    _before.update((name, before[name]) for name in _wrappers)


def _target() -> Target | None:
    return _targets[-1] if _targets and not internal.thread.is_internal else None


# --- rows ----------------------------------------------------------------------------------------------------------


def _log_call(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    if name == "log_arrow_msg":

        @functools.wraps(original)
        def log(entity_path: str, components: Any, static_: bool, recording: Any = None) -> Any:
            __tracebackhide__ = True
            # Its own wrapper, because packing and unpacking any arguments would make each `rr.log` slower.
            copy = _copy_of(recording)
            try:
                result = original(entity_path, components, static_, recording)
            except Exception:
                if not _needs_ours(recording):
                    raise
                result = None
            if copy is not None:
                with suppress(Exception):
                    original(entity_path, components, static_, copy)
            return result

        return log

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        copy = _copy_of(kwargs.get("recording"))
        if copy is not None and args and hasattr(args[0], "__next__"):
            # An iterator of chunks can be read only once.
            return original(_copied(args[0], original, copy), *args[1:], **kwargs)
        try:
            result = original(*args, **kwargs)
        except Exception:
            if not _needs_ours(kwargs.get("recording")):
                raise
            result = None
        if copy is not None:
            with suppress(Exception):
                original(*args, **{**kwargs, "recording": copy})
        return result

    return call


def _copied(chunks: Iterator[Any], send: Callable[..., Any], copy: Any) -> Iterator[Any]:
    """Yield each of `chunks`, after `send` has logged it to the recording with the handle `copy`.

    Errors of `send` are ignored.
    """
    __tracebackhide__ = True
    for chunk in chunks:
        with suppress(Exception):
            send(chunk, recording=copy)
        yield chunk


def _send_call(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def send(given: Any, recording: Any = None) -> Any:
        __tracebackhide__ = True
        copy = _copy_of(recording)
        if copy is None or not hasattr(given, "__iter__"):
            try:
                result = original(given, recording)
            except Exception:
                if not _needs_ours(recording):
                    raise
                result = None
            if copy is not None:
                with suppress(Exception):
                    original(given, copy)
            return result
        # The stream may call functions of the test for each chunk, and must not call them twice.
        for chunk in given:
            Native.send_chunks(chunk, recording=recording)
            with suppress(Exception):
                Native.send_chunks(chunk, recording=copy)
        return None

    return send


def _copy_of(recording: Any) -> Any:
    """Return the handle of the test's recording if a row that is logged to `recording` must be copied, else None.

    `recording` is a handle, or None for the current recording. If the row goes to the test's recording, directly or as
    a copy, that recording first gets the times that this thread has set for `recording`.
    """
    target = _target()
    handle = target.handle() if target is not None else None
    if target is None or handle is None:
        return None
    ids = Native.ids(recording)
    if ids in encoder.own_recordings or _is_disabled(recording, ids):
        return None
    target.logged()
    its_ids = Native.ids(handle)
    assert its_ids is not None, "a handle of the plugin stands for a recording"
    if ids != its_ids and target.is_ours(ids):
        return None
    _show_times(handle, its_ids, ids)
    return None if ids == its_ids else handle


def _is_disabled(recording: Any, ids: Ids | None) -> bool:
    """Return True if `recording` is switched off, so that the SDK drops all its rows.

    `recording` is a handle with these `ids`, or None for the current recording.
    """
    return ids is None and (recording is not None or Native.current() is not None)


def _times_of_rows(recording: Any) -> Times | None:
    """Return the times that this thread has set for `recording`, a handle or None for the current recording.

    Returns None if rows that are logged to `recording` do not get into the recording of a test.
    """
    target = _target()
    handle = target.handle() if target is not None else None
    if target is None or handle is None:
        return None
    ids = Native.ids(recording)
    if ids in encoder.own_recordings or _is_disabled(recording, ids):
        return None
    if ids != Native.ids(handle) and target.is_ours(ids):
        return None
    return {} if ids is None else _thread.wanted.get(ids, {})


# --- times ---------------------------------------------------------------------------------------------------------


def _show_times(handle: Any, its_ids: Ids, ids: Ids | None) -> None:
    """Give the test's recording the times that this thread has set for the recording with these `ids`.

    `handle` and `its_ids` are the handle and the ids of the test's recording. If `ids` is None, there are no times.
    """
    wanted = None if ids is None else _thread.wanted.get(ids)
    shown = _thread.shown.get(its_ids)
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
    _thread.shown[its_ids] = dict(wanted)


def _time_was_set(ids: Ids | None, timeline: str | None, time: tuple[SetTime, Any] | None) -> None:
    target = _target()
    if ids is None or target is None:
        return
    noted = [_thread.wanted.setdefault(ids, {})]
    if target.is_ours(ids):
        noted.append(_thread.shown.setdefault(ids, {}))
    for times in noted:
        if timeline is None:
            times.clear()
        elif time is None:
            times.pop(timeline, None)
        else:
            times[timeline] = time


# --- recordings and their sinks ------------------------------------------------------------------------------------


def _makes_current(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a wrapper of `original`, a call of the SDK that may give the process another current recording.

    If the call does so, the wrapper then calls `_leave_thread`, so that this thread uses the new current recording.
    """

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        result = original(*args, **kwargs)
        if _target() is not None and kwargs.get("make_default", True):
            _leave_thread()
        return result

    return call


def _leave_thread() -> None:
    """If this thread has chosen the test's recording for itself, let the thread use the current one of the process."""
    target = _target()
    handle = target.handle() if target is not None else None
    of_thread = Native.current_of_thread()
    if handle is not None and of_thread is not None and Native.ids(of_thread) == Native.ids(handle):
        Native.set_current_of_thread(None)


def _needs_ours(recording: Any) -> bool:
    """Return True if a call for `recording`, a handle or None for the current recording, has only the test's recording.

    Without the plugin, the SDK would have no recording for such a call. It would then do nothing, and raise nothing.
    """
    target = _target()
    return recording is None and target is not None and target.is_ours(Native.ids(None))


def _is_enabled(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a wrapper of `original` that gives the SDK's calls that change a sink the answer as without the plugin.

    These calls ask without an argument. `rr.is_enabled` names the argument, and its answer stays true: code that logs
    only if the answer is true is recorded.
    """

    @functools.wraps(original)
    def is_enabled(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return False if not args and not kwargs and _needs_ours(None) else original(*args, **kwargs)

    return is_enabled


def _sink_call(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a wrapper of `original`, a call of the SDK that changes a sink.

    If there is only the test's recording for the call, the wrapper does nothing.
    """

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return None if _needs_ours(kwargs.get("recording")) else original(*args, **kwargs)

    return call


def _disconnect(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def disconnect(recording: Any = None) -> Any:
        __tracebackhide__ = True
        return None if _needs_ours(recording) else original(recording)

    return disconnect


def _finalize(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def finalize_deferred_sinks(recording: Any = None) -> Any:
        __tracebackhide__ = True
        target = _target()
        # The SDK would finish the file of the test's recording at the end of a `with stream:` block.
        if target is not None and target.is_ours(Native.ids(recording)):
            return None
        return original(recording)

    return finalize_deferred_sinks

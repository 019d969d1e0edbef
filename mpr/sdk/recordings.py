"""Watches which recordings this process makes, and which recording is current in a thread or in the process.

A handle is the SDK's object that stands for one recording (`private_names.py`). Two recordings are the same for the SDK
if both of their ids are the same: the application id and the recording id.

Covers: new recordings, ids of recordings, and current recordings.
Does not cover: the decision which recording a call uses (`producer/router.py`), and sinks (`sink_calls.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from mpr.sdk import internal, private_names

if TYPE_CHECKING:
    import rerun as rr

#: The application id and the recording id of a recording.
Ids: TypeAlias = tuple[str | None, str]


class Handle:
    """Stands for the stream with the handle `inner` in calls of the SDK's public functions.

    A real `rr.RecordingStream` is not used, because it would end its recording when it is freed.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def to_native(self) -> Any:
        """Return the handle `inner`. The functions to which mpr gives this object call no other method of it."""
        return self.inner


def as_stream(inner: Any) -> rr.RecordingStream | None:
    """Return an object for the SDK's public functions, in place of the stream with the handle `inner`.

    Returns None if `inner` is None.
    """
    return None if inner is None else cast("rr.RecordingStream", Handle(inner))


def _handle_of(stream: rr.RecordingStream | None) -> Any:
    return None if stream is None else stream.to_native()


def divert_new_recordings(
    diverted: Callable[[], rr.RecordingStream | None],
    noted: Callable[[str | None, str | None], None],
    made: Callable[[Any], None],
    make_diverted_current: Callable[[rr.RecordingStream], None],
    switch_off: Callable[[Any], None],
    *,
    skips_clean_up: Callable[[], bool],
) -> bool:
    """Make `rr.init` in this process use the stream that `diverted()` returns, instead of a new recording.

    Wraps `new_recording` and `flush_and_cleanup_orphaned_recordings`. Returns True if this release of the SDK has these
    two native functions, else False.

    Parameters
    ----------
    diverted:
        Returns the stream to use; None if `rr.init` must make a new recording, as it does without mpr.
    noted:
        Called as `noted(application_id, recording_id)` with the arguments of `rr.init`, if `rr.init` uses the
        stream.
    made:
        Called with the handle of each new recording that does not become the current one of the process, such as an
        `rr.RecordingStream`. mpr's own recordings are left out.
    make_diverted_current:
        Called with the stream. Makes the stream the current recording.
    switch_off:
        Called with the handle of the recording that `rr.init(default_enabled=False)` makes in place of the stream.
        Makes this recording the current one. The SDK drops its rows.
    skips_clean_up:
        Returns True if `rr.init` must not clean up unused recordings, so that the global current recording stays.
    """

    def watched_new(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def new_recording(*args: Any, **kwargs: Any) -> Any:
            stream = diverted() if kwargs.get("make_default") else None
            if stream is not None and not kwargs.get("default_enabled", True):
                # Made by the SDK, because the variable `RERUN` may switch it on all the same.
                switched_off = original(*args, **{**kwargs, "make_default": False})
                if not is_enabled(switched_off):
                    switch_off(switched_off)
                    return switched_off
            if stream is None:
                inner = original(*args, **kwargs)
                if not kwargs.get("make_default") and not internal.thread.is_internal:
                    made(inner)
                return inner
            noted(kwargs.get("application_id"), kwargs.get("recording_id"))
            make_diverted_current(stream)
            return stream.to_native()

        return new_recording

    def watched_clean_up(clean_up: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(clean_up)
        def flush_and_cleanup_orphaned_recordings() -> None:
            if skips_clean_up():
                return
            stream = diverted()
            clean_up()
            if stream is not None:
                # No recording is current after the call.
                make_diverted_current(stream)

        return flush_and_cleanup_orphaned_recordings

    is_watched = private_names.wrap("new_recording", watched_new)
    return private_names.wrap("flush_and_cleanup_orphaned_recordings", watched_clean_up) and is_watched


# Calls that set a recording's name or start, each with the matching argument of `rr.archetypes.RecordingInfo`.
_RECORDING_INFO = {"send_recording_name": "name", "send_recording_start_time_nanos": "start_time"}


def divert_recording_info(diverted: Callable[[str, Any], tuple[rr.RecordingStream, str] | None]) -> None:
    """Make the SDK's calls that set a recording's name or start time write a property of another name instead.

    Otherwise, each process would overwrite the name and the start time that another process has set. This function
    calls `diverted(name of the SDK's call, handle of the recording)`. `diverted` returns the stream and the name of the
    property, or None if the SDK's call must be made as usual.
    """

    def wrapped(call: str, field: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def send(value: Any, recording: Any = None) -> None:
            found = diverted(call, recording)
            if found is None:
                original(value, recording=recording)
                return
            import rerun as rr

            stream, name = found
            stream.send_property(name, rr.archetypes.RecordingInfo(**{field: value}))

        return send

    for call, field in _RECORDING_INFO.items():
        private_names.wrap(call, functools.partial(wrapped, call, field))


@functools.cache
def ids_function() -> Callable[[Any], Ids | None]:
    """Return a function that does the same as `ids_of`, but is faster."""
    recording_id_of, application_id_of = map(private_names.find, ("get_recording_id", "get_application_id"))
    if recording_id_of is None or application_id_of is None:
        return _public_ids

    def ids(inner: Any) -> Ids | None:
        recording_id = recording_id_of(inner)
        return None if recording_id is None else (application_id_of(inner), recording_id)

    return ids


def _public_ids(inner: Any) -> Ids | None:
    import rerun as rr

    stream = as_stream(inner)
    recording_id = rr.get_recording_id(stream)
    return None if recording_id is None else (rr.get_application_id(stream), recording_id)


def ids_of(inner: Any) -> Ids | None:
    """Return the ids of the recording with the handle `inner`; None if there is no such recording.

    If `inner` is None, the recording is the current one.
    """
    return ids_function()(inner)


def handles_of(ids: Ids | None, handles: list[Any], inner: Any) -> list[Any]:
    """Return a list of all `handles` with these `ids`. If `inner` is one of these handles, the list has only `inner`.

    Several handles may have the same ids, because a program may make several recordings with the same ids, and the SDK
    may give several handles of one recording.
    """
    same = [each for each in handles if ids_of(each) == ids]
    return [each for each in same if each is inner] or same


def encoded_rows_of(inner: Any) -> Any:
    """Give the recording with the handle `inner` a new sink in memory, and return the SDK's object that has its bytes.

    The method `read` of this object returns the encoded rows, beginning with those that the SDK has kept for the
    recording until now.
    """
    found = private_names.find("binary_stream")
    if found is not None:
        return found(recording=inner)
    import rerun as rr

    return rr.binary_stream(as_stream(inner))


def is_enabled(inner: Any) -> bool:
    """Return True if the SDK does not drop the rows of the recording with the handle `inner`."""
    import rerun as rr

    return rr.is_enabled(as_stream(inner))


@functools.cache
def watch_handles(given: Callable[[Any], None]) -> None:
    """Call `given(handle)` each time that the SDK returns the handle of a current recording to other code than mpr.

    A second call with the same function does nothing.
    """

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            handle = original(*args, **kwargs)
            if handle is not None and not internal.thread.is_internal:
                given(handle)
            return handle

        return call

    for name in ("get_data_recording", "get_global_data_recording", "get_thread_local_data_recording"):
        private_names.wrap(name, watched)


def global_ids() -> Ids | None:
    """Return the ids of the current recording of the process; None if there is none."""
    native = _get_current("get_global_data_recording")
    return None if native is None else ids_of(native)


def clean_up_recordings() -> None:
    """Let the SDK end the threads of recordings that nothing uses any more.

    Afterwards the process has no current recording. The current recordings of threads stay. Does nothing if this
    release of the SDK lacks `flush_and_cleanup_orphaned_recordings`. In a forked process, the SDK raises an error about
    the recordings of the parent. This error is ignored.
    """
    found = private_names.find("flush_and_cleanup_orphaned_recordings")
    if found is not None:
        # The SDK raises an error in a forked process if the process has recordings of its parent.
        with suppress(RuntimeError):
            found()


_SET_CURRENT = ("set_thread_local_data_recording", "set_global_data_recording")


def watch_current(changed: Callable[[Any, bool], None]) -> bool:
    """Call `changed(handle, of_thread)` before each change of the current recording of this process or of a thread.

    `handle` is the handle of the new current recording; None if there is none. `of_thread` is True if the change
    concerns only the calling thread. Changes by `rr.init` (see `divert_new_recordings`), by `make_current` and by
    `exchange_global_recording` are not watched.

    Returns False, and watches nothing, if this release of the SDK lacks a function of `_SET_CURRENT`, else True.
    """
    if any(private_names.find(name) is None for name in _SET_CURRENT):
        return False

    def watched(of_thread: bool, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            changed(args[0] if args else kwargs.get("recording"), of_thread)
            return original(*args, **kwargs)

        return call

    for name in _SET_CURRENT:
        private_names.wrap(name, functools.partial(watched, name == "set_thread_local_data_recording"))
    return True


def make_current(stream: rr.RecordingStream) -> None:
    """Make `stream` the current recording of the process, and let this thread have none of its own."""
    _set_current("set_thread_local_data_recording", None)
    _set_current("set_global_data_recording", stream.to_native())


def exchange_thread_recording(native: Any) -> Any:
    """Make the recording with the handle `native` the current one of this thread, and return the previous handle.

    None, as argument or result, means that the thread has no recording of its own. Wrappers of mpr see this change.
    """
    before = _get_current("get_thread_local_data_recording")
    found = private_names.find("set_thread_local_data_recording")
    if found is not None:
        found(native)
    else:
        _set_current("set_thread_local_data_recording", native)
    return before


def exchange_global_recording(native: Any) -> Any:
    """Make the recording with the handle `native` the current one of the process, and return the previous handle.

    None, as argument or result, means that the process has no current recording. Wrappers of mpr do not see this change
    (see `make_global`).
    """
    before = _get_current("get_global_data_recording")
    _set_current("set_global_data_recording", native)
    return before


def current_handles() -> tuple[Any, Any]:
    """Return the handles of two current recordings: that of this thread, and that of the process.

    A handle is None if there is no such recording.
    """
    return _get_current("get_thread_local_data_recording"), _get_current("get_global_data_recording")


def make_global(native: Any) -> None:
    """Make the recording with the handle `native` the current one of the process. Wrappers of mpr see this change."""
    found = private_names.find("set_global_data_recording")
    if found is not None:
        found(native)
    else:
        _set_current("set_global_data_recording", native)


def choose(native: Any, *, of_thread: bool) -> None:
    """Make the recording with the handle `native` the current one of this thread. Wrappers of mpr see this change.

    If `of_thread` is false, the recording becomes that of the process instead, and this thread has none of its own.
    """
    if not of_thread:
        make_global(native)
    exchange_thread_recording(native if of_thread else None)


def current_recording() -> tuple[Any, Ids | None]:
    """Return the handle and the ids of the current recording in this thread; (None, None) if there is none."""
    native = _get_current("get_data_recording")
    return native, None if native is None else ids_of(native)


def _set_current(name: str, inner: Any) -> None:
    """Call the function `name` of the SDK's native module with the handle `inner`, without the wrapper of mpr.

    If this release of the SDK has no such native function, calls the public function `rr.<name>` instead.
    """
    found = private_names.original(name)
    if found is not None:
        found(inner)
        return
    import rerun as rr

    getattr(rr, name)(as_stream(inner))


def _get_current(name: str) -> Any:
    """Return the handle that the function `name` of the SDK's native module returns; None if it returns no recording.

    If this release of the SDK has no such native function, calls the public function `rr.<name>` instead.
    """
    found = private_names.original(name)
    if found is not None:
        return found()
    import rerun as rr

    return _handle_of(getattr(rr, name)())

"""Watches which recordings this process makes, and which recording is current in a thread or in the process."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpr.sdk import internal

if TYPE_CHECKING:
    import rerun as rr


def divert_new_recordings(
    diverted: Callable[[], rr.RecordingStream | None],
    noted: Callable[[str | None, str | None], None],
    made: Callable[[Any], None],
) -> None:
    """Make `rr.init` in this process use the stream that `diverted()` returns, instead of a new recording.

    The stream becomes the current one, and `noted(application_id, recording_id)` is called with the arguments of
    `rr.init`. If `diverted()` returns None, `rr.init` works as it does without mpr. The user may also make a recording
    that is not the default one, such as an `rr.RecordingStream`. The SDK makes this recording as usual, and `made` is
    called with its handle.
    """
    import rerun_bindings

    original = rerun_bindings.new_recording

    @functools.wraps(original)
    def new_recording(*args: Any, **kwargs: Any) -> Any:
        stream = diverted() if kwargs.get("make_default") else None
        if stream is None:
            inner = original(*args, **kwargs)
            if not kwargs.get("make_default") and not internal.thread.is_internal:
                made(inner)
            return inner
        noted(kwargs.get("application_id"), kwargs.get("recording_id"))
        make_current(stream)
        return stream.inner

    rerun_bindings.new_recording = new_recording
    clean_up = rerun_bindings.flush_and_cleanup_orphaned_recordings

    @functools.wraps(clean_up)
    def flush_and_cleanup_orphaned_recordings() -> None:
        try:
            clean_up()
        except RuntimeError:
            # `rr.init` calls this function first. In a forked process the SDK raises an error here, because the process
            # still has its parent's recordings.
            if diverted() is None:
                raise

    rerun_bindings.flush_and_cleanup_orphaned_recordings = flush_and_cleanup_orphaned_recordings


# Calls that set a recording's name or start, each with the matching argument of `rr.archetypes.RecordingInfo`.
_RECORDING_INFO = {"send_recording_name": "name", "send_recording_start_time_nanos": "start_time"}


def divert_recording_info(diverted: Callable[[str, str | None], tuple[rr.RecordingStream, str] | None]) -> None:
    """Make the SDK's calls that set a recording's name or start write a property of another name instead.

    The reason is that many processes write the recording, and each would overwrite the name and the start that another
    has set. `diverted(call, recording id)` returns the stream and the name of the property. If `diverted` returns None,
    the SDK's call is made as usual.
    """
    import rerun_bindings

    def wrapped(call: str, field: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def send(value: Any, recording: Any = None) -> None:
            found = diverted(call, rerun_bindings.get_recording_id(recording))
            if found is None:
                original(value, recording=recording)
                return
            import rerun as rr

            stream, name = found
            stream.send_property(name, rr.archetypes.RecordingInfo(**{field: value}))

        return send

    for call, field in _RECORDING_INFO.items():
        original = getattr(rerun_bindings, call, None)
        if original is not None:
            setattr(rerun_bindings, call, wrapped(call, field, original))


def recording_id_of(inner: Any) -> str | None:
    """Return the id of the recording with the SDK's handle `inner`."""
    import rerun_bindings

    found: str | None = rerun_bindings.get_recording_id(inner)
    return found


def encoded_rows_of(inner: Any) -> Any:
    """Return a storage into which the SDK writes the encoded rows of a recording from now on.

    The rows that the SDK has kept for the recording come first.
    """
    import rerun_bindings

    return rerun_bindings.binary_stream(recording=inner)


def clean_up_recordings() -> None:
    """Let the SDK end the threads of unused recordings. There is no current recording afterwards."""
    import rerun_bindings

    rerun_bindings.flush_and_cleanup_orphaned_recordings()


_SET_CURRENT = ("set_thread_local_data_recording", "set_global_data_recording")


def watch_current(changed: Callable[[Any, bool], None]) -> bool:
    """Call `changed(handle, of_thread)` whenever the current recording of this process or of a thread is changed.

    `handle` is the SDK's handle of the new recording; None for none. `of_thread` says whether the recording is current
    in the calling thread only. Returns whether this release of the SDK has both functions of `_SET_CURRENT`. Calls of
    `rr.init` are not watched, because `rr.init` uses `new_recording` instead.
    """
    import rerun_bindings

    if not all(hasattr(rerun_bindings, name) for name in _SET_CURRENT):
        return False

    def watched(original: Callable[..., Any], *, of_thread: bool) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            changed(args[0] if args else kwargs.get("recording"), of_thread)
            return original(*args, **kwargs)

        return call

    for name in _SET_CURRENT:
        of_thread = name == "set_thread_local_data_recording"
        setattr(rerun_bindings, name, watched(getattr(rerun_bindings, name), of_thread=of_thread))
    return True


def make_current(stream: rr.RecordingStream) -> None:
    """Make `stream` the current recording in this thread, and in each other thread without its own recording."""
    try:
        import rerun_bindings

        inspect.unwrap(rerun_bindings.set_thread_local_data_recording)(None)
        inspect.unwrap(rerun_bindings.set_global_data_recording)(stream.inner)
    except (AttributeError, ImportError, TypeError):
        import rerun as rr

        rr.set_thread_local_data_recording(None)
        rr.set_global_data_recording(stream)


def exchange_thread_recording(native: Any) -> Any:
    """Make `native` the recording of this thread; None stands for no recording. Returns the previous recording."""
    import rerun_bindings

    before = rerun_bindings.get_thread_local_data_recording()
    rerun_bindings.set_thread_local_data_recording(native)
    return before


def current_recording() -> tuple[Any, str | None]:
    """Return the handle and the id of the current recording in this thread; (None, None) if there is none."""
    import rerun_bindings

    native = rerun_bindings.get_data_recording(None)
    return native, None if native is None else rerun_bindings.get_recording_id(native)

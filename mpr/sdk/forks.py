"""Handles the streams and servers of the SDK that a forked process has from its parent and cannot use.

The SDK's threads do not survive a fork. If a forked process logged to a stream of its parent, the rows would be lost
without an error.

Covers: the objects of the SDK in a forked process.
Does not cover: how a forked process joins a recording (`producer/membership.py`).
"""

from __future__ import annotations

import copyreg
import functools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpr.sdk import internal, private_names

if TYPE_CHECKING:
    import rerun as rr


class _ForkState:
    """Holds three flags of this process."""

    #: True if this process was forked from another process.
    is_forked = False
    #: True if `leave_parents_recordings` was called.
    is_watched = False
    #: True if the program has made a recording since the fork. Without a fork: since `leave_parents_recordings`.
    has_recording = False


_process = _ForkState()


def leave_parents_recordings() -> None:
    """Prevent errors of the SDK about the recordings that a forked process has from its parent.

    In a forked process, `rr.init` then ignores these recordings, and the SDK's `shutdown` does nothing unless the
    program has made a recording since the fork. A second call of this function does nothing.

    Call this before any other module of mpr wraps `new_recording`. An `rr.init` that the other wrapper diverts then
    does not count as a new recording.
    """
    if _process.is_watched:
        return
    _process.is_watched = True

    def watched(new_recording: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(new_recording)
        def watched_new_recording(*args: Any, **kwargs: Any) -> Any:
            _process.has_recording |= not internal.thread.is_internal
            return new_recording(*args, **kwargs)

        return watched_new_recording

    def unless_forked(shutdown: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(shutdown)
        def shutdown_unless_forked() -> None:
            if _process.has_recording or not _process.is_forked:
                shutdown()

        return shutdown_unless_forked

    def tolerated(clean_up: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(clean_up)
        def clean_up_own() -> None:
            try:
                clean_up()
            except RuntimeError:
                # `rr.init` calls this function first. In a forked process the SDK raises an error here, because the
                # process still has the recordings of its parent, such as those of mpr.
                if not _process.is_forked:
                    raise

        return clean_up_own

    private_names.wrap("flush_and_cleanup_orphaned_recordings", tolerated)
    private_names.wrap("new_recording", watched)
    private_names.wrap("shutdown", unless_forked)


def _note_fork() -> None:
    _process.is_forked, _process.has_recording = True, False
    if "rerun" in sys.modules:
        leave_parents_recordings()


os.register_at_fork(after_in_child=_note_fork)


def never_free(value: object) -> None:
    """Keep `value` in memory until this process has ended, also during the exit of the interpreter.

    The reason is that the SDK prints an error if a forked process frees a binary stream that it has from its parent.
    """
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def forbid_preloaded_servers() -> None:
    """Make `CatalogClient` and `Server` of the SDK raise `RuntimeError` in this process.

    Call this in a worker whose fork server has preloaded (imported) the SDK. Without the error, the two classes would
    wait without limit for threads of the SDK that exist only in the fork server.
    """
    import rerun as rr

    def refuse(self: object, *_args: object, **_kwargs: object) -> None:
        raise RuntimeError(
            f"{type(self).__name__} does not work in a worker whose fork server preloaded the Rerun SDK (it would "
            "hang): use mpr.Pool(..., preload=False)"
        )

    rr.catalog.CatalogClient.__init__ = refuse  # type: ignore[method-assign]  # replaced on purpose
    rr.server.Server.__init__ = refuse  # type: ignore[method-assign]  # replaced on purpose


def redirect_stream(stream: rr.RecordingStream, own: Callable[[], rr.RecordingStream]) -> None:
    """Make each use of `stream`, which belongs to the parent of this process, use the stream that `own()` returns."""
    stream.__class__ = _forked_stream_type()
    stream._mpr_target = own  # type: ignore[attr-defined]  # an attribute of the class below


@functools.cache
def _forked_stream_type() -> Any:
    # The class is made on first use, because processes without the SDK import this module too.
    import rerun as rr

    class ForkedStream(rr.RecordingStream):
        _mpr_target: Callable[[], rr.RecordingStream]

        # All methods of a stream use the handle of the recording that this attribute returns.
        @property
        def inner(self) -> Any:  # type: ignore[override]  # it is never set
            return self._mpr_target().to_native()

        def to_native(self) -> Any:
            return self._mpr_target().to_native()

        def __del__(self) -> None:  # type: ignore[no-untyped-def, unused-ignore]  # as in the SDK
            # Nothing is cleaned up, because the recording in this stream belongs to the parent.
            pass

    copyreg.pickle(ForkedStream, _as_argument)
    return ForkedStream


def _as_argument(stream: Any) -> Any:
    found = stream._mpr_target()
    return copyreg.dispatch_table[type(found)](found)

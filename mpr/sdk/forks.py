"""Replaces streams and servers of the SDK that a forked process has from its parent and cannot use.

The SDK's threads do not survive a fork. If a forked process logged to a stream of its parent, the rows would be lost
without an error. So mpr redirects such a stream to the forked process's own stream of the same recording.
"""

from __future__ import annotations

import copyreg
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rerun as rr


def forbid_preloaded_servers() -> None:
    """Make `CatalogClient` and `Server` of the SDK raise an error in this process, which has a preloaded SDK.

    Without this error, both classes would hang. They need the SDK's async runtime, and its threads exist only in the
    fork server that preloaded the SDK. The threads did not survive the fork.
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
    """Make `stream` lead to the stream that `own()` returns. Each use of `stream` calls `own()`."""
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

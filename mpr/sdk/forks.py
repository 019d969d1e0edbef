"""Streams that a forked process has from its parent: once it uses one, it leads to the process's own way to the
recording. The threads behind the parent's did not survive the fork, and whatever went there would be lost in silence.
"""

from __future__ import annotations

import copyreg
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rerun as rr


def forbid_preloaded_servers() -> None:
    """Let what hangs in a child of a fork server that preloaded `rerun` raise instead.

    The threads of the SDK's async runtime do not survive the fork: `CatalogClient` and `Server` never answer.
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
    """Let `stream` be `own()` of this process from now on, which is asked for whenever it is used."""
    stream.__class__ = _forked_stream_type()
    stream._mpr_target = own  # type: ignore[attr-defined]  # of the class below


@functools.cache
def _forked_stream_type() -> Any:
    # Not where the SDK is not in use: this module is imported by processes that fork without it.
    import rerun as rr

    class ForkedStream(rr.RecordingStream):
        _mpr_target: Callable[[], rr.RecordingStream]

        # All that a stream does, it does with this.
        @property
        def inner(self) -> Any:  # type: ignore[override]  # it is never set
            return self._mpr_target().inner

        def __del__(self) -> None:  # type: ignore[no-untyped-def, unused-ignore]  # as in the SDK
            # There is nothing in it that is this process's.
            pass

    copyreg.pickle(ForkedStream, _as_argument)
    return ForkedStream


def _as_argument(stream: Any) -> Any:
    found = stream._mpr_target()
    return copyreg.dispatch_table[type(found)](found)

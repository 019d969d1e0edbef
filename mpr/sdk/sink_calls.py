"""Watches the calls of the SDK that change the sink of a recording."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mpr.sdk import internal

# Calls of the SDK that give a recording another sink, or take its sink away.
_SINK_CALLS = (
    "save",
    "set_sinks",
    "connect_grpc",
    "serve_grpc",
    "stdout",
    "memory_recording",
    "binary_stream",
    "disconnect",
    "shutdown",
    "spawn",
)


def watch_sinks(
    skips: Callable[[str, str | None], bool],
    changes: Callable[[str, str | None], None],
    changed: Callable[[str, str | None], None],
) -> None:
    """Call `changes` before and `changed` after each SDK call in this process that may change a recording's sink.

    If `skips` returns true, the SDK's call is not made. All three functions get the name of the SDK's call and the
    recording id. The id is None for `shutdown`, which concerns all recordings.
    """
    import rerun_bindings

    def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if internal.thread.is_internal:
                return original(*args, **kwargs)
            concerned = None if name == "shutdown" else rerun_bindings.get_recording_id(kwargs.get("recording"))
            if skips(name, concerned):
                return None
            changes(name, concerned)
            try:
                return original(*args, **kwargs)
            finally:
                changed(name, concerned)

        return call

    for name in _SINK_CALLS:
        original = getattr(rerun_bindings, name, None)
        if original is not None:
            setattr(rerun_bindings, name, watched(name, original))


def keep_sinks(is_ours: Callable[[str | None], bool]) -> None:
    """Keep the sink of a stream open after a `with stream:` block, if `is_ours(recording id)` is true.

    Otherwise the SDK would finish a file sink at the end of the block, and lose rows that are logged later.
    """
    import rerun_bindings

    original = getattr(rerun_bindings, "finalize_deferred_sinks", None)
    if original is None:
        return

    @functools.wraps(original)
    def finalize_deferred_sinks(recording: Any = None) -> None:
        if not is_ours(rerun_bindings.get_recording_id(recording)):
            original(recording)

    rerun_bindings.finalize_deferred_sinks = finalize_deferred_sinks

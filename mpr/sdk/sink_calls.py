"""Watches the calls of the SDK that change the sink of a recording, and makes some of them without their destination.

The destination of a call is the file, the server or the viewer to which the recording would send its rows. A handle is
the SDK's object that stands for one recording.

Covers: which calls there are, which recording they concern, and the rest of a call whose destination is skipped.
Does not cover: the decision which calls are skipped, and the reaction to the others (`producer/router.py`).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from mpr.sdk import callers, encoder, internal, private_names, recordings

# Calls of the SDK that give a recording another sink, or take its sink away.
_SINK_CALLS = (
    "save",
    "set_sinks",
    "connect_grpc",
    "serve_grpc",
    "stdout",
    "memory_recording",
    "binary_stream",
    "set_callback_sink",
    "disconnect",
    "shutdown",
    "spawn",
)
# Calls, and classes of sinks of `rr.set_sinks`, that only show the rows.
_LIVE_CALLS = {"connect_grpc", "serve_grpc", "stdout", "spawn"}
_LIVE_SINKS = {"GrpcSink", "GrpcServerSink"}
# The port that the SDK serves at if the caller names none.
_DEFAULT_PORT = 9876


class SinkCall(NamedTuple):
    """Describes a call that may change the sink of a recording.

    Attributes
    ----------
    name:
        The name of the function in the SDK's native module.
    recording:
        The handle of the recording; None for the current one.
    ids:
        The ids of the recording; None if there is no such recording, and for `shutdown`, which concerns all
        recordings.
    is_live:
        True if the call only shows the rows of an existing recording, in a viewer, by a server or on the standard
        output.
    """

    name: str
    recording: Any
    ids: recordings.Ids | None
    is_live: bool = False


def watch_sinks(
    skips: Callable[[SinkCall], bool],
    changes: Callable[[SinkCall], None],
    changed: Callable[[SinkCall], None],
) -> None:
    """Call `changes` before and `changed` after each SDK call in this process that may change a recording's sink.

    `changed` is also called if the SDK call raises an exception. If `skips` returns True, neither `changes` nor
    `changed` is called, and the SDK call does not change the sink. Only its blueprint is sent to the recording, and the
    caller gets a result of the usual type. If the start of a server was skipped, `rr.serve_web_viewer` shows no page
    for this server. Calls of mpr itself are not watched.
    """

    def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if internal.thread.is_internal:
                return original(*args, **kwargs)
            made = _sink_call(name, args, kwargs)
            if skips(made):
                return _without_destination(made, args, kwargs)
            changes(made)
            try:
                return original(*args, **kwargs)
            finally:
                changed(made)

        return call

    for name in _SINK_CALLS:
        private_names.wrap(name, functools.partial(watched, name))
    private_names.wrap("serve_web_viewer", _without_skipped_servers)


def _sink_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SinkCall:
    if name == "shutdown":
        return SinkCall(name, None, None)
    recording = kwargs.get("recording")
    if name == "spawn":
        # The native call only starts a viewer. Its caller then connects this stream to the viewer.
        stream = callers.argument_of("spawn", "recording")
        recording = None if stream is None else stream.to_native()
    sinks = args[0] if args else kwargs.get("sinks", ())
    kinds = {type(each).__name__ for each in sinks} if name == "set_sinks" else set()
    is_live = name in _LIVE_CALLS or (bool(kinds) and kinds <= _LIVE_SINKS)
    ids = recordings.ids_of(recording)
    return SinkCall(name, recording, ids, is_live and ids is not None)


# --- calls whose destination is skipped -----------------------------------------------------------------------------

# The URLs that callers got for servers that were not started.
_skipped_urls: set[str] = set()


def _without_destination(call: SinkCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Send the blueprint of `call`, if it has one, but do not open the destination. Return a result of the usual type.

    `args` and `kwargs` are the arguments of the SDK's function. The result is a URL, an object from which no rows can
    be read, or None.
    """
    blueprint = kwargs.get("default_blueprint")
    send = private_names.find("send_blueprint")
    if blueprint is not None and send is not None:
        # As the SDK does: the default blueprint, and active only if there is no other.
        send(blueprint, make_active=False, make_default=True, recording=call.recording)
    if call.name == "serve_grpc":
        port = (args[0] if args else kwargs.get("grpc_port")) or _DEFAULT_PORT
        url = f"rerun+http://127.0.0.1:{port}/proxy"
        _skipped_urls.add(url)
        return url
    if call.name in ("binary_stream", "memory_recording"):
        return private_names.original(call.name)(recording=_empty_stream(os.getpid()).to_native())
    return None


@functools.cache
def _empty_stream(_pid: int) -> Any:
    """Return a stream to which nothing logs, for skipped calls of `rr.binary_stream` and `rr.memory_recording`.

    There is one stream for each process id, because a forked process cannot use the stream of its parent.
    """
    with internal.internal():
        return encoder.new_stream("mpr", "mpr-empty")


def _without_skipped_servers(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a wrapper of `original`, which is `serve_web_viewer`.

    If the page would connect to a server whose start was skipped, the wrapper shows no page, and returns None.
    """

    @functools.wraps(original)
    def serve_web_viewer(*args: Any, **kwargs: Any) -> Any:
        connect_to = kwargs.get("connect_to", args[2] if len(args) > 2 else None)
        return None if connect_to in _skipped_urls else original(*args, **kwargs)

    return serve_web_viewer


# --- the end of a `with` block --------------------------------------------------------------------------------------


def keep_sinks(is_ours: Callable[[Any], bool]) -> None:
    """Keep the sink of a stream open at the end of a `with stream:` block, if `is_ours(handle)` returns True.

    `handle` is the handle of the stream; None for the current recording. Without this, the SDK would finish a file sink
    at the end of the block, and rows that are logged later would be lost.
    """

    def kept(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def finalize_deferred_sinks(recording: Any = None) -> None:
            if not is_ours(recording):
                original(recording)

        return finalize_deferred_sinks

    private_names.wrap("finalize_deferred_sinks", kept)

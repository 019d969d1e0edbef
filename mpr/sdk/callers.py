"""Finds out which public function of the SDK the user's code has called, so that messages name this function.

The native module of the SDK is `rerun_bindings`. One public function may call several of its functions:
`rr.init(spawn=True)` calls three. A wrapper is a function of mpr in place of a native function.

Covers: the stack of Python frames from the wrapper to the user's code.
Does not cover: the wrappers (`log_calls.py`, `sink_calls.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any


def _sdk_frames() -> Iterator[FrameType]:
    """Yield the Python frames of the SDK from which the wrapper of a native function was called, the innermost first.

    Yields nothing if the user's code has called the native function itself.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _package(frame) == "mpr":
        frame = frame.f_back
    while frame is not None and _package(frame) == "rerun":
        yield frame
        frame = frame.f_back


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def public_call(name: str) -> str:
    """Return the user's call of the SDK that has led to the native function `name`, as a text such as "rr.save()".

    For a decorator, the text is "@rr.thread_local_stream" or the like. If the user's code has called the native
    function itself, the text is "rerun_bindings.<name>()". Call this only within a wrapper of the native function,
    because the text is made from the present Python stack.
    """
    frames = list(_sdk_frames())
    if not frames:
        return f"rerun_bindings.{name}()"
    function, is_inner, _ = frames[-1].f_code.co_qualname.partition(".<locals>")
    if is_inner:
        return f"@rr.{function}"
    if function == "RecordingStream.__init__":
        return "rr.RecordingStream(make_default=True)"
    return "rr.init(spawn=True)" if function == "init" and name != "new_recording" else f"rr.{function}()"


def argument_of(function: str, argument: str) -> Any:
    """Return the value of the parameter `argument` in the running call of the SDK's function `function`.

    Returns None if this function is not running, or has no such parameter. Call this only within a wrapper of a native
    function, because the function is looked up in the present Python stack.
    """
    for frame in _sdk_frames():
        if frame.f_code.co_name == function:
            return frame.f_locals.get(argument)
    return None

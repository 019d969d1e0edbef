"""Finds out which public function of the SDK the user's code has called, so that messages name this function.

One public function may make several calls of the native module: `rr.init(spawn=True)` makes three.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any


def _sdk_frames() -> Iterator[FrameType]:
    """Yield the frames of the SDK that lead to the present call of the native module, from the inner to the outer."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _package(frame) == "mpr":
        frame = frame.f_back
    while frame is not None and _package(frame) == "rerun":
        yield frame
        frame = frame.f_back


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def public_call(name: str) -> str:
    """Return the call in the user's code that leads to the present call of the native module's function `name`.

    The result is a text such as "rr.save()" or "rr.init(spawn=True)". Only call this within a wrapper of the native
    function.
    """
    frames = list(_sdk_frames())
    if not frames:
        return f"rerun_bindings.{name}()"
    function, is_inner, _ = frames[-1].f_code.co_qualname.partition(".<locals>")
    if is_inner:
        return f"@rr.{function}"
    return "rr.init(spawn=True)" if function == "init" and name != "new_recording" else f"rr.{function}()"


def argument_of(function: str, argument: str) -> Any:
    """Return the value that the argument `argument` of the SDK's public function `function` has.

    Returns None if `function` does not lead to the present call of the native module, or has no such argument. Only
    call this within a wrapper of a function of the native module.
    """
    for frame in _sdk_frames():
        if frame.f_code.co_name == function:
            return frame.f_locals.get(argument)
    return None

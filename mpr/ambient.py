"""The recording that stands in where a pool or a shared recording is given no sinks: that of the test which runs.

The pytest plugin sets it; nobody else does. It takes the rows of any application id.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rerun as rr

_current: rr.RecordingStream | None = None
_pid = 0
# What writes into ambient recordings: one per pool or shared recording that is not closed.
_writers: weakref.WeakSet[Any] = weakref.WeakSet()


def set_current(stream: rr.RecordingStream | None) -> None:
    """Let `stream` stand in from now on; None: nothing does."""
    global _current, _pid
    _current, _pid = stream, os.getpid()


def current() -> rr.RecordingStream | None:
    """What stands in at this moment; nothing in a forked child, where the stream does not live."""
    return _current if _pid == os.getpid() else None


def opened(writer: Any) -> None:
    """`writer` writes into an ambient recording until it is `closed`."""
    _writers.add(writer)


def closed(writer: Any) -> None:
    _writers.discard(writer)


def open_writers() -> int:
    """How many pools and shared recordings write into ambient recordings."""
    return len(_writers)

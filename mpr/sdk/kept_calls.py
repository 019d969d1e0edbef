"""Keeps calls of the SDK that log rows, and makes them again for another recording.

The pytest plugin does this with the rows that a fixture logs in its setup, because several tests may use the fixture.

A handle is the SDK's object that stands for one recording.

Covers: keeping calls with their times, up to a limit, and making them again.
Does not cover: which calls belong to a test (`copies.py`), and when they are kept (`pytest_plugin/recording`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow
import rerun.chunk

from mpr.sdk import private_names
from mpr.sdk.native import Native
from mpr.sdk.times import Times

#: The most that a `KeptCalls` keeps: bytes of data, and calls. All tests that use a fixture get its rows once more.
MOST_BYTES, MOST_CALLS = 4_000_000, 2_000


class _Arrays:
    """Holds the functions of Arrow and the SDK that this module uses, because a test may replace them later."""

    array = pyarrow.Array
    concat = pyarrow.concat_arrays
    batch = pyarrow.RecordBatch.from_arrays
    chunks = rerun.chunk.Chunk.from_record_batch


class _Call(NamedTuple):
    """A call that logs rows: its function, its arguments without the recording, and the times of its rows."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    times: Times


class KeptCalls:
    """Keeps the calls that log rows for a test, in all threads, from the creation of this object until `close`.

    Attributes
    ----------
    is_too_large:
        True if there were more than `MOST_BYTES` bytes of data, or more than `MOST_CALLS` calls. This object then
        keeps no calls, and `repeat` makes none.
    """

    def __init__(self) -> None:
        self.is_too_large: bool = False
        self._calls: list[_Call] = []
        self._size = 0
        _open.append(self)

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: _Call) -> None:
        """Keep `call`. If the calls are too many or too large now, drop all of them, and keep no later ones."""
        if self.is_too_large:
            return
        self._size += _size_of(call)
        if self._size > MOST_BYTES or len(self._calls) == MOST_CALLS:
            self.is_too_large = True
            self._calls.clear()
        else:
            kwargs = {name: _owned(value) for name, value in call.kwargs.items()}
            self._calls.append(call._replace(args=tuple(map(_owned, call.args)), kwargs=kwargs))

    def close(self) -> None:
        _open.remove(self)

    def repeat(self, handle: Any) -> None:
        """Make all kept calls again in this thread, for the recording with the handle `handle`.

        Afterwards, this thread has no times for this recording. Raises the errors of the SDK.
        """
        for call in self._calls:
            Native.reset_time(handle)
            for timeline, (set_time, value) in call.times.items():
                set_time(timeline, value, handle)
            call.function(*call.args, **call.kwargs, recording=handle)
        Native.reset_time(handle)


# The objects that keep calls now.
_open: list[KeptCalls] = []


_LAZY_STREAM = "LazyChunkStreamInternal.send_to_recording"
# The calls whose argument `recording` may have no name, with its place.
_PLACES = {"log_arrow_msg": 3, _LAZY_STREAM: 1, "_UrdfTreeInternal.log": 1}


def keeping(name: str, times_of: Callable[[Any], Times | None], wrapped: Callable[..., Any]) -> Callable[..., Any]:
    """Return a wrapper of `wrapped` that keeps the calls.

    `wrapped` is the SDK's function `name`, which logs rows, or another wrapper of this function. The returned wrapper
    adds each call to all `KeptCalls` that are not closed, unless `times_of` returns None. A lazy stream of chunks is
    read only once, and kept as a call of `send_chunks`.

    `times_of` takes the handle of a recording, or None for the current one. It returns the times of rows that this
    thread logs there, or None if these rows are not kept.
    """
    original = private_names.original(name)
    place = _PLACES.get(name, sys.maxsize)
    send_chunks = private_names.find("send_chunks")

    @functools.wraps(wrapped)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if _open:
            recording = args[place] if len(args) > place else kwargs.get("recording")
            times = times_of(recording)
            if times is not None:
                if name == _LAZY_STREAM:
                    # The stream may call functions of the test for each chunk, and must not call them again later.
                    return send_chunks(list(args[0]), recording=recording)
                if args and hasattr(args[0], "__next__"):
                    # An iterator of chunks can be read only once.
                    args = (list(args[0]), *args[1:])
                others = {key: value for key, value in kwargs.items() if key != "recording"}
                for kept in _open:
                    kept.add(_Call(original, args[:place], others, dict(times)))
        return wrapped(*args, **kwargs)

    return call


def _owned(value: Any) -> Any:
    """Return `value`, an argument of a call, with copies of its arrays and of the arrays in its chunks.

    They are copied because the code under test may later write into an array that it has logged.
    """
    if isinstance(value, dict):
        return {key: _owned(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_owned(each) for each in value]
    if isinstance(value, _Arrays.array):
        # One array alone would not be copied.
        return _Arrays.concat([value, value.slice(0, 0)])
    if hasattr(value, "to_record_batch"):
        batch = value.to_record_batch()
        chunks = _Arrays.chunks(_Arrays.batch([_owned(each) for each in batch.columns], schema=batch.schema))
        # A chunk without rows becomes no chunk.
        return chunks[0]._internal if chunks else value
    return value


def _size_of(call: _Call) -> int:
    """Return about how many bytes of data the arguments of `call` have. A file given by its path counts as 0."""
    size = 0
    for value in (*call.args, *call.kwargs.values()):
        if isinstance(value, bytes):
            size += len(value)
            continue
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else (value,)
        for part in parts:
            data = part.to_record_batch() if hasattr(part, "to_record_batch") else part
            size += getattr(data, "nbytes", 0)
    return size

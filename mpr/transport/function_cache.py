"""Remembers which task functions a worker has received.

The parent keeps a list of functions for each worker, and the worker keeps the same list. So the parent knows, without
asking the worker, if it must send a function.

Covers: which functions are kept.
Does not cover: sending a function (`scheduler/worker_handle.py`), and unpickling it (`worker/loop.py`).
"""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")

#: The largest number of functions that a worker keeps. Without this limit, a program that makes a new function for each
#: call would fill the worker's memory.
FUNCTIONS_KEPT = 64


class FunctionCache(Generic[V]):
    """Keeps a value for each of the 64 functions that were used last (`FUNCTIONS_KEPT`).

    The key of a function is its digest: a hash of its pickle (16 bytes). Parent and worker each have a cache, and make
    the same calls in the same order. So the two caches drop the same functions.
    """

    def __init__(self) -> None:
        self._values: dict[bytes, V] = {}

    def use(self, digest: bytes) -> V | None:
        """Return the value for `digest`, and count this function as used last. Returns None if there is no value."""
        value = self._values.pop(digest, None)
        if value is not None:
            self._values[digest] = value
        return value

    def keep(self, digest: bytes, value: V) -> None:
        """Keep `value` for `digest`, and count this function as used last.

        If there are more than 64 functions, delete the value of the least recently used one.
        """
        self._values.pop(digest, None)
        self._values[digest] = value
        if len(self._values) > FUNCTIONS_KEPT:
            del self._values[next(iter(self._values))]

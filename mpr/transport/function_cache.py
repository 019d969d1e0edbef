"""Remembers the task functions that a worker has.

Parent and worker keep the same list. So the parent knows without asking which functions it must send.
"""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")

#: The number of functions that a worker keeps. It is bounded, because a program may make a new function for each call,
#: and these functions must not fill the worker's memory.
FUNCTIONS_KEPT = 64


class FunctionCache(Generic[V]):
    """Keeps the values that were used last, by the digest of the function.

    The parent uses a digest when it sends a work item. The worker uses the digest when the work item arrives. Both do
    so in the same order, so both drop the same functions.
    """

    def __init__(self) -> None:
        self._values: dict[bytes, V] = {}

    def use(self, digest: bytes) -> V | None:
        """Return the value for `digest`; None if there is none. After that, this value counts as used last."""
        value = self._values.pop(digest, None)
        if value is not None:
            self._values[digest] = value
        return value

    def keep(self, digest: bytes, value: V) -> None:
        """Keep `value` as the one used last. If there are too many values, drop the one used the longest time ago."""
        self._values.pop(digest, None)
        self._values[digest] = value
        if len(self._values) > FUNCTIONS_KEPT:
            del self._values[next(iter(self._values))]

"""Knows which functions a worker has: parent and worker keep the same list, so that neither asks the other."""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")

#: How many functions stay in a worker, because a program that makes a new one for each call must not fill its memory.
FUNCTIONS_KEPT = 64


class FunctionCache(Generic[V]):
    """Keeps the values that were used last, by the digest of the function.

    The parent uses each digest when it sends a work item, and the worker when the work item comes. Both do so in the
    same order, so both have forgotten the same functions.
    """

    def __init__(self) -> None:
        self._values: dict[bytes, V] = {}

    def use(self, digest: bytes) -> V | None:
        """The value for `digest`, which is now the one used last; None if there is none."""
        value = self._values.pop(digest, None)
        if value is not None:
            self._values[digest] = value
        return value

    def keep(self, digest: bytes, value: V) -> None:
        """Keep `value` as the one used last, and drop the one that was not used for longest."""
        self._values.pop(digest, None)
        self._values[digest] = value
        if len(self._values) > FUNCTIONS_KEPT:
            del self._values[next(iter(self._values))]

"""Which functions a worker has: both sides keep the same list, so that nobody need ask."""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")

#: So many functions stay in a worker: a program that makes a new one for each call must not fill its memory.
FUNCTIONS_KEPT = 64


class FunctionCache(Generic[V]):
    """What was used last, by the digest of the function.

    The parent uses each digest when it sends a work item, the worker when the work item comes, in the same order: what
    one
    side has forgotten, so has the other.
    """

    def __init__(self) -> None:
        self._values: dict[bytes, V] = {}

    def use(self, digest: bytes) -> V | None:
        """What is kept for `digest`, which is now the one used last; None where there is nothing."""
        value = self._values.pop(digest, None)
        if value is not None:
            self._values[digest] = value
        return value

    def keep(self, digest: bytes, value: V) -> None:
        """Keep `value` as the one used last; the one that was not used for longest goes."""
        self._values.pop(digest, None)
        self._values[digest] = value
        if len(self._values) > FUNCTIONS_KEPT:
            del self._values[next(iter(self._values))]

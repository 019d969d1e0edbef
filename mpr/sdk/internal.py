"""Marks calls of the SDK as mpr's own: they count for no task, and change nothing that a task has set."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class _CallOrigin(threading.local):
    """Says whether the SDK calls of the present thread are mpr's own."""

    is_internal = False


thread = _CallOrigin()


@contextlib.contextmanager
def internal() -> Iterator[None]:
    """Mark the SDK calls of this thread as mpr's own within the block: the wrappers only pass them on."""
    outer, thread.is_internal = thread.is_internal, True
    try:
        yield
    finally:
        thread.is_internal = outer

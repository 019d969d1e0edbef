"""Marks SDK calls as mpr's own. Such calls do not count as logging of a task, or as changes that a task makes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class _CallOrigin(threading.local):
    """Holds, for each thread, whether its SDK calls are mpr's own."""

    is_internal = False


thread: _CallOrigin = _CallOrigin()


@contextlib.contextmanager
def internal() -> Iterator[None]:
    """Mark the SDK calls of this thread within the block as mpr's own. Such calls do not count as calls of a task."""
    outer, thread.is_internal = thread.is_internal, True
    try:
        yield
    finally:
        thread.is_internal = outer

"""Marks SDK calls as mpr's own. Such calls do not count as logging of a task, or as changes that a task makes.

Covers: the mark, one for each thread.
Does not cover: the wrappers of SDK calls, which read the mark (`log_calls.py`, `sink_calls.py`, `recordings.py`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class _CallOrigin(threading.local):
    """Holds one value for each thread: `is_internal` is True while the SDK calls of the thread are mpr's own."""

    is_internal = False


thread: _CallOrigin = _CallOrigin()


@contextlib.contextmanager
def internal() -> Iterator[None]:
    """Mark the SDK calls of this thread within the `with` block as mpr's own."""
    outer, thread.is_internal = thread.is_internal, True
    try:
        yield
    finally:
        thread.is_internal = outer

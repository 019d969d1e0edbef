"""Marks SDK calls as mpr's own, so that they count for no task and change nothing that a task has set."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class _ThreadState(threading.local):
    """Whether the SDK calls that this thread makes are mpr's own."""

    is_internal = False


thread = _ThreadState()


@contextlib.contextmanager
def internal() -> Iterator[None]:
    """Within it, the SDK calls of this thread are mpr's own: the wrapped calls pass them on and do nothing else."""
    outer, thread.is_internal = thread.is_internal, True
    try:
        yield
    finally:
        thread.is_internal = outer

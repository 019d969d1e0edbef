"""SDK calls that are mpr's own, and concern no task."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class _Ours(threading.local):
    """Whether the sink call that this thread makes is mpr's own."""

    now = False


ours = _Ours()


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """Within, what this thread does with sinks is mpr's own business."""
    ours.now = True
    try:
        yield
    finally:
        ours.now = False

"""Makes files in memory, and returns the paths by which the SDK can open these files.

Covers: files within this process. Does not cover: outboxes, which other processes open (`transport/outbox.py`).
"""

from __future__ import annotations

import os
import sys


def memory_file(name: str) -> int | None:
    """Return the descriptor of a new file in memory; None if the system has no such files (macOS)."""
    return os.memfd_create(name, os.MFD_CLOEXEC) if sys.platform == "linux" else None


def path_of(fd: int) -> str:
    """Return a path by which this process can open the file of descriptor `fd` a second time."""
    return f"/proc/self/fd/{fd}" if sys.platform == "linux" else f"/dev/fd/{fd}"

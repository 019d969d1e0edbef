"""Keeps a warning from tests that would not have it without us: Python 3.12 and later warn of a fork in a process with
threads, and count those of the SDK, also those that only the recording of the test has brought.

Not kept from a test that has threads of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable

# Threads of the SDK that come and go with a file.
_COME_AND_GO = ("file_writer", "ChunkBatcher", "RecordingStream")


class Watch:
    """Of this process.

    Parameters
    ----------
    running:
        Tells which test runs in this very process.
    """

    def __init__(self, running: Callable[[], object | None]) -> None:
        self._running: Callable[[], object | None] | None = running
        self._before = set(_threads())
        self._ours: set[str] = set()
        if sys.version_info >= (3, 12):
            os.register_at_fork(before=self._forks)

    def threads_have_come(self) -> None:
        """All threads that have come since this was made are ours."""
        self._ours = set(_threads()) - self._before

    def close(self) -> None:
        self._running = None

    def _forks(self) -> None:
        if self._running is None or self._running() is None:
            return
        theirs = [name for thread, name in _threads().items() if thread not in self._ours]
        if sum(not name.startswith(_COME_AND_GO) for name in theirs) <= 1:
            # Ends with the test, as all filters that a test sets.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of .*fork", DeprecationWarning)


def _threads() -> dict[str, str]:
    """The system's threads of this process and their names; empty where it has no /proc."""
    found = {}
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/comm") as comm:
                found[thread] = comm.read().strip()
    return found

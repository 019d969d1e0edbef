"""Suppresses a warning about forks that a test would not get without mpr.

Python 3.12 and later warn of a fork in a process with threads. They also count the threads of the SDK that only record
the test. If the test itself has threads, it gets the warning.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable

# Names of threads of the SDK that start and end with a file.
_COME_AND_GO = ("file_writer", "ChunkBatcher", "RecordingStream")


class Watch:
    """Watches the forks of this process.

    Parameters
    ----------
    running:
        Returns the test that runs in this process, or None.
    """

    def __init__(self, running: Callable[[], object | None]) -> None:
        self._running: Callable[[], object | None] | None = running
        self._before = set(_threads())
        self._ours: set[str] = set()
        if sys.version_info >= (3, 12):
            os.register_at_fork(before=self._forks)

    def threads_have_come(self) -> None:
        """Count all threads that were started since this object was made as mpr's."""
        self._ours = set(_threads()) - self._before

    def close(self) -> None:
        self._running = None

    def _forks(self) -> None:
        if self._running is None or self._running() is None:
            return
        theirs = [name for thread, name in _threads().items() if thread not in self._ours]
        if sum(not name.startswith(_COME_AND_GO) for name in theirs) <= 1:
            # pytest removes the filter with all filters of the test.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of .*fork", DeprecationWarning)


def _threads() -> dict[str, str]:
    """Return the system's threads of this process with their names; empty if there is no /proc."""
    found = {}
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/comm") as comm:
                found[thread] = comm.read().strip()
    return found

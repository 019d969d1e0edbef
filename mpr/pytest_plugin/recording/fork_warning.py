"""Suppresses a warning about forks that a test would not get without mpr.

Python 3.12 and later warn if a process with several threads forks. Python also counts the threads of the SDK, which a
test has only because it is recorded. If the test has threads of its own, the warning is not suppressed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable

# The beginnings of the names of SDK threads that start and end with each file.
_COME_AND_GO = ("file_writer", "ChunkBatcher", "RecordingStream")


class Watch:
    """Suppresses the warning when this process forks while a test runs.

    Parameters
    ----------
    running:
        The function that returns the test that runs in this process, or None.
    """

    def __init__(self, running: Callable[[], object | None]) -> None:
        self._running: Callable[[], object | None] | None = running
        self._before = set(_threads())
        self._ours: set[str] = set()
        if sys.version_info >= (3, 12):
            os.register_at_fork(before=self._forks)

    def threads_have_come(self) -> None:
        """Treat each thread that runs now, but did not run when this object was made, as a thread of mpr."""
        self._ours = set(_threads()) - self._before

    def close(self) -> None:
        self._running = None

    def _forks(self) -> None:
        if self._running is None or self._running() is None:
            return
        # The threads of the test, one of which is the main thread.
        theirs = [name for thread, name in _threads().items() if thread not in self._ours]
        if sum(not name.startswith(_COME_AND_GO) for name in theirs) <= 1:
            # The filter need not be removed here, because pytest removes all filters at the end of the test.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of .*fork", DeprecationWarning)


def _threads() -> dict[str, str]:
    """Return the names of the threads of this process by their ids. The dict is empty if there is no `/proc`."""
    found = {}
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/comm") as comm:
                found[thread] = comm.read().strip()
    return found

"""Suppresses a warning about forks that a test would not get without mpr.

Python 3.12 and later warn if a process with several threads forks. Python also counts the threads of the SDK, which a
test has only because it is recorded. If `/proc` shows that the test has threads of its own, the warning is not
suppressed.

Covers: which threads belong to mpr and the SDK, and a function that Python calls before each fork.
Does not cover: what a forked process does with the recording (`recorder.py`).
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress

from mpr.pytest_plugin.recording import system
from mpr.pytest_plugin.recording.system import System

# The beginnings of the names of SDK threads that start and end with each file.
_COME_AND_GO = ("file_writer", "ChunkBatcher", "RecordingStream")
# The `Watch` objects that are not closed. There are several if a test runs pytest.
_watches: list[Watch] = []
_is_registered = False


class Watch:
    """Suppresses the warning when this process forks while a test runs, from the creation of this object until `close`.

    The warning is not suppressed if the test has threads of its own (`hides`).

    Parameters
    ----------
    running:
        A function that returns the test that runs in this process, or None.
    """

    def __init__(self, running: Callable[[], object | None]) -> None:
        global _is_registered
        self.running = running
        self._before = set(_threads())
        self._ours: set[str] = set()
        _watches.append(self)
        # Python cannot unregister the function. So it is registered once, even if this process runs pytest often.
        if sys.version_info >= (3, 12) and not _is_registered:
            _is_registered = True
            os.register_at_fork(before=_forks)

    def threads_have_come(self) -> None:
        """Treat all threads that have started since this object was made as threads of mpr.

        Call this method when mpr has just made a stream of the SDK, which starts threads.
        """
        self._ours = set(_threads()) - self._before

    def hides(self, threads: dict[str, str]) -> bool:
        """Return True if the warning must be suppressed: a test runs, and has no thread besides the main thread.

        Threads of mpr and of the SDK do not count. `threads` has the names of all threads of this process by their ids.
        If there is no `/proc`, `threads` is empty, and the result is True if a test runs.
        """
        theirs = [name for thread, name in threads.items() if thread not in self._ours]
        return self.running() is not None and sum(not name.startswith(_COME_AND_GO) for name in theirs) <= 1

    def close(self) -> None:
        if self in _watches:
            _watches.remove(self)


def _forks() -> None:
    if _watches and any(each.hides(_threads()) for each in _watches):
        # The filter need not be removed here, because pytest removes all filters at the end of the test.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of .*fork", DeprecationWarning)


def _threads() -> dict[str, str]:
    """Return the names of the threads of this process by their ids. The dict is empty if there is no `/proc`."""
    found = {}
    with suppress(OSError):
        for thread in System.listdir("/proc/self/task"):
            with suppress(OSError):
                found[thread] = system.read_all(f"/proc/self/task/{thread}/comm").decode(errors="replace").strip()
    return found

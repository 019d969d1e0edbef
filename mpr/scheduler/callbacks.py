"""Runs the callbacks of users in a thread of their own, so that a callback may wait for anything but its own pool.

A callback may log to the recording, call the pool, or block. In the aggregator's thread, which takes rows and results
of all processes, it would then wait for itself.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable

from mpr.threads import CALLBACKS, is_thread_of_ours
from mpr.user_code import Contained


class Callbacks:
    """Runs callbacks one after another. The pool is not done before all of them have run.

    The thread lives only as long as there are callbacks to run.

    Parameters
    ----------
    begin, end:
        Called before a callback waits for its turn, and after it has run. The pool is not done in between.
    """

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin = begin
        self._end = end
        # Guards what follows. Only threads of mpr take this lock.
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None

    def run(self, what: str, call: Callable[[], object]) -> None:
        """Run `call`, which calls a callback for `what`. If a thread of mpr calls this, `call` runs in the own thread.

        If `call` raises, this is only logged. In `multiprocessing.Pool` such an error ends the thread that handles
        results, and all calls hang.
        """
        contained = functools.partial(_contained, what, call)
        if not is_thread_of_ours():
            contained()
            return
        self._begin()
        with self._lock:
            self._waiting.append(contained)
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name=CALLBACKS, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            # The system gives no more threads.
            self._run()

    def is_here(self) -> bool:
        """Whether the present thread runs a callback of this pool."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                call = self._waiting.popleft()
            try:
                call()
            finally:
                self._end()


def _contained(what: str, call: Callable[[], object]) -> None:
    with Contained("a callback for %s raised", what):
        call()

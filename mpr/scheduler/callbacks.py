"""Runs the callbacks of users outside of the other threads of mpr, so that a callback may wait for results of the pool.

The aggregator's thread, which receives rows and results, cannot run callbacks: a callback that waits for a result would
wait for its own thread. So it gives them to a thread that only runs callbacks.

Covers: the thread, and errors of callbacks.
Does not cover: which callbacks a call has (`pool/results.py`, `pool/executor.py`).
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable

from mpr.threads import CALLBACKS, is_thread_of_ours
from mpr.user_code import Contained


class Callbacks:
    """Runs the callbacks of one pool. Callbacks from mpr's threads run one after another, in a thread of their own.

    This thread ends when no callback is left. The next callback starts another thread.

    Parameters
    ----------
    begin, end:
        Called before a callback is put into the queue for this thread, and after the callback has run.
    """

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin = begin
        self._end = end
        # Guards what follows. Only threads of mpr take this lock.
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None

    def run(self, what: str, call: Callable[[], object]) -> None:
        """Run `call`, which calls a user's callback. An exception is logged, and not raised (see `Contained`).

        `what` names in the log what the callback belongs to, such as "task detect". If a thread of mpr calls this
        method, the thread of this object runs `call` later. If another thread calls this method, or if no thread can be
        started, the calling thread runs `call` now.
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
        """Return True if the calling thread is the thread that runs the callbacks of this pool."""
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

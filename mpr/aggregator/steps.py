"""Provides a queue of steps. A step is a function without arguments that one thread calls for other threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from mpr.threads import aside


class StepQueue:
    """Runs steps in the thread that owns the queue, in the order in which other threads have added them.

    Parameters
    ----------
    wake:
        Wakes the owning thread. Any thread may call it.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._steps: deque[Callable[[], None]] = deque()
        self._is_woken = False
        #: True if the owning thread has ended. Each step then runs as soon as it is added.
        self.closed: bool = False

    def __bool__(self) -> bool:
        """Return True if steps wait to be run."""
        return bool(self._steps)

    def add(self, step: Callable[[], None]) -> None:
        """Have the owning thread run `step`. If that thread has ended, run `step` before this method returns.

        Any thread and any signal handler may call this method, because the method takes no lock.
        """
        self._steps.append(step)
        if self.closed:
            # `aside` runs the step in another thread if this is the main thread. A step takes locks. The main thread
            # must hold no lock, because a handler of a signal may interrupt it and need the same lock.
            aside(lambda: self._run(len(self._steps)))
        elif not self._is_woken:
            # Ctrl-C may interrupt the calling thread before `_wake`. The owning thread still finds the step, because
            # its wait for messages has a limit.
            self._is_woken = True
            self._wake()

    def run(self, most: int) -> None:
        """Run the steps that wait, in their order, but at most `most` of them. Only the owning thread may call this."""
        # Reset before the steps run, because a thread that adds a step from now on must wake the owning thread again.
        self._is_woken = False
        self._run(most)

    def close(self) -> None:
        """Run all steps that wait, because the owning thread ends. From now on, `add` itself runs each step."""
        self.closed = True
        self._run(len(self._steps))

    def _run(self, most: int) -> None:
        for _ in range(most):
            try:
                step = self._steps.popleft()
            except IndexError:
                return
            step()

"""Steps that other threads have the aggregator's thread do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class StepQueue:
    """Calls functions in the thread that owns the queue, in the order in which other threads have added them.

    Parameters
    ----------
    wake:
        Wakes the owning thread. Any thread may call it.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._steps: deque[Callable[[], None]] = deque()
        self._is_woken = False
        #: Whether the owning thread has ended: whoever adds a step runs it.
        self.closed = False

    def __bool__(self) -> bool:
        """Whether steps wait."""
        return bool(self._steps)

    def add(self, step: Callable[[], None]) -> None:
        """Any thread: have `step` done by the owning thread, or by this thread if the owning one has ended."""
        self._steps.append(step)
        if self.closed:
            self._run(len(self._steps))
        elif not self._is_woken:
            # If Ctrl-C interrupts this thread here, the owning thread still looks when its wait for messages ends.
            self._is_woken = True
            self._wake()

    def run(self, most: int) -> None:
        """Do up to `most` steps, in the owning thread."""
        # Reset first: a thread that adds a step later sees it, and wakes again.
        self._is_woken = False
        self._run(most)

    def close(self) -> None:
        """Do all steps. From now on the threads that add steps run them."""
        self.closed = True
        self._run(len(self._steps))

    def _run(self, most: int) -> None:
        for _ in range(most):
            try:
                step = self._steps.popleft()
            except IndexError:
                return
            step()

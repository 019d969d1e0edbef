"""Runs the steps of several threads in one thread, one after another, so that the steps need no lock.

A step is a function without arguments.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

from mpr.threads import Latch, SimpleQueue, start_aside
from mpr.user_code import Contained


class StepThread:
    """A thread that runs steps in the order in which they come. A handler of a signal may call the methods, too.

    If a step raises, the error is logged, and the thread continues. After the end of the thread, the thread that calls
    `soon` or `do` runs the step itself.

    Parameters
    ----------
    name:
        The name of the thread.
    after_each:
        Called after each step, in the thread that has run the step.
    """

    def __init__(self, name: str, after_each: Callable[[], None]) -> None:
        self._after_each = after_each
        self._steps: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        #: True if the thread has ended. The thread that gives a step then runs this step itself.
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        start_aside(self._thread)

    def soon(self, step: Callable[[], object]) -> None:
        """Have the thread run `step`, without waiting. If the thread has ended, the calling thread runs `step`."""
        self._steps.put(step)
        if self._is_over:
            self._run_left()

    def do(self, step: Callable[[], object]) -> None:
        """Have the thread run `step`, and wait until it has ended. In the thread itself, `step` runs at once.

        If `step` raises, `do` raises the error only in the thread itself. For other callers, the error is only logged.
        """
        if threading.current_thread() is self._thread:
            step()
            return
        is_over = Latch()

        def run() -> None:
            try:
                step()
            finally:
                is_over.set()

        self.soon(run)
        # No limit, because the steps before this one are short.
        is_over.wait()

    def close(self) -> None:
        """End the thread when it has run all steps that were given before. This method does not wait."""
        self._steps.put(None)

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            self._run_one(step)
        self._is_over = True
        self._run_left()

    def _run_one(self, step: Callable[[], object]) -> None:
        with Contained("a step of an engine's pool raised"):
            step()
        self._after_each()

    def _run_left(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                step = self._steps.get_nowait()
                if step is not None:
                    self._run_one(step)

"""Steps that may never come back, in a thread that nobody has to wait for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class SideThread:
    """Does one step after another, each waited for with a bound.

    Parameters
    ----------
    name:
        Of the thread. It is a daemon: a step that hangs ends with the process.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], None], _Outcome] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def do(self, step: Callable[[], None], timeout_secs: float) -> bool:
        """Do `step`; False where it has not come back in time. Raises what it raises."""
        outcome = _Outcome()
        self._work.put((step, outcome))
        if not outcome.done.wait(timeout_secs):
            return False
        if outcome.error is not None:
            raise outcome.error
        return True

    def end(self) -> None:
        """After the present step, if that comes back."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            step, outcome = work
            try:
                step()
            except Exception as error:  # noqa: BLE001  # raised in the thread that waits
                outcome.error = error
            outcome.done.set()


class _Outcome:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: Exception | None = None

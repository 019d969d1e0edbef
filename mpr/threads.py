"""Threads of mpr's own: steps that run to their end, and threads that end within a bounded time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


def is_thread_of_ours() -> bool:
    return threading.current_thread().name.startswith("mpr-")


def run_to_completion(step: Callable[[], None], *, wait: bool = True) -> None:
    """Do `step` and, with `wait`, wait for it; it goes on to its end also where Ctrl-C ends the waiting.

    The interpreter waits for its thread at exit. In a thread of ours (a callback ends its pool, or the last reference
    to it goes in one) nobody waits here: the step has to wait for that thread.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001  # raised below, in the thread that waits
            raised.append(error)

    thread = threading.Thread(target=run, name="carry-through", daemon=False)
    try:
        thread.start()
    except RuntimeError:
        # The interpreter is at its end, and starts no threads any more.
        step()
        return
    if is_thread_of_ours() or not wait:
        return
    thread.join()
    if raised:
        raise raised[0]


class BoundedThread:
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

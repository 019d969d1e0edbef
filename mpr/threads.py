"""Runs steps in threads: to their end in spite of Ctrl-C, or with a bound on the wait for them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


def is_thread_of_ours() -> bool:
    """Return whether the present thread is one of mpr's own."""
    return threading.current_thread().name.startswith("mpr-")


def run_to_completion(step: Callable[[], None], *, wait: bool = True) -> None:
    """Run `step` to completion in a thread and, with `wait`, wait for it. Ctrl-C ends the wait, not the step.

    The interpreter waits for the thread at its exit. If the caller is a thread of mpr's own, this function never waits,
    because the step waits for that thread. This happens if a callback ends its pool, or drops the last reference to it.
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
        # The interpreter is at its end, and starts no more threads.
        step()
        return
    if is_thread_of_ours() or not wait:
        return
    thread.join()
    if raised:
        raise raised[0]


class BoundedThread:
    """A thread that runs one step after another, each with a bound on the wait for it.

    Parameters
    ----------
    name:
        The name of the thread. It is a daemon thread, so a step that hangs ends with the process.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], None], _Outcome] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def do(self, step: Callable[[], None], timeout_secs: float) -> bool:
        """Run `step`; return False if it does not return within `timeout_secs`. Raises the error of the step."""
        outcome = _Outcome()
        self._work.put((step, outcome))
        if not outcome.done.wait(timeout_secs):
            return False
        if outcome.error is not None:
            raise outcome.error
        return True

    def close(self) -> None:
        """End the thread after the present step, if that ever returns."""
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

"""Runs steps in threads, either to their end in spite of Ctrl-C, or with a limit on the wait for each step."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


def is_thread_of_ours() -> bool:
    """Return whether the present thread is one of mpr's own."""
    return threading.current_thread().name.startswith("mpr-")


def run_to_completion(step: Callable[[], None], *, wait: bool = True) -> None:
    """Run `step` to its end in a new thread. If `wait` is true, wait for the end, and raise the error of the step.

    Ctrl-C ends the wait, but not the step. The interpreter waits for the new thread at its exit. If the caller is a
    thread of mpr's own, this function never waits, because the step itself waits for that thread. This happens if a
    callback ends its pool, or drops the last reference to the pool.
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
        # The step runs in this thread, because the interpreter is at its exit and starts no more threads.
        step()
        return
    if is_thread_of_ours() or not wait:
        return
    thread.join()
    if raised:
        raise raised[0]


class BoundedThread:
    """A thread that runs one step after another. The wait for each step has a limit.

    Parameters
    ----------
    name:
        The name of the thread. The thread is a daemon, so a step that hangs does not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], None], _Outcome] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def do(self, step: Callable[[], None], timeout_secs: float) -> bool:
        """Run `step`, and wait up to `timeout_secs` for its end. Raises the error of the step.

        Returns whether the step has ended in time.
        """
        outcome = _Outcome()
        self._work.put((step, outcome))
        if not outcome.done.wait(timeout_secs):
            return False
        if outcome.error is not None:
            raise outcome.error
        return True

    def close(self) -> None:
        """Make the thread end after the steps that it still has. If a step hangs, the thread does not end."""
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

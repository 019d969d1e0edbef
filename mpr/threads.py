"""Runs steps in threads, and wakes threads that wait.

`run_to_completion` runs a step to its end in spite of Ctrl-C. `BoundedThread` limits the time of the wait for a step.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable


def is_thread_of_ours() -> bool:
    """Return whether the present thread is one of mpr's own."""
    return threading.current_thread().name.startswith("mpr-")


def run_to_completion(step: Callable[[], None], *, wait: bool = True) -> None:
    """Run `step` to its end in a new thread. If `wait` is true, wait for the end, and raise the error of the step.

    Ctrl-C ends the wait, but not the step. The interpreter waits for the new thread at its exit.

    If the calling thread is one of mpr's own, this function never waits. The reason is that the step may itself wait
    for the calling thread, and then both would wait for ever. A thread of mpr's own calls this function if a callback
    ends its pool, or drops the last reference to the pool.
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


class WakeupPipe:
    """Wakes a thread that waits for descriptors, such as with `multiprocessing.connection.wait`.

    Any thread and any signal handler may call `wake`, also after `close`. After `close`, `wake` writes nothing. Its
    byte could land in another file, because the system gives the number of a closed descriptor to the next file.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        # The lock is re-entrant, because a signal handler may interrupt a method here and call `wake` itself.
        self._lock = threading.RLock()

    def fileno(self) -> int:
        """The descriptor that is readable after `wake`, until `clear`."""
        return self._reader

    def wake(self) -> None:
        """Wake the thread that waits. Does nothing after `close`."""
        # If the pipe is full, no byte is needed, because the bytes in the pipe wake the thread.
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._writer >= 0:
                os.write(self._writer, b"x")

    def clear(self) -> None:
        """Forget the calls of `wake` until now. Only the thread that waits calls this."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)

    def close(self) -> None:
        """Close both ends of the pipe. Call this when no thread waits for the pipe any more."""
        with self._lock:
            reader, self._reader = self._reader, -1
            writer, self._writer = self._writer, -1
            os.close(reader)
            os.close(writer)


class _Outcome:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: Exception | None = None

"""Runs steps in threads, and wakes threads that wait.

A step is a function without arguments. `run_to_completion` runs a step to its end even if the user presses Ctrl-C.
`BoundedThread` limits the time of the wait for a step.

A handler of a signal runs in the main thread, between any two of its instructions. The handler may call mpr, and that
call may wait for a thread of mpr. If the main thread then held a lock that this thread needs, both would wait for ever.
So the main thread holds no lock of mpr. A step that needs a lock runs in another thread (`aside`). The main thread
waits for that thread by a `Latch`, which has no lock that two threads share.

Covers: waiting without locks, steps in threads, and a pipe that wakes a thread.
Does not cover: the work of the steps, and exceptions of a user's code (`user_code.py`).
"""

from __future__ import annotations

import _queue
import _thread
import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from mpr.errors import ConfigError, MprError

T = TypeVar("T")

# Not `queue.SimpleQueue`, because gevent and eventlet replace that one, even if they leave threads as they are.
SimpleQueue = _queue.SimpleQueue


#: The name of the threads that take rows and results.
AGGREGATOR: Final = "mpr-aggregator"
#: The name of the threads that run callbacks of users. No thread of mpr waits for them.
CALLBACKS: Final = "mpr-callbacks"


def is_thread_of_ours() -> bool:
    """Return True if the calling thread is a thread of mpr, whose name begins with `mpr-`.

    Threads that run single steps (`run_to_completion`, `aside`) have other names, and do not count. Threads that run
    only callbacks of users do not count either.
    """
    name = threading.current_thread().name
    return name.startswith("mpr-") and name != CALLBACKS


def check_may_wait() -> None:
    """Raise `RuntimeError` if the calling thread takes rows and results, because it would wait for itself for ever.

    Code of a user may run in this thread, for example while a result is unpickled, or in a `__del__`.
    """
    if threading.current_thread().name == AGGREGATOR:
        raise RuntimeError("the thread of mpr that takes rows and results cannot wait for them: use another thread")


# What to do instead, by the package that has replaced the threads of this process.
_INSTEAD = {
    "gevent": "call gevent.monkey.patch_all(thread=False), or use mpr in another process",
    "eventlet": "use mpr in another process",
}


def check_threads(error: type[MprError] = ConfigError) -> None:
    """Raise `error` if gevent or eventlet has replaced the threads of this process.

    The replaced threads share one real thread. If a thread of mpr waited in ZeroMQ, all other threads would wait for
    ever.
    """
    package = str(getattr(_thread.start_new_thread, "__module__", "")).partition(".")[0]
    if package in _INSTEAD:
        raise error(
            f"a recording needs real threads, but {package} has replaced the threads of this process (pid "
            f"{os.getpid()}): {_INSTEAD[package]}"
        )


class Latch:
    """An event that is set once, and for which any number of threads can wait.

    Unlike `threading.Event`, a latch has no lock that threads share. So a handler of a signal may always set the latch
    or wait for it, even if the handler interrupts a method of the latch.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: list[_thread.LockType] = []

    def is_set(self) -> bool:
        """Return True if `set` was called."""
        return self._is_set

    def set(self) -> None:
        """Set the latch, and wake all threads that wait. A second call does nothing."""
        # In this order, because a thread that begins to wait adds itself first and then looks whether this is set.
        self._is_set = True
        with contextlib.suppress(IndexError):
            while True:
                self._waiters.pop().release()

    def wait(self, timeout_secs: float | None = None) -> bool:
        """Wait up to `timeout_secs` seconds (None: no limit) until the latch is set. Return True if it is set."""
        if self._is_set:
            return True
        waiter = _thread.allocate_lock()
        waiter.acquire()
        self._waiters.append(waiter)
        if not self._is_set:
            waiter.acquire(timeout=-1 if timeout_secs is None else min(max(timeout_secs, 0.0), threading.TIMEOUT_MAX))
            if not self._is_set:
                # `ValueError`: `set` has taken the waiter at this moment.
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
        return self._is_set


def start_aside(thread: threading.Thread) -> None:
    """Start `thread` from another thread, and wait until it has started. Raises `RuntimeError` if it cannot start.

    `Thread.start` holds a lock for a moment, and every new thread needs this lock. If the main thread called
    `Thread.start`, a signal could interrupt the call at this moment. If the signal's handler then started a thread, the
    handler would wait for ever, because the interrupted call could not release the lock. Handlers of signals run only
    in the main thread, so another thread calls `Thread.start`.
    """
    started = Latch()
    raised: list[RuntimeError] = []

    def start() -> None:
        try:
            thread.start()
        except RuntimeError as error:
            raised.append(error)
        finally:
            started.set()

    _thread.start_new_thread(start, ())
    started.wait()
    if raised:
        raise raised[0]


def run_to_completion(step: Callable[[], Any], *, wait: bool = True) -> None:
    """Run `step` to its end in a new thread. If `wait` is true, wait for the end, and raise the error of the step.

    Ctrl-C ends the wait, but not the step. The interpreter waits for the new thread at its exit. If the interpreter
    cannot start a thread, because it exits already, the step runs in the calling thread.

    If the calling thread is a thread of mpr (`is_thread_of_ours`), this function never waits. The reason is that the
    step may wait for the calling thread, and then each of the two would wait for the other for ever. This would happen
    if a thread of mpr ran a user's callback, and the callback ended the pool or deleted the last reference to it.
    Without a wait, an error of the step is not raised.
    """
    raised: list[BaseException] = []
    is_over = Latch()

    def run() -> None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001  # raised below, in the thread that waits
            raised.append(error)
        finally:
            is_over.set()

    try:
        start_aside(threading.Thread(target=run, name="carry-through", daemon=False))
    except RuntimeError:
        # The step runs in this thread, because the interpreter is at its exit and starts no more threads.
        step()
        return
    if is_thread_of_ours() or not wait:
        return
    # The step limits its own waits.
    is_over.wait()
    if raised:
        raise raised[0]


class _Carrier:
    """A thread that runs steps for the main thread, one after another."""

    def __init__(self) -> None:
        self._steps: SimpleQueue[Callable[[], None]] = SimpleQueue()
        start_aside(threading.Thread(target=self._run, name=CARRIER, daemon=True))

    def carry(self, step: Callable[[], None]) -> None:
        """Give `step` to the thread, and return at once. The step must not raise, because that would end the thread."""
        self._steps.put(step)

    def _run(self) -> None:
        while True:
            self._steps.get()()


#: The name of threads that run steps for the main thread. They hold no lock while they have no step.
CARRIER = "carrier"
# Carriers without a step. One is kept, because starting a thread takes longer than most steps.
_idle: list[_Carrier] = []
os.register_at_fork(after_in_child=_idle.clear)


def aside(step: Callable[[], T]) -> T:
    """Run `step`, wait for its end, and return its result or raise its error.

    If the calling thread is the main thread, another thread runs the step, because the step may need a lock, and the
    main thread must hold no lock (see the docstring of the module). Ctrl-C then ends the wait, but not the step. If no
    thread can be started, the calling thread runs the step.
    """
    if threading.current_thread() is not threading.main_thread():
        return step()
    try:
        carrier = _idle.pop()
    except IndexError:
        try:
            carrier = _Carrier()
        except RuntimeError:
            # The system gives no more threads, or the interpreter is at its exit.
            return step()
    returned: list[T] = []
    raised: list[BaseException] = []
    is_over = Latch()

    def run() -> None:
        try:
            returned.append(step())
        except BaseException as error:  # noqa: BLE001  # raised below, in the thread that waits
            raised.append(error)
        finally:
            _idle.append(carrier)
            is_over.set()

    carrier.carry(run)
    # The step limits its own waits.
    is_over.wait()
    if raised:
        raise raised[0]
    return returned[0]


class BoundedThread:
    """A thread that runs one step after another. The wait for each step has a limit.

    Parameters
    ----------
    name:
        The name of the thread. The thread is a daemon, so a step that hangs does not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[tuple[Callable[[], None], _Outcome] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def do(self, step: Callable[[], None], timeout_secs: float) -> bool:
        """Run `step` in the thread, and wait up to `timeout_secs` seconds for its end. Raises the error of the step.

        The time in which earlier steps still run counts, too. Returns True if `step` has ended, and False if it has not
        ended in time. It is not cancelled then, and its later error is ignored.
        """
        outcome = _Outcome()
        self._work.put((step, outcome))
        if not outcome.done.wait(timeout_secs):
            return False
        if outcome.error is not None:
            raise outcome.error
        return True

    def close(self) -> None:
        """Make the thread end after all steps that it was given. Does not wait. If a step hangs, the thread stays."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            step, outcome = work
            try:
                step()
            except Exception as error:  # noqa: BLE001  # raised in the thread that waits
                outcome.error = error
            outcome.done.set()


class _Ends:
    """The two ends of a pipe. They are closed when nothing refers to this object any more."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self.writer, False)

    # A default, because the globals of this module may be gone at the exit of the interpreter.
    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        for fd in (self.reader, self.writer):
            _close(fd)


class WakeupPipe:
    """Wakes a thread that waits for descriptors, such as with `multiprocessing.connection.wait`.

    Any thread and any signal handler may call `wake`, also after `close`. The ends of the pipe are closed only when the
    last call of `wake` has returned. The reason is that the system gives the number of a closed descriptor to the next
    file, so a call of `wake` that still runs could write a byte into that file.
    """

    def __init__(self) -> None:
        self._ends: _Ends | None = _Ends()

    def fileno(self) -> int:
        """Return the descriptor that is readable from a call of `wake` until `clear`. Return -1 after `close`."""
        ends = self._ends
        return -1 if ends is None else ends.reader

    def wake(self) -> None:
        """Wake the thread that waits. Does nothing after `close`."""
        ends = self._ends
        if ends is not None:
            # A full pipe wakes the thread too.
            with contextlib.suppress(BlockingIOError):
                os.write(ends.writer, b"x")

    def clear(self) -> None:
        """Read the bytes that earlier calls of `wake` have written (up to 4096), so that the next wait really waits.

        Only the thread that waits calls this.
        """
        ends = self._ends
        if ends is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(ends.reader, 4096)

    def close(self) -> None:
        """Make later calls of `wake` do nothing. The ends of the pipe are closed when no running call uses them."""
        self._ends = None


class _Outcome:
    def __init__(self) -> None:
        self.done = Latch()
        self.error: Exception | None = None

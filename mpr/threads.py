"""Runs steps in threads, and wakes threads that wait. A step is a function without arguments.

A handler of a signal runs in the main thread, between any two of its instructions. The handler may call mpr and wait
for a thread of mpr. If the main thread then held a lock that the thread of mpr needs, the two threads would wait for
ever. So a step that takes such a lock runs in another thread (`aside`). The main thread waits for the end of the step
by a `Latch`, which has no lock that threads share.

Covers: waiting without locks, steps in threads, and a pipe that wakes a thread.
Does not cover: the work of the steps, and exceptions of a user's code (`user_code.py`).
"""

from __future__ import annotations

import _queue
import _thread
import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, TypeVar

from mpr.errors import ConfigError, MprError
from mpr.user_code import log as _log

T = TypeVar("T")

# Not `queue.SimpleQueue`, because gevent and eventlet replace that one, even if they leave threads as they are.
SimpleQueue = _queue.SimpleQueue


#: The name of the threads that take rows and results.
AGGREGATOR: Final = "mpr-aggregator"
#: The name of the threads that run callbacks of users. No thread of mpr waits for them.
CALLBACKS: Final = "mpr-callbacks"


def is_thread_of_ours() -> bool:
    """Return True in a thread of mpr that must not wait for the end of a pool, because the end may wait for the thread.

    The names of these threads begin with `mpr-`. Threads for callbacks of users (`CALLBACKS`), and the threads of
    `run_to_completion` and `aside`, do not count.
    """
    name = threading.current_thread().name
    return name.startswith("mpr-") and name != CALLBACKS


def check_may_wait() -> None:
    """Raise `RuntimeError` in the aggregator's thread, which receives rows and results.

    Code of a user may run in this thread, for example while a result is unpickled. If that code waited for rows or
    results, the thread would wait for itself.
    """
    if threading.current_thread().name == AGGREGATOR:
        raise RuntimeError("the thread of mpr that takes rows and results cannot wait for them: use another thread")


# What to do instead, by the package that has replaced the threads of this process.
_INSTEAD = {
    "gevent": "call gevent.monkey.patch_all(thread=False), or use mpr in another process",
    "eventlet": "use mpr in another process",
}


def _package_of_threads() -> str:
    return str(getattr(_thread.start_new_thread, "__module__", "")).partition(".")[0]


def check_threads(error: type[MprError] = ConfigError) -> None:
    """Raise `error` if gevent or eventlet has replaced the threads of this process.

    The replaced threads share one real thread. If one of them waited in ZeroMQ, all of them would wait for ever.
    """
    package = _package_of_threads()
    if package in _INSTEAD:
        raise error(
            f"a recording needs real threads, but {package} has replaced the threads of this process (pid "
            f"{os.getpid()}): {_INSTEAD[package]}"
        )


class Latch:
    """An event that is set once, and for which any number of threads can wait.

    Unlike `threading.Event`, a latch has no lock that threads share. So a handler of a signal may call any method, even
    if it interrupts a method of the same latch.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: list[_thread.LockType] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        """Set the latch, and wake all threads that wait. A second call does nothing."""
        # In this order, because a thread that begins to wait adds itself first and then looks whether this is set.
        self._is_set = True
        with contextlib.suppress(IndexError):
            while True:
                self._waiters.pop().release()

    def wait(self, timeout_secs: float | None = None) -> bool:
        """Wait up to `timeout_secs` seconds (None: no limit) for the latch. Return True if it is set, else False."""
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

    `Thread.start` holds a lock that every new thread needs. In the main thread, a handler of a signal could interrupt
    `Thread.start`, start a thread, and wait for this lock for ever. Handlers of signals run only in the main thread, so
    another thread calls `Thread.start`.
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

    Ctrl-C ends the wait, but not the step. If no thread can be started, for example at the interpreter's exit, the
    calling thread runs the step. A thread of mpr (`is_thread_of_ours`) does not wait for the new thread, because the
    step may itself wait for the calling thread. If nobody waits for the step any more, its error is logged.
    """
    raised: list[BaseException] = []
    is_over = Latch()
    waits = wait and not is_thread_of_ours()

    def run() -> None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001  # raised below, in the thread that waits
            raised.append(error)
            if not waits:
                _log.error("mpr: nobody waited for the end of a pool or a recording, and it failed: %s", error)
        finally:
            is_over.set()

    try:
        try:
            start_aside(threading.Thread(target=run, name="carry-through", daemon=False))
        except RuntimeError:
            # The step runs in this thread, because the interpreter is at its exit and starts no more threads.
            step()
            return
        if waits:
            # The step limits its own waits.
            is_over.wait()
    except BaseException:
        # Ctrl-C may come at any instruction, also while the thread starts.
        waits = False
        raise
    if waits and raised:
        raise raised[0]


class EndOnce:
    """Runs a step at the first call of `run`. Every later call runs nothing, and waits until the step has ended.

    If the step itself calls `run`, that call returns at once, because the step cannot end while it waits for itself.

    Attributes
    ----------
    begun:
        True if `run` was called.
    over:
        A latch that is set when the step has ended, with or without an error.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.begun: bool = False
        self.over: Latch = Latch()

    def run(self, step: Callable[[], None]) -> None:
        """Run `step`, or wait until the step of the first call has ended. Only the first call raises the step's error.

        Do not call this in the main thread, because it takes a lock.
        """
        with self._lock:
            is_first, self.begun = not self.begun, True
        if is_first:
            self._thread = threading.current_thread()
            try:
                step()
            finally:
                self.over.set()
        elif self._thread is not threading.current_thread():
            # No timeout is needed, because the step limits its own waiting.
            self.over.wait()


class _Carrier:
    """A thread that runs steps for the main thread, one after another. It ends when nothing refers to this object."""

    def __init__(self) -> None:
        self._steps: SimpleQueue[Callable[[], None] | weakref.ref[_Carrier]] = SimpleQueue()
        # An exception of a signal handler may lose this object at any instruction. So the thread does not refer to it,
        # and its end puts the weak reference into the queue. `__del__` would be Python code, in which a handler of a
        # signal might run, and its exception would be lost.
        end = weakref.ref(self, self._steps.put)
        start_aside(threading.Thread(target=_run_steps, args=(self._steps, end), name=CARRIER, daemon=True))

    def carry(self, step: Callable[[], None]) -> None:
        """Have the thread run `step`, and return at once. `step` must not raise, because that would end the thread."""
        self._steps.put(step)


def _run_steps(steps: SimpleQueue[Callable[[], None] | weakref.ref[_Carrier]], end: weakref.ref[_Carrier]) -> None:
    while (step := steps.get()) is not end:
        step()
        # Otherwise this thread would keep the carrier, to which the step refers.
        del step


#: The name of threads that run steps for the main thread. They hold no lock while they have no step.
CARRIER = "carrier"
# Carriers without a step. A few are kept, because starting a thread takes longer than most steps. More are needed only
# if exceptions of signal handlers end the waits for steps that still run.
_idle: list[_Carrier] = []
_IDLE_MAX = 2
os.register_at_fork(after_in_child=_idle.clear)


def aside(step: Callable[[], T]) -> T:
    """Run `step`, wait for its end, and return its result or raise its error.

    If the main thread calls this, another thread runs the step, so that the step may use locks (see the module). Ctrl-C
    then ends the wait, but not the step. If no thread can be started, or if another package has replaced the threads
    (see `check_threads`), the main thread itself runs the step, with the danger that the docstring of the module
    describes. A thread that is not the main thread always runs the step itself.
    """
    if threading.current_thread() is not threading.main_thread() or _package_of_threads() in _INSTEAD:
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
            if len(_idle) < _IDLE_MAX:
                _idle.append(carrier)
            is_over.set()

    carrier.carry(run)
    # The step limits its own waits.
    is_over.wait()
    if raised:
        raise raised[0]
    return returned[0]


# The time between two looks of `BoundedThread.do` whether its step has ended (seconds).
_LOOK_SECS = 1.0


class BoundedThread:
    """A thread that runs one step after another. The wait for each step has a limit.

    The thread is a daemon, so a step that hangs does not keep the process from ending. `name` is the name of the
    thread.
    """

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[tuple[Callable[[], None], _Outcome] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def do(self, step: Callable[[], None], timeout_secs: float) -> bool:
        """Run `step` in the thread, and wait up to `timeout_secs` seconds for its end. Earlier steps run before it.

        If `step` has ended, returns True, or raises the error of `step`. If the time is over, returns False. `step` is
        then not cancelled, and its later error is ignored.
        """
        outcome = _Outcome()
        self._work.put((step, outcome))
        while not outcome.done.wait(min(timeout_secs, _LOOK_SECS)):
            # Each look counts as `_LOOK_SECS`, however long it took. So a process that was stopped is not late.
            timeout_secs -= _LOOK_SECS
            if timeout_secs <= 0:
                return False
        if outcome.error is not None:
            raise outcome.error
        return True

    def close(self) -> None:
        """End the thread after all steps that it was given. This method does not wait."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            step, outcome = work
            try:
                step()
            except BaseException as error:  # noqa: BLE001  # raised in the thread that waits; the SDK's panics are such
                outcome.error = error
            outcome.done.set()


class _Ends:
    """The two ends of a pipe, which are closed when nothing refers to this object any more."""

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

    Any thread and any signal handler may call `wake`, also after `close`. The descriptors stay open while a call of
    `wake` uses them. If one were closed during the call, its number could belong to another file, and `wake` would
    write into that file.
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
        """Read up to 4096 bytes that calls of `wake` have written: one byte for each call.

        If no byte is left, the descriptor is not readable until the next `wake`. Only the woken thread calls this.
        """
        ends = self._ends
        if ends is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(ends.reader, 4096)

    def close(self) -> None:
        """Make later calls of `wake` do nothing. The pipe is closed when no running call uses it."""
        self._ends = None


class _Outcome:
    def __init__(self) -> None:
        self.done = Latch()
        self.error: BaseException | None = None

"""Functions of somebody else, and functions to wrap, that run in the same processes of another engine."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rerun as rr

import mpr
from mpr.producer import propagation
from tests import functions

TIMEOUT_SECS = 30.0

# Lets a thread of a wrapped function go on after the function has returned.
go_on = threading.Event()
_threads: list[threading.Thread] = []


def current() -> tuple[str | None, str | None]:
    """Return what a plain function sees: the id of its recording, and the text by which it could join one."""
    recording = rr.get_data_recording()
    return recording and recording.get_recording_id(), propagation.extract()


def begin_own(path: Path, *, of_thread: bool = False) -> None:
    """Make a recording of somebody else the current one."""
    stream = rr.RecordingStream("guest", recording_id="own")
    stream.save(path)
    if of_thread:
        rr.set_thread_local_data_recording(stream)
    else:
        rr.set_global_data_recording(stream)


def log_own(number: int) -> tuple[str | None, str | None]:
    """Log as a plain function does, in this thread and in a new one."""
    rr.log("n", rr.Scalars(float(number)))
    functions.run_in_thread(rr.log, "thread", rr.Scalars(float(number)))
    stream = rr.get_data_recording()
    if stream is not None:
        stream.flush()
    return current()


def log_decorated(number: int) -> str | None:
    """Call a decorated function, for which there is no recording to join. Returns what mpr logged meanwhile."""
    with LogTexts() as found:
        assert functions.log_number(number) == number
    return "".join(found.texts)


def error_of(function: Callable[[int], Any], number: int) -> str:
    """Return the name of the class of the error that a function raises."""
    try:
        function(number)
    except Exception as error:
        return type(error).__name__
    return ""


def init_and_log(number: int, path: Path) -> tuple[str | None, str | None]:
    rr.init("guest", recording_id="own")
    rr.save(path)
    return log_own(number)


class LogTexts(logging.Handler):
    """Keeps what mpr logs within the block."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def __enter__(self) -> LogTexts:
        logging.getLogger("mpr").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("mpr").removeHandler(self)


# --- functions to wrap --------------------------------------------------------------------------------------------


def work(number: int) -> tuple[str | None, bool]:
    """Log in this thread, in a new one and in a child. Return the id of the recording, and whether children join."""
    rr.log("n", rr.Scalars(float(number)))
    functions.run_in_thread(rr.log, "thread", rr.Scalars(float(number)))
    found, variable = current()
    return found, variable is not None


def work_with_child(number: int) -> None:
    work(number)
    source = f"import mpr, rerun as rr; mpr.join(); rr.log('child', rr.Scalars({number}))"
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60)


def change_everything(number: int) -> None:
    """Make another recording the current one, of this thread and of all threads, and call `rr.init`."""
    rr.init("guest", recording_id="changed")
    rr.log("n", rr.Scalars(float(number)))
    rr.set_global_data_recording(rr.RecordingStream("other"))
    rr.set_thread_local_data_recording(rr.RecordingStream("other"))


def fail(number: int) -> None:
    work(number)
    raise ValueError(f"task {number} failed")


def steps(upto: int) -> Iterator[int]:
    for number in range(upto):
        rr.log("n", rr.Scalars(float(number)))
        yield number


async def later(number: int) -> str | None:
    rr.log("n", rr.Scalars(float(number)))
    await asyncio.sleep(0)
    await asyncio.to_thread(rr.log, "thread", rr.Scalars(float(number)))
    return current()[0]


async def stream(upto: int) -> AsyncIterator[int]:
    for number in range(upto):
        rr.log("n", rr.Scalars(float(number)))
        await asyncio.to_thread(rr.log, "thread", rr.Scalars(float(number)))
        yield number


def leave_a_thread(number: int) -> None:
    """Start a thread that logs before and after this function returns."""
    go_on.clear()
    has_logged = threading.Event()

    def log_twice() -> None:
        rr.log("thread", rr.Scalars(float(number)))
        has_logged.set()
        assert go_on.wait(TIMEOUT_SECS)
        rr.log("thread", rr.Scalars(float(number + 1)))

    _threads.append(threading.Thread(target=log_twice, name="left"))
    _threads[-1].start()
    assert has_logged.wait(TIMEOUT_SECS)


def let_the_thread_go_on() -> list[str]:
    """Let the thread of `leave_a_thread` log again. Returns what mpr logged meanwhile."""
    with LogTexts() as found:
        go_on.set()
        _threads.pop().join(TIMEOUT_SECS)
    return found.texts


def wait_in_turn(number: int, began: threading.Event, may_end: threading.Event) -> None:
    rr.log("n", rr.Scalars(float(number)))
    began.set()
    assert may_end.wait(TIMEOUT_SECS)
    rr.log("n", rr.Scalars(float(number + 1)))


def overlap(first: Callable[..., Any], second: Callable[..., Any]) -> list[str | None]:
    """Call two wrapped functions in two threads, so that the first one ends while the second one runs.

    Returns the recording that a third thread sees: before, in both, in the second one alone, afterwards.
    """
    seen = [current()[0]]
    calls = []
    for number, wrapped in ((10, first), (20, second)):
        began, may_end = threading.Event(), threading.Event()
        thread = threading.Thread(target=wrapped, args=(number, began, may_end))
        thread.start()
        assert began.wait(TIMEOUT_SECS)
        calls.append((thread, may_end))
    for thread, may_end in calls:
        seen.append(current()[0])
        may_end.set()
        thread.join(TIMEOUT_SECS)
    return [*seen, current()[0]]


def join_and_begin_a_call(wrapped: Callable[..., Any]) -> None:
    """Join the inherited recording, and call a wrapped function of another one in a thread."""
    mpr.join()
    began = threading.Event()
    go_on.clear()
    _threads.append(threading.Thread(target=wrapped, args=(1, began, go_on)))
    _threads[-1].start()
    assert began.wait(TIMEOUT_SECS)


def end_the_call(wrapped: Callable[[int], Any]) -> tuple[list[str], int]:
    """Call a function of a third recording, end the call that `join_and_begin_a_call` has begun, and log 100 MB.

    Returns what mpr logged meanwhile, and by how many bytes the memory of this process has grown.
    """
    with LogTexts() as found:
        wrapped(3)
        go_on.set()
        _threads.pop().join(TIMEOUT_SECS)
        size = psutil.Process().memory_info().rss
        for number in range(100):
            rr.log("lost", rr.Tensor(np.full(1_000_000, number, np.uint8)))
        return found.texts, psutil.Process().memory_info().rss - size


def between_steps(wrapped: Callable[[int], Iterator[int]]) -> list[tuple[str | None, str | None]]:
    """Return what the caller of a wrapped generator sees between its steps. The caller logs there, too."""
    return [log_own(100 + number) for number in wrapped(2)]


def between_values(wrapped: Callable[[int], AsyncIterator[int]]) -> list[tuple[str | None, str | None]]:
    """Return what the caller of a wrapped async generator sees between its values."""

    async def main() -> list[tuple[str | None, str | None]]:
        return [log_own(100 + number) async for number in wrapped(2)]

    return asyncio.run(main())


def gather(wrapped: Callable[[int], Any]) -> list[str | None]:
    """Run three wrapped coroutines at the same time."""

    async def main() -> list[str | None]:
        return list(await asyncio.gather(*(wrapped(number) for number in range(3))))

    return asyncio.run(main())


def own_id(stream: Any) -> tuple[str | None, str | None]:
    """Take a stream as an argument, and log to it. Returns what a plain function sees."""
    stream.log("n", rr.Scalars(7.0))
    stream.flush()
    return current()


def join_then_call(wrapped: Callable[[int], Any], numbers: tuple[int, int, int]) -> Any:
    """Join the inherited recording, then call a wrapped function of another one."""
    mpr.join()
    before, during, after = numbers
    rr.log("n", rr.Scalars(float(before)))
    seen = wrapped(during)
    rr.log("n", rr.Scalars(float(after)))
    return seen, current()[0]


def init_and_log_wrapped(number: int) -> None:
    """Call `rr.init`, as a script does, and log."""
    rr.init("script")
    rr.log("n", rr.Scalars(float(number)))


def log_around(wrapped: Callable[[int], None]) -> None:
    """Log before and after a call of a function of another recording, in this thread and in new ones."""
    rr.log("n", rr.Scalars(0.0))
    wrapped(1)
    rr.log("n", rr.Scalars(2.0))
    functions.run_in_thread(rr.log, "thread", rr.Scalars(3.0))


_executor = concurrent.futures.ThreadPoolExecutor(2)
_has_begun, _is_inside = threading.Event(), threading.Event()


@mpr.task
def log_before_and_during(number: int) -> None:
    """Log before a wrapped function begins, and while it runs."""
    rr.log("n", rr.Scalars(float(number)))
    _has_begun.set()
    assert _is_inside.wait(TIMEOUT_SECS)
    rr.log("n", rr.Scalars(float(number + 1)))


def let_others_log(number: int) -> None:
    """Log, and let the other threads log meanwhile. This function is to be wrapped."""
    rr.log("n", rr.Scalars(float(number)))
    _is_inside.set()
    _executor.submit(functions.log_number, 3).result(TIMEOUT_SECS)
    rr.log("n", rr.Scalars(float(number + 1)))


def decorated_beside_wrapped(wrapped: Callable[[int], None]) -> None:
    """Call `wrapped`, while other threads, which ran before, call decorated functions."""
    both_run = threading.Barrier(2)
    concurrent.futures.wait([_executor.submit(both_run.wait, TIMEOUT_SECS) for _ in range(2)])
    other = _executor.submit(log_before_and_during, 1)
    assert _has_begun.wait(TIMEOUT_SECS)
    wrapped(10)
    other.result(TIMEOUT_SECS)

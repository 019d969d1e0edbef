"""Decorated functions for the tests, in a module that other processes can import."""

from __future__ import annotations

import asyncio
import functools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from multiprocessing import util
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import rerun as rr

import mpr
from mpr.producer import outbox_writer
from tests import support, tasks


@mpr.task
def log_number(number: int) -> int:
    return tasks.log_number(number)


def meet(folder: Path) -> None:
    """Wait until two calls run at the same time. Each of them makes a file in `folder`."""
    (folder / f"{os.getpid()}-{threading.get_ident()}").touch()
    support.wait_for(lambda: len(list(folder.iterdir())) == 2)


def _log_unnamed(number: int) -> int:
    return tasks.log_number(number)


#: Tasks under another name. Below: one in the place of its undecorated function, and one without any name.
log_renamed = mpr.task(_log_unnamed)
log_with_options = mpr.task(entity_path_prefix="renamed")(_log_unnamed)


def log_rebound(number: int) -> int:
    return tasks.log_number(number)


log_rebound = mpr.task(log_rebound)


def _count_unnamed(stop: int) -> Iterator[int]:
    yield from map(tasks.log_number, range(stop))


async def _walk_unnamed(number: int) -> int:
    await asyncio.sleep(0)
    return tasks.log_number(number)


count_renamed = mpr.task(_count_unnamed)
walk_renamed = mpr.task(_walk_unnamed)


def count_and_walk(count: Any, walk: Any) -> tuple[list[int], int]:
    """Call a generator function and a coroutine function that come as arguments, and return their results."""
    return list(count(2)), asyncio.run(walk(2))


log_partial = mpr.task(functools.partial(tasks.log_number, 7))


@mpr.task
def log_and_raise(number: int) -> None:
    tasks.log_number(number)
    raise ValueError(f"task {number} failed")


@mpr.task
def log_and_exit(number: int) -> None:
    tasks.log_number(number)
    sys.exit(3)


@mpr.task
def init_then_log(number: int) -> int:
    """Call `rr.init` first, as the SDK's example for several processes does."""
    rr.init("somebody_else")
    return tasks.log_number(number)


@mpr.task
def save_then_log(number: int, path: Path) -> None:
    """Log before and after `rr.save`, which takes the rows after it for itself."""
    tasks.save_then_log(number, path)


@mpr.task
def log_here_and_in_a_child(number: int, method: str) -> None:
    tasks.log_number(number)
    child = multiprocessing.get_context(method).Process(target=log_number, args=(number + 1,))
    child.start()
    child.join()
    source = f"from tests import functions; functions.log_number({number + 2})"
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60)


@mpr.task
def set_a_time(number: int) -> None:
    rr.set_time("only_mine", sequence=number)
    rr.log("mine", rr.Scalars(float(number)))


@mpr.task
def log_without_time(number: int) -> None:
    rr.log("bare", rr.Scalars(float(number)))


def join_and_log(number: int) -> None:
    mpr.join()
    tasks.log_number(number)


def join_log_and_wait(number: int, started: Path, go_on: Path) -> None:
    join_and_log(number)
    stream = rr.get_global_data_recording()
    assert stream is not None
    stream.flush()
    started.touch()
    tasks.wait_for_file(go_on)
    tasks.log_number(number + 1)


@mpr.task(entity_path_prefix="steps/{name}", name="counter")
def count(upto: int) -> Iterator[int]:
    for number in range(upto):
        rr.set_time("step", sequence=number)
        rr.log("n", rr.Scalars(float(number)))
        yield number


class Detector:
    """A class whose methods are tasks."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    @mpr.task
    def detect(self, number: int) -> int:
        """Log the number, and the offset on top."""
        return tasks.log_number(self.offset + number)

    @mpr.task
    @staticmethod
    def plain(number: int) -> int:
        return tasks.log_number(number)


async def _no_task() -> None:
    rr.log("undecorated", rr.Scalars(0.0))


@mpr.task(entity_path_prefix="{name}/{index}")
async def walk(start: int, steps: int) -> int:
    rr.set_time("walk", sequence=start)
    for number in range(steps):
        rr.set_time("step", sequence=number)
        rr.log("n", rr.Scalars(float(start + number)))
        await asyncio.sleep(0)
        if number == 1:
            await asyncio.create_task(_no_task())
            await asyncio.to_thread(rr.log, "from_thread", rr.Scalars(0.0))
    return start


@mpr.task
async def stream_numbers(start: int, steps: int) -> AsyncIterator[int]:
    rr.set_time("stream", sequence=start)
    for number in range(start, start + steps):
        rr.log("n", rr.Scalars(float(number)))
        yield number
        await asyncio.sleep(0)


@mpr.task(name="named", timeline="call")
def log_and_return_the_task(number: int) -> mpr.CurrentTask | None:
    tasks.log_number(number)
    return mpr.current_task()


def thread_knows_the_task() -> list[str | None]:
    """Return the name of the current task in a plain thread and in `asyncio.to_thread`."""
    found: list[str | None] = []

    def look() -> None:
        task = mpr.current_task()
        found.append(task and task.name)

    run_in_thread(look)
    asyncio.run(asyncio.to_thread(look))
    return found


def walk_all() -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(walk(start, 4) for start in (0, 10, 20)))

    assert asyncio.run(main()) == [0, 10, 20]


def log_until_stopped(number: int, started: Path, enough: Path) -> None:
    """Log images without end, in a process that has joined, until the test has enough."""
    mpr.join()
    picture = [[[number] * 3] * 640] * 480
    image = rr.Image(picture, color_model="RGB", datatype="U8")
    count = 0
    while not enough.exists():
        rr.log("image", image)
        count += 1
        if count == 3:
            started.touch()


def join_and_log_at_the_end(number: int, ending: Path, go_on: Path) -> None:
    """Log in a finalizer, and in a thread that goes on while the process ends."""
    mpr.join()

    def log_later() -> None:
        tasks.wait_for_file(go_on)
        logging.getLogger("late").error("of a thread")
        tasks.log_number(number + 1)

    def log_in_finalizer() -> None:
        tasks.log_number(number)
        ending.touch()

    logging.getLogger("late").addHandler(mpr.LoggingHandler())
    util.Finalize(None, log_in_finalizer, exitpriority=0)
    threading.Thread(target=log_later).start()


def fork_and_log(number: int) -> int:
    """Call a decorated function in a forked child, and return the exit code of the child."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            log_number(number)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_in_thread(function: Any, *args: Any) -> None:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()


@mpr.task
def log_number_and_noise(number: int) -> int:
    rr.log("noise", rr.Tensor(np.random.default_rng(number).integers(0, 255, 50_000, np.uint8)))
    return tasks.log_number(number)


def log_from_many_threads(start: int, path: Path) -> None:
    """Eight threads call tasks, in a process that changes its outbox often; each row is in the file when it returns."""
    outbox_writer.OUTBOX_ROLL_BYTES = 300_000
    missing: list[int] = []

    def call_tasks(first: int) -> None:
        for number in range(first, first + 5):
            log_number_and_noise(number)
        found = support.numbers_of_growing(path)
        missing.extend(number for number in range(first, first + 5) if found[number] != 1)

    threads = [threading.Thread(target=call_tasks, args=(start + 5 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if missing:
        raise AssertionError(f"not in the file: {missing}")


def log_as_in_another_container(count: int, pid: int) -> None:
    """Join and log while this process has the id of another process, as in a PID namespace of its own."""
    os.getpid = lambda: pid
    for number in range(count):
        log_number(number)


def log_at_signal() -> None:
    """Have a decorated function log the number 100 at each SIGUSR1."""
    signal.signal(signal.SIGUSR1, lambda _signal, _frame: log_number(100))


def log_100() -> None:
    log_number(100)


def log_past_a_roll() -> None:
    """Log the number 100, and so much that the outbox must be changed."""
    outbox_writer.OUTBOX_ROLL_ROWS = 0
    rr.log("n", rr.Scalars(100.0))
    rr.log("large", rr.Scalars(np.zeros(150_000)))


def end_own_recording() -> None:
    """Log the number 100, and end a recording whose rows mpr must send before."""
    rr.log("n", rr.Scalars(100.0))
    own = rr.RecordingStream("own")
    own.log("n", rr.Scalars(0.0))
    own.disconnect()


def log_while_sending(log: Callable[[], object]) -> None:
    """Call `log` at each line with which this worker counts rows of a task's own recording, or sends a result.

    It runs where a handler of a signal would run.
    """

    def at_line(_frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            log()
        return at_line

    def at_call(frame: FrameType, _event: str, _argument: object) -> Any:
        sends = frame.f_code.co_name in ("hand_over", "_announce_all", "send", "entered")
        return at_line if sends and frame.f_globals["__name__"].startswith("mpr.") else None

    sys.settrace(at_call)


def log_own_and_number(number: int) -> int:
    """Log a number to the shared recording, and another one to a recording of the task."""
    rr.RecordingStream("own").log("n", rr.Scalars(0.0))
    rr.log("n", rr.Scalars(float(number)))
    return number

"""Threads that are woken, also at the moment when they end, and steps that run beside the main thread."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import connection as mp_connection
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mpr.threads import CARRIER, EndOnce, Latch, WakeupPipe, _idle, aside, run_to_completion
from tests import support


def test_a_thread_is_woken_as_often_as_it_waits() -> None:
    pipe = WakeupPipe()
    for _ in range(3):
        assert mp_connection.wait([pipe.fileno()], 0) == []
        pipe.wake()
        pipe.wake()
        assert mp_connection.wait([pipe.fileno()], 10) == [pipe.fileno()]
        pipe.clear()
    pipe.close()


def test_a_full_pipe_does_not_block_the_thread_that_wakes() -> None:
    pipe = WakeupPipe()
    for _ in range(100_000):
        pipe.wake()
    assert mp_connection.wait([pipe.fileno()], 0) == [pipe.fileno()]
    pipe.close()


def test_a_late_call_writes_into_no_file_that_has_the_old_number(tmp_path: Path) -> None:
    pipe = WakeupPipe()
    number = pipe.fileno()
    pipe.close()
    # The system gives the lowest free numbers, so these files have the numbers of the pipe.
    files = [open(tmp_path / str(index), "w+b") for index in range(4)]  # noqa: SIM115  # closed below, all of them
    assert number in {file.fileno() for file in files}
    threads = [threading.Thread(target=pipe.wake) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {file.read() for file in files} == {b""}
    for file in files:
        file.close()


def test_a_latch_wakes_all_that_wait_and_whoever_comes_later() -> None:
    latch = Latch()
    assert not latch.wait(0)
    assert not latch.is_set()
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(latch.wait())) for _ in range(8)]
    for thread in threads:
        thread.start()
    latch.set()
    latch.set()
    for thread in threads:
        thread.join(60)
    assert woken == [True] * 8
    assert latch.wait(0)
    assert latch.wait()


def test_a_step_aside_runs_in_another_thread_and_gives_its_result_or_error() -> None:
    def fail() -> None:
        raise LookupError("a step")

    assert aside(threading.current_thread) is not threading.main_thread()
    # A step aside within a step aside runs where it is.
    assert aside(lambda: aside(threading.current_thread) is threading.current_thread())
    with pytest.raises(LookupError, match="a step"):
        aside(fail)
    assert aside(lambda: 7) == 7


def test_without_another_thread_a_step_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    monkeypatch.setattr("mpr.threads._idle", [])
    assert aside(threading.current_thread) is threading.main_thread()


def test_interrupted_waits_leave_at_most_two_threads_without_a_step(carriers: Callable[[], int]) -> None:
    may_end = threading.Event()

    def is_waiting(frame: Any) -> bool:
        return frame.f_code is Latch.wait.__code__ and frame.f_back.f_code is aside.__code__

    for _ in range(8):
        assert _is_interrupted(lambda: may_end.wait(60), is_waiting)
    assert carriers() == 8
    may_end.set()
    support.wait_for(lambda: carriers() <= 2)


def test_an_interrupt_at_any_line_leaves_at_most_two_threads_without_a_step(carriers: Callable[[], int]) -> None:
    left = at_line = 0

    def is_there(_: Any) -> bool:
        nonlocal left
        left -= 1
        return left == 0

    while True:
        left = at_line = at_line + 1
        if not _is_interrupted(lambda: None, is_there):
            break
    assert at_line > 10
    support.wait_for(lambda: carriers() <= 2)
    assert aside(lambda: 7) == 7


def _is_interrupted(step: Callable[[], Any], where: Callable[[Any], bool]) -> bool:
    """Run `step` aside, and raise `KeyboardInterrupt` at the first line in `mpr.threads` for which `where` is true."""

    def interrupt(frame: FrameType, event: str, _arg: object) -> Any:
        if frame.f_globals["__name__"] != "mpr.threads":
            return None
        if event == "line" and where(frame):
            sys.settrace(None)
            raise KeyboardInterrupt
        return interrupt

    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        aside(step)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.fixture
def carriers() -> Callable[[], int]:
    """Return a function that counts the carriers that were started since now. From now on, no earlier one is used."""
    _idle.clear()
    before = set(threading.enumerate())
    return lambda: sum(thread.name == CARRIER for thread in set(threading.enumerate()) - before)


@pytest.mark.usefixtures("_plain_ctrl_c")
def test_an_error_after_ctrl_c_is_logged() -> None:
    interrupted = threading.Event()

    def fail_later() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted.wait(30)
        raise OSError("the disk is full")

    with support.records_of_mpr() as records:
        with pytest.raises(KeyboardInterrupt):
            run_to_completion(fail_later)
        interrupted.set()
        for thread in threading.enumerate():
            if thread.name == "carry-through":
                thread.join(30)
    assert ["the disk is full" in each.getMessage() for each in records] == [True]


@pytest.fixture
def _plain_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_end_runs_once_and_whoever_ends_again_waits_for_it() -> None:
    ending = EndOnce()
    may_end = threading.Event()
    steps: list[int] = []

    def first() -> None:
        assert may_end.wait(30)
        ending.run(lambda: steps.append(0))
        steps.append(1)

    def second() -> None:
        ending.run(lambda: steps.append(2))
        steps.append(3)

    threads = [threading.Thread(target=ending.run, args=(first,))]
    threads[0].start()
    support.wait_for(lambda: ending.begun)
    threads.append(threading.Thread(target=second))
    threads[1].start()
    assert not ending.over.is_set()
    may_end.set()
    for thread in threads:
        thread.join(30)
    assert steps == [1, 3]

"""Interrupt a call of a pool at any line, by Ctrl-C or a signal handler. The program goes on.

Each test interrupts a call at one line of mpr after the other, by raising an exception there, as a signal handler does.
"""

from __future__ import annotations

import ast
import functools
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import mpr
from tests import support, tasks

_PACKAGE = str(Path(mpr.__file__).parent)


class _Interrupt(BaseException):
    """Raised by the handler of a signal."""


@functools.cache
def _lines_of_with(file: str) -> frozenset[int]:
    """Return the first line of each `with`.

    Python calls a tracing function there once more when the block ends, before the `__exit__`. No handler of a signal
    runs at that moment, and an exception then would skip the `__exit__`.
    """
    tree = ast.parse(Path(file).read_text())
    return frozenset(node.lineno for node in ast.walk(tree) if isinstance(node, ast.With))


def _interrupted(call: Callable[[], object], line: int) -> bool:
    """Do `call`, and raise at the `line`-th line of mpr that it comes to. Return False if it has fewer lines."""
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        if event == "line" and frame.f_lineno not in _lines_of_with(frame.f_code.co_filename):
            left -= 1
            if left == 0:
                raise _Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except _Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def _each_line(call: Callable[[], object]) -> int:
    """Do `call` until it comes to its end, interrupted one line later each time. Return how often."""
    line = 1
    while _interrupted(call, line):
        line += 1
    return line


def _in_time(call: Callable[[], object]) -> None:
    """Fail if `call` does not return."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it hangs"


@pytest.mark.parametrize("way", ["apply_async", "map_async", "imap", "submit"])
def test_an_interrupted_call_leaves_a_pool_that_works_and_ends(way: str, tmp_path: Path) -> None:
    before = support.census()
    path = tmp_path / "run.rrd"
    pool = mpr.Pool("app", 2, sinks=path)
    calls: dict[str, Callable[[], object]] = {
        "apply_async": lambda: pool.apply_async(tasks.log_number, (0,)),
        "map_async": lambda: pool.map_async(tasks.log_number, [0] * 4, chunksize=1),
        "imap": lambda: pool.imap(tasks.log_number, [0] * 4),
        "submit": lambda: pool.submit(tasks.log_number, 0),
    }
    assert _each_line(calls[way]) > 10
    assert pool.map(tasks.log_number, range(1, 6), chunksize=1) == [1, 2, 3, 4, 5]
    pool.close()
    _in_time(pool.join)
    support.check_file(path)
    # An interrupted task may have run or not; every other task has run.
    found = support.numbers(path)
    assert {number: found[number] for number in range(1, 6)} == dict.fromkeys(range(1, 6), 1)
    assert set(found) <= set(range(6))
    assert not support.left_over(before)


def test_calls_between_interrupted_ones_have_their_results(tmp_path: Path) -> None:
    """Every second call is interrupted."""
    held = []
    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd") as pool:
        line = 1
        while _interrupted(lambda: pool.apply_async(tasks.log_number, (0,)), line):
            held.append(pool.apply_async(tasks.log_number, (line,)))
            line += 1
        assert [each.get(60) for each in held] == list(range(1, line))


@pytest.mark.parametrize("running", [False, True])
def test_an_interrupted_cancel_leaves_a_pool_that_works_and_ends(running: bool, tmp_path: Path) -> None:
    before = support.census()
    pool = mpr.Pool("app", 1, sinks=tmp_path / "run.rrd")
    futures: list[Future[Any]] = []

    def cancel() -> None:
        futures[-1].cancel(running=running)  # type: ignore[call-arg]  # a pool's future has it

    line = 1
    while True:
        gate = tmp_path / f"gate-{line}"
        futures += [pool.submit(tasks.wait_for_file, gate), pool.submit(tasks.log_number, line)]
        interrupted = _interrupted(cancel, line)
        gate.touch()
        if not interrupted:
            break
        line += 1
    assert line > 3
    # Each future has an outcome, and each that was not cancelled has its result.
    for future in futures:
        assert future.cancelled() or future.exception(60) is None
    assert pool.apply(tasks.log_number, (7,)) == 7
    pool.close()
    _in_time(pool.join)
    assert not support.left_over(before)


@pytest.mark.parametrize("end", ["join", "terminate", "close_recording"])
def test_an_interrupted_end_can_be_done_again(end: str, tmp_path: Path) -> None:
    """A caller that is interrupted while a pool ends can end it once more; the file is valid then."""
    before = support.census()
    line = 0
    more = True
    while more:
        line += 1
        path = tmp_path / f"{line}.rrd"
        recording = mpr.SharedRecording("app", sinks=path)
        pool = mpr.Pool("app", 1, recording=recording)
        pool.apply(tasks.log_number, (line,))
        if end == "close_recording":
            pool.close()
            pool.join()
            more = _interrupted(recording.close, line)
        else:
            pool.close()
            more = _interrupted(getattr(pool, end), line)
        _in_time(pool.join)
        _in_time(recording.close)
        support.check_file(path)
        assert support.numbers(path) == {line: 1}
    assert line > 3
    assert not support.left_over(before)

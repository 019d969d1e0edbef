"""What the error of a task says: its task, the place where it ran, and what to do."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.pool import MaybeEncodingError
from pathlib import Path
from typing import Any

import pytest

import mpr
from tests import support

_SPAWN = multiprocessing.get_context("spawn")
_LOG_TIME = r"; log_time 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}Z$"


def _generate(number: int) -> Iterator[int]:
    return (each for each in range(number))


def _lock_or_number(number: int) -> Any:
    return threading.Lock() if number == 2 else number


_THE_ONE = ValueError("always the same")


@mpr.task
def _detect(path: str, *, size: int = 0) -> None:
    raise _THE_ONE


def _twice(path: str) -> None:
    for _ in range(2):
        try:
            _detect(path, size=3)
        except ValueError as error:
            failure = error
    raise failure


def _check_unpicklable(call: Callable[[], object], task: str) -> None:
    with pytest.raises(mpr.UnpicklableTaskError, match=r"cannot be pickled: .*cannot pickle") as e:
        call()
    # Code that was written for a pool of multiprocessing catches this one.
    assert isinstance(e.value, MaybeEncodingError)
    (note,) = e.value.__notes__
    assert re.search(rf"^mpr: task {re.escape(task)} in worker \d+ \(pid \d+\): ", note), note
    assert re.search(_LOG_TIME, note), note


@pytest.mark.parametrize("engine", [None, ProcessPoolExecutor])
def test_a_result_that_cannot_be_pickled_names_its_task(tmp_path: Path, engine: Any) -> None:
    with contextlib.ExitStack() as stack:
        runs_in = engine and stack.enter_context(engine(2, _SPAWN))
        pool = stack.enter_context(mpr.Pool("app", sinks=tmp_path / "run.rrd", engine=runs_in))
        _check_unpicklable(lambda: pool.map(_generate, [1]), "_generate[0]")
        _check_unpicklable(lambda: pool.map(_lock_or_number, range(4), chunksize=4), "_lock_or_number[2]")
        _check_unpicklable(pool.submit(_generate, 1).result, "_generate")
        assert list(pool.imap(_lock_or_number, [0, 1])) == [0, 1]
    support.check_file(tmp_path / "run.rrd")


@pytest.mark.parametrize("call", [_detect, _twice])
def test_an_error_of_a_decorated_function_names_its_task_in_any_pool(tmp_path: Path, call: Callable[..., Any]) -> None:
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd"), ProcessPoolExecutor(1, _SPAWN) as executor:
        for number in range(2):
            with pytest.raises(ValueError, match="always the same") as caught:
                executor.submit(call, "a.png").result()
            # The process raises one object again and again. The note is that of the last task.
            (note,) = caught.value.__notes__
            index, arguments = (number, "'a.png'") if call is _detect else (2 * number + 1, "'a.png', size=3")
            expected = rf"^mpr: task _detect\[{index}\] in worker \d+ \(pid \d+\): _detect\({arguments}\){_LOG_TIME}"
            assert re.search(expected, note), note


def test_in_a_pool_the_note_is_that_of_the_task_of_the_pool(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        for _ in range(2):
            with pytest.raises(ValueError, match="always the same") as caught:
                pool.map(_twice, ["a.png"])
            (note,) = caught.value.__notes__
            assert note.startswith("mpr: task _twice[0] in worker 1 ")


_UNGUARDED = """
import sys, mpr
from tests import tasks

pool = mpr.Pool("app", 2, sinks=sys.argv[1], start_method=sys.argv[2])
pool.map(tasks.square, range(4))
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_script_without_a_guard_gets_one_error(tmp_path: Path, method: str) -> None:
    done = support.run_python(_UNGUARDED, tmp_path / "run.rrd", method)
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last)") == 1, done.stderr
    error = done.stderr.partition("mpr.WorkerStartError: ")[2]
    assert "mpr.Pool was created while a worker imported the main script." in error
    assert "if __name__ == '__main__':" in error


_UNDER_THE_GUARD = """
import sys, mpr

if __name__ == "__main__":
    def below(number):
        return number

    class Below:
        pass

    with mpr.Pool("app", 1, sinks=sys.argv[1]) as pool:
        for call in (lambda: pool.map(below, [1]), lambda: pool.map(print, [Below()])):
            try:
                call()
            except mpr.TaskLoadError as error:
                print(error)
"""


def test_a_function_under_the_guard_must_be_above_it(tmp_path: Path) -> None:
    done = support.run_python(_UNDER_THE_GUARD, tmp_path / "run.rrd")
    assert done.returncode == 0, done.stderr
    function, argument = done.stdout.splitlines()
    assert "cannot load the task function" in function
    assert "cannot load the arguments of a task" in argument
    assert "above the guard" in function
    assert "above the guard" in argument

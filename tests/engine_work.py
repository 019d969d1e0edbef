"""Functions that Ray and Dask run, and run again. Each logs ten rows, the numbers from ten times its argument on."""

from __future__ import annotations

import abc
import asyncio
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import rerun as rr

import mpr
from tests import functions

ROWS = 10
#: The size of a result that Ray keeps in the object store of a node, and not with the driver.
_LARGE_BYTES = 200_000
_DEADLINE_SECS = 60.0


def numbers_of(*tasks: int) -> list[int]:
    """Return the numbers that these tasks log."""
    return [ROWS * task + row for task in tasks for row in range(ROWS)]


def _log(number: int, rows: range = range(ROWS)) -> None:
    task = mpr.current_task()
    assert task is not None
    for row in rows:
        rr.log("n", rr.Scalars(float(ROWS * number + row)))
        rr.log(f"attempt/{task.attempt}", rr.Scalars(float(ROWS * number + row)))


def log_ten(number: int) -> tuple[int, int, bytes]:
    """Log ten rows. Returns the argument, the process and a large value."""
    _log(number)
    return number, os.getpid(), bytes(_LARGE_BYTES)


def log_slowly(number: int, secs: float = 0.2) -> int:
    """Log ten rows within some time, so that several tasks of a process run at the same time."""
    for row in range(ROWS):
        _log(number, range(row, row + 1))
        time.sleep(secs / ROWS)
    return number


def log_nothing(number: int) -> int:
    return number


async def log_later(number: int) -> int:
    for row in range(ROWS):
        _log(number, range(row, row + 1))
        await asyncio.sleep(0)
    return number


def log_in_steps(number: int) -> Iterator[bytes]:
    for row in range(ROWS):
        _log(number, range(row, row + 1))
        yield bytes(_LARGE_BYTES)


def run_steps(wrapped: object, number: int) -> int:
    """Call a wrapped generator in a task of an engine that takes no generators."""
    return len(list(wrapped(number)))  # type: ignore[operator]  # a wrapped function


def run_coroutine(wrapped: object, number: int) -> int:
    """Call a wrapped coroutine in a plain function."""
    return asyncio.run(wrapped(number))  # type: ignore[no-any-return, operator]  # a wrapped function


def call_three_times(wrapped: object, number: int) -> int:
    """Call a wrapped function several times in one task of an engine."""
    for each in range(number, number + 3):
        wrapped(each)  # type: ignore[operator]  # a wrapped function
    return number


def begin_once(folder: Path, number: int) -> bool:
    """Note that task `number` begins. Returns True if it begins for the first time."""
    try:
        (folder / f"begun-{number}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def die_once(number: int, folder: str, victim: int) -> int:
    """Log ten rows. The first run of task `victim` dies after five of them."""
    if number == victim and begin_once(Path(folder), number):
        _log(number, range(5))
        stream = rr.get_data_recording()
        assert stream is not None
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    _log(number)
    return number


def fail_once(number: int, folder: str) -> int:
    """Log ten rows. The first run raises an error at its end."""
    _log(number)
    if begin_once(Path(folder), number):
        raise ValueError(f"task {number} failed")
    return number


def wait_for_file(number: int, folder: str) -> int:
    """Log a row, and then another one when there is a file `go-on`."""
    rr.log("n", rr.Scalars(float(number)))
    stream = rr.get_data_recording()
    assert stream is not None
    stream.flush()
    (Path(folder) / f"run-{number}-{os.getpid()}").touch()
    deadline = time.monotonic() + _DEADLINE_SECS
    while not (Path(folder) / "go-on").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    rr.log("n", rr.Scalars(float(number)))
    return number


def wait_for_another(number: int, folder: str) -> int:
    """Log ten rows in two runs that happen at the same time."""
    (Path(folder) / f"run-{number}-{os.getpid()}").touch()
    _log(number)
    deadline = time.monotonic() + _DEADLINE_SECS
    while len(list(Path(folder).glob(f"run-{number}-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return number


def use_everything(number: int, folder: str) -> tuple[int, str | None, bool]:
    """Log in many ways. Returns the argument, the id of the recording, and if a recording of its own has its rows."""
    rr.set_time("step", sequence=number)
    _log(number)
    rr.init("another", recording_id="another")
    rr.log("after_init", rr.Scalars(float(number)))
    joined = mpr.join()
    joined.log("joined", rr.Scalars(float(number)))
    rr.send_columns("columns", [rr.TimeColumn("step", sequence=[number])], rr.Scalars.columns(scalars=[float(number)]))
    own = rr.RecordingStream("own", recording_id=f"own-{number}")
    own.log("own", rr.Scalars(float(number)))
    saved = rr.RecordingStream("saved", recording_id=f"saved-{number}")
    path = Path(folder) / f"saved-{number}.rrd"
    saved.save(path)
    saved.log("saved", rr.Scalars(float(number)))
    saved.flush()
    size = path.stat().st_size
    recording = rr.get_data_recording()
    return number, recording and recording.get_recording_id(), size > 0


def log_in_thread(number: int) -> int:
    """Log ten rows here, and one in a new thread."""
    _log(number)
    functions.run_in_thread(rr.log, "thread", rr.Scalars(float(number)))
    return number


def decorated_inside(number: int) -> int:
    """Log ten rows by a decorated function."""
    _decorated(number)
    return number


@mpr.task(entity_path_prefix="inner")
def _decorated(number: int) -> None:
    rr.log("decorated", rr.Scalars(float(number)))


class Counter:
    """Logs the numbers that it adds."""

    def __init__(self, start: int) -> None:
        self.total = start
        _log_one(start)

    def add(self, number: int) -> int:
        self._log(number)
        self.total += number
        return self.total

    def _log(self, number: int) -> None:
        _log_one(number)

    def __call__(self, number: int) -> int:
        return self.add(number)

    @staticmethod
    def static(number: int) -> int:
        _log_one(number)
        return number

    @classmethod
    def of_class(cls, number: int) -> int:
        _log_one(number)
        return number

    def steps(self, number: int) -> Iterator[int]:
        _log_one(number)
        yield number

    async def later(self, number: int) -> int:
        await asyncio.sleep(0)
        _log_one(number)
        return number

    def __repr__(self) -> str:
        # This is no call of a user's.
        _log_one(99)
        return "Counter"


class Counted(Counter, abc.ABC):
    def __init__(self) -> None:
        super().__init__(6)


def _log_one(number: int) -> None:
    rr.log("n", rr.Scalars(float(number)))


def use_counter(pickled: bytes, start: int) -> tuple[list[object], str | None]:
    """Call all methods of a pickled class. Returns the results, and the recording that is current afterwards."""
    kind = pickle.loads(pickled)
    made = kind(start)
    assert repr(made) == "Counter"
    found = [made.add(start + 1), made(start + 2), kind.static(start + 3), kind.of_class(start + 4)]
    found += [list(made.steps(start + 5)), asyncio.run(made.later(start + 6))]
    return found, rr.get_recording_id()


class CountBatches:
    """A class for `map_batches` of Ray Data."""

    def __init__(self, start: int) -> None:
        _log_one(start)

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[int]]:
        for number in batch["item"]:
            _log_one(int(number))
        return batch


def wait_for_threads() -> int:
    """Return how many threads this process has."""
    return threading.active_count()

"""A program whose processes are hit by signals: `python killed.py FOLDER START_METHOD SINKS LOGS`.

It notes each result that it has, and each task of a joined process that has returned, as a line of the file `results`.
So a test knows which rows have to be there, whoever was killed.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rerun as rr

import mpr

TASKS = 150
JOINED_TASKS = 40
ROWS = 5


def _note(folder: Path, line: str) -> None:
    fd = os.open(folder / "results", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


def value(number: int, attempt: int) -> int:
    """Return the scalar that attempt `attempt` of task `number` logs."""
    return 10 * number + attempt


def log_rows(number: int, own: bool) -> tuple[int, int]:
    task = mpr.current_task()
    assert task is not None
    scalar = rr.Scalars(float(value(number, task.attempt)))
    if own:
        with rr.RecordingStream("own", recording_id=f"own-{number}-{task.attempt}"):
            rr.log("n", scalar)
    for row in range(ROWS):
        rr.log(f"rows/{row}", scalar)
        rr.log("noise", rr.Image(np.full((40, 40, 3), number % 256, np.uint8)))
    return number, task.attempt


@mpr.task
def _log_joined(number: int) -> None:
    for row in range(ROWS):
        rr.log(f"joined/{row}", rr.Scalars(float(number)))


def join(folder: Path, first: int) -> None:
    # Raises an error if the recording is gone. Without this call, a task would run without it, and say so.
    mpr.join()
    for number in range(first, first + JOINED_TASKS):
        _log_joined(number)
        _note(folder, f"joined {number}")
        time.sleep(0.01)


def _run(folder: Path, start_method: Any, sinks: str, logs: str) -> None:
    chosen: list[Any] = [mpr.FileSink(path=folder / "run.rrd")]
    if sinks == "directory":
        chosen.append(mpr.DirectorySink(path=folder / "episodes", name="{index:d}-{attempt}.rrd"))
    context = multiprocessing.get_context("spawn")
    with mpr.SharedRecording("app", sinks=chosen) as recording:
        children = [context.Process(target=join, args=(folder, 1000 * number)) for number in (1, 2)]
        with mpr.Pool("app", 3, recording=recording, start_method=start_method, retries=1) as pool:
            for child in children:
                child.start()
            results = pool.imap(_Call(logs == "own"), range(TASKS))
            _note(folder, "begun")
            for _ in range(TASKS):
                try:
                    number, attempt = next(results)
                except mpr.WorkerDiedError:
                    continue
                except KeyboardInterrupt as error:
                    # A worker was interrupted in its task. An interrupt of this process has no cause.
                    if error.__cause__ is None:
                        raise
                else:
                    _note(folder, f"task {number} {attempt}")
        for child in children:
            child.join()
    _note(folder, "ended")


class _Call:
    def __init__(self, own: bool) -> None:
        self._own = own

    def __call__(self, number: int) -> tuple[int, int]:
        return log_rows(number, self._own)


if __name__ == "__main__":
    from tests import killed

    killed._run(Path(sys.argv[1]), *sys.argv[2:])

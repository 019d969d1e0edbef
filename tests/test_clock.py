"""A result does not wait for a long task after it, although no task reads the clock."""

from __future__ import annotations

import functools
import gc
import os
import threading
from pathlib import Path

import pytest

import mpr
from mpr.worker.clock import Clock
from tests import support


def _ticked() -> bool:
    return any(each.ticked[0] for each in gc.get_objects() if isinstance(each, Clock))


def _wait(task: int, go_on: Path) -> int:
    """Wait in task 0 until the clock has ticked, in task 1 until `go_on` exists, and not in other tasks."""
    if task == 0:
        support.wait_for(_ticked)
    elif task == 1:
        support.wait_for(go_on.exists)
    return task


def _wait_or_die(task: int) -> int:
    if task == 0:
        support.wait_for(_ticked)
    elif task == 1:
        os._exit(3)
    return task


def test_a_result_arrives_while_a_later_task_of_its_work_item_runs(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        results = pool.imap(functools.partial(_wait, go_on=tmp_path / "go_on"), range(4), chunksize=4)
        assert 0 == results.next(timeout=30)
        (tmp_path / "go_on").touch()
        assert [1, 2, 3] == list(results)


def test_a_task_that_dies_costs_no_result_of_a_task_before_it(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        results = pool.imap(_wait_or_die, range(3), chunksize=3)
        assert 0 == next(results)
        with pytest.raises(mpr.WorkerDiedError, match=r"_wait_or_die\[1\]"):
            next(results)
        assert 2 == next(results)


def test_without_another_thread_each_result_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    clock = Clock(lambda: None)
    clock.resume()
    assert (True, [True]) == (clock.always, clock.ticked)


_TICK_AGAIN = """
import json, threading, time
from mpr.worker.clock import Clock

ticked = threading.Event()
clock = Clock(ticked.set)
found = []
for _ in range(3):
    clock.tick_once()
    found.append(ticked.wait(30))
    # The thread may be idle by then or not. It has to tick again in both cases.
    time.sleep(0.25)
    ticked.clear()
print(json.dumps(found))
"""


def test_the_clock_ticks_once_more_after_each_request() -> None:
    # The clock runs in another process, because its thread ends only with the process.
    found = support.run_python(_TICK_AGAIN)
    assert "[true, true, true]" == found.stdout.strip(), found.stderr

"""The zygote forks the workers of `start_method="fork"`: if it is killed, its workers end, and an error says so."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

import mpr
from tests import support, tasks


def _zygote() -> psutil.Process:
    """Return the child of this process that has children of its own."""
    (found,) = [each for each in psutil.Process().children() if len(each.children()) == 3]
    return found


def test_all_workers_end_when_the_zygote_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    pool = mpr.Pool("app", 3, sinks=path, start_method="fork")
    assert pool.map(tasks.log_number, range(20), chunksize=1) == list(range(20))
    support.wait_for(lambda: any(len(each.children()) == 3 for each in psutil.Process().children()))
    zygote = _zygote()
    workers = zygote.children()
    os.kill(zygote.pid, signal.SIGKILL)
    # The workers do nothing, and hear of nothing but the end of the zygote.
    for worker in workers:
        support.wait_for(lambda pid=worker.pid: not support.lives(pid))
    with pytest.raises(mpr.WorkerStartError, match="the process that forks the workers was killed"):
        pool.map(tasks.log_number, range(20, 40), chunksize=1)
    pool.terminate()
    pool.join()
    support.check_file(path)
    assert Counter(range(20)) - support.numbers(path) == Counter()


def test_a_worker_that_ends_leaves_no_pipe_in_the_zygote(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", start_method="fork", maxtasksperchild=1) as pool:
        # The zygote may not have noticed the end of the last worker when it forks the next one.
        found = [pool.apply(_parents_files) for _ in range(8)]
        assert found[-1] <= found[0] + 2


def _parents_files() -> int:
    return len(os.listdir(f"/proc/{os.getppid()}/fd"))

"""The progress bar: what it shows at the end, and that it fails no task."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import mpr
from tests import support

_SCRIPT = """
import sys, mpr
from tests import tasks

def numbers():
    yield from range(30)

if __name__ == "__main__":
    with mpr.Pool("app", 2, sinks=sys.argv[1], progress=True) as pool:
        pool.map(tasks.log_number, range(20), chunksize=3)
        list(pool.imap_unordered(tasks.square, numbers()))
        results = [pool.apply_async(tasks.raise_if_odd, (number,)) for number in range(8)]
        for result in results:
            result.wait()
"""


def test_the_bar_says_what_is_done_and_what_has_failed(tmp_path: Path) -> None:
    done = support.run_python(_SCRIPT, tmp_path / "run.rrd")
    assert done.returncode == 0, done.stderr
    # Find the last state of each bar. A call whose result is not awaited may share a line with the next bar.
    last = [line.rpartition("\r")[2] for line in done.stderr.replace("\r\n", "\n").split("\n")]
    assert any(line.startswith("log_number: 100%") and " 20/20 " in line for line in last), done.stderr
    assert any(line.startswith("square: 100%") and " 30/30 " in line for line in last), done.stderr
    assert any("8/8" in line and "4 failed" in line for line in last), done.stderr
    # Each of the twenty tasks has logged a row.
    assert any(" 20/20 " in line and "20 rows" in line for line in last), done.stderr
    support.check_file(tmp_path / "run.rrd")


_LEFT_EARLY = """
import sys, mpr
from pathlib import Path
from tests import tasks

if __name__ == "__main__":
    with mpr.Pool("app", 1, sinks=sys.argv[1], progress=True) as pool:
        # The first task waits, so that one bar counts all tasks.
        marker = Path(sys.argv[1]).with_suffix(".marker")
        pool.submit(tasks.wait_for_file, marker)
        failed = pool.submit(tasks.raise_if_odd, 1)
        for _ in range(5):
            pool.submit(tasks.sleep, 3600)
        marker.touch()
        failed.exception()
        raise SystemExit(0)
"""


def test_tasks_that_were_dropped_have_not_failed(tmp_path: Path) -> None:
    done = support.run_python(_LEFT_EARLY, tmp_path / "run.rrd")
    assert done.returncode == 0, done.stderr
    last = done.stderr.rstrip("\n").rpartition("\r")[2]
    assert "5 dropped" in last, done.stderr
    assert "1 failed" in last
    assert " 2/7 " in last


def test_without_tqdm_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(mpr.MissingDependencyError, match=r"pip install tqdm .*'rerun-mpr\[progress\]'"):
        mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", progress=True)
    assert not (tmp_path / "run.rrd").exists()


def test_a_terminal_that_is_gone_costs_no_result(tmp_path: Path) -> None:
    source = _SCRIPT.replace("with mpr.Pool", "sys.stderr.close()\n    with mpr.Pool")
    done = support.run_python(source, tmp_path / "run.rrd")
    assert done.returncode == 0
    assert set(support.numbers(tmp_path / "run.rrd")) == set(range(20))

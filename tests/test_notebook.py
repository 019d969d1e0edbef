"""`recording.notebook_show()` in a real kernel, with a simulated page that answers and keeps what a browser would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipykernel
import pytest

import mpr
from tests import notebooks, support, tasks
from tests.notebooks import Page

_FUNCTIONS = """
import os, time
import mpr, rerun as rr

def work(number):
    rr.set_time("step", sequence=number)
    rr.log("n", rr.Scalars(float(number)))
    # The last one ends when the test says so.
    while number == 19 and not os.path.exists("go"):
        time.sleep(0.01)
    return number
"""


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with notebooks.notebook(tmp_path) as page:
        page.run(_FUNCTIONS)
        yield page


def _numbers(page: Page, viewer: int = -1) -> set[int]:
    return {int(float(cell.value.strip("[]"))) for cell in page.cells(viewer) if cell.component == "Scalars:scalars"}


@pytest.mark.parametrize(
    "within_one_cell",
    [False, pytest.param(True, marks=pytest.mark.skipif(ipykernel.version_info >= (7,), reason="not heard in a cell"))],
)
def test_rows_are_shown_while_a_cell_runs(page: Page, tmp_path: Path, within_one_cell: bool) -> None:
    def release(_message: Any) -> bool:
        # The rows of all other tasks are shown while the last task still runs.
        if len(page.viewers) == 1 and _numbers(page) >= set(range(19)):
            (tmp_path / "go").touch()
        return (tmp_path / "go").exists()

    show = 'pool = mpr.Pool("app", 2, sinks="run.rrd"); pool.recording.notebook_show()'
    work = "print(sum(pool.map(work, range(20), chunksize=1))); pool.close(); pool.join()"
    if within_one_cell:
        page.begin(f"{show}\n{work}")
    else:
        page.run(show)
        page.begin(work)
    page.listen(release)
    page.listen(
        lambda _message: "190" in page.printed and page.cells() == support.cells_of_growing(tmp_path / "run.rrd")
    )
    support.check_file(tmp_path / "run.rrd")


@pytest.mark.parametrize("sinks", ["'run.rrd'", "mpr.FileSink(path='run.rrd', compact=True)", "mpr.BinaryStreamSink()"])
def test_a_viewer_gets_everything_from_the_start_whenever_it_is_opened(page: Page, tmp_path: Path, sinks: str) -> None:
    (tmp_path / "go").touch()
    page.run(f"pool = mpr.Pool('app', 1, sinks=[{sinks}, 'judge.rrd'])")
    page.run("pool.map(work, range(10)); pool.recording.notebook_show(width='auto', height=200)")
    page.run("pool.map(work, range(10, 20)); pool.close(); pool.join()")
    page.run("pool.recording.notebook_show()")
    wanted = support.cells(tmp_path / "judge.rrd")
    assert {cell.entity for cell in wanted} == {"/n"}
    for viewer in range(2):
        page.listen(lambda _message, viewer=viewer: page.cells(viewer) == wanted)
    # The page is loaded again.
    before = len(page.sent[page.viewers[0]])
    page.open(page.viewers[0])
    page.listen(lambda _message: page.sent[page.viewers[0]][before:] and page.cells(0) == wanted)
    page.sent[page.viewers[0]][:before] = []
    page.listen(lambda _message: page.cells(0) == wanted)


def test_a_notebook_without_an_open_page_does_not_wait_for_long(page: Page, tmp_path: Path) -> None:
    page.eager = False
    (tmp_path / "go").touch()
    page.run(
        """
        began = time.monotonic()
        with mpr.Pool("app", 1, sinks="run.rrd") as pool:
            pool.recording.notebook_show(wait_secs=0.5)
            assert time.monotonic() - began < 60
            pool.map(work, range(20))
        """
    )
    page.run("import threading; assert not [t for t in threading.enumerate() if t.name == 'mpr-notebook']")
    # A page is opened at last.
    page.open(page.viewers[0])
    page.listen(lambda _message: page.cells() == support.cells(tmp_path / "run.rrd"))


@pytest.mark.parametrize("sinks", ["episodes/", mpr.GrpcServerSink(port=0)], ids=["files of tasks", "only live"])
def test_a_recording_without_a_readable_sink_cannot_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sinks: str | mpr.GrpcServerSink
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        mpr.Pool("app", 1, sinks=sinks) as pool,
        pytest.raises(mpr.SinkError, match=r"needs a FileSink or a BinaryStreamSink"),
    ):
        pool.recording.notebook_show()


def test_without_the_widget_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rerun_notebook", None)
    with (
        mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool,
        pytest.raises(mpr.MissingDependencyError, match=r"pip install rerun-notebook .*'rerun-mpr\[notebook\]'"),
    ):
        pool.recording.notebook_show()


def test_a_file_that_is_gone_cannot_be_shown(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        assert Counter(pool.map(tasks.log_number, range(3))) == Counter(range(3))
    (tmp_path / "run.rrd").unlink()
    with pytest.raises(mpr.SinkError, match=r"cannot read .*run\.rrd"):
        pool.recording.notebook_show()

"""The report of a run explains each failure: on its page, in the recordings, in the terminal and on the web."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import rerun as rr
from click.testing import CliRunner

from mpr import cli
from mpr.pytest_plugin.recording import test_facts
from mpr.pytest_plugin.report import html_page
from tests import support, viewers
from tests.pytest_plugin import inner
from tests.pytest_plugin.inner import Run

_SUITE = """
import time
import pytest, rerun as rr, rerun.blueprint as rrb

class Silent:
    def __repr__(self):
        raise RuntimeError("no test asks for this")

@pytest.fixture
def slow():
    time.sleep(0.2)

@pytest.mark.parametrize("number", [1, 2, 9, 10])
@pytest.mark.parametrize("kind", ["good", "bad", Silent()])
def test_many(slow, kind, number):
    rr.log("n", rr.Scalars(number))
    tracks = [number]
    assert tracks == [number + (kind != "good")], "the `tracks` are wrong"

def test_text():
    raise ValueError("~~~~ and ```\\nsecond line")

def test_own_layout():
    rr.send_blueprint(rrb.Vertical(rrb.TimeSeriesView(origin="/n"), rrb.TextLogView(origin="/")))
    rr.log("n", rr.Scalars(1))
    assert False

@pytest.fixture
def broken():
    yield
    {}["missing"]

def test_both(broken):
    assert 1 == 2
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return inner.run(
        tmp_path_factory.mktemp("suite"), "-n2", "--mpr=on", "--mpr-artifact-url=https://ci.example/job 7/",
        plugins=("xdist", "xdist.looponfail"), test_s=_SUITE,
    )  # fmt: skip


def _page(run: Run) -> str:
    (path,) = run.output.glob(f"*/{html_page.NAME}")
    return path.read_text()


def _row(page: str, test: str) -> str:
    rows = re.findall(r"<tr data-outcome.*?</tr>", page, re.DOTALL)
    (found,) = [row for row in rows if f'data-test="test_s.py::{test}"' in row]
    return str(found)


def test_the_page_says_why_a_test_has_failed(suite: Run) -> None:
    row = _row(_page(suite), "test_many[bad-10]")
    summary, traceback = re.findall(r"<summary>(.*)</summary><pre>(.*)</pre>", row, re.DOTALL)[0]
    assert "<b>AssertionError: the `tracks` are wrong</b>" in summary
    assert "<code>test_s.py:18</code>" in summary
    assert '<code class="source">assert tracks == [number + (kind != &quot;good&quot;)]' in summary
    assert "<i>E       AssertionError: the `tracks` are wrong</i>" in traceback
    both = suite.test("test_s.py::test_both")["failures"]
    assert [("call", "assert 1 == 2"), ("teardown", "KeyError: 'missing'")] == [
        (each["phase"], each["message"]) for each in both
    ]
    assert [] == suite.test("test_s.py::test_many[good-1]")["failures"]


def test_the_page_has_phases_with_their_times_and_parameters(suite: Run) -> None:
    test = suite.test("test_s.py::test_many[bad-9]")
    steps = {each["name"]: (each["outcome"], each["duration_secs"]) for each in test["steps"]}
    assert {"setup": "passed", "call": "failed", "teardown": "passed"} == {
        name: each[0] for name, each in steps.items()
    }
    assert steps["setup"][1] >= 0.2
    assert abs(sum(each[1] for each in steps.values()) - test["duration_secs"]) < 0.1
    assert re.search(
        r"<li>setup \d+ ms<li class=failed>call \d+ ms<li>teardown \d+ ms", _row(_page(suite), "test_many[bad-9]")
    )
    assert {"kind": "bad", "number": "9"} == test["parameters"]
    # The object is not asked for its text.
    assert {"kind": "kind2", "number": "9"} == suite.test("test_s.py::test_many[kind2-9]")["parameters"]


def test_the_order_of_the_page_is_natural(suite: Run) -> None:
    found = re.findall(r'data-test="test_s.py::test_many\[bad-(\d+)\]', _page(suite))
    assert ["1", "2", "9", "10"] == found


def test_a_recording_is_opened_in_the_web_viewer_by_one_click(suite: Run) -> None:
    row = _row(_page(suite), "test_both")
    (link,) = re.findall(r'class="view" href="([^"]*)"', row)
    assert link.startswith(f"https://app.rerun.io/version/{rr.__version__}/?url=")
    (url,) = parse_qs(urlsplit(link).query)["url"]
    path = suite.path("test_s.py::test_both")
    assert url == f"https://ci.example/job 7/{path.parent.name}/{path.name}"


def _blueprint(path: Path) -> dict[str, Any]:
    """Return the newest value of each component in the blueprint of a recording."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = rr.chunk.RrdReader(path)
        (entry,) = reader.blueprints()
        found: dict[str, Any] = {}
        for chunk in reader.stream(store=entry):
            batch = chunk.to_record_batch()
            for name in batch.schema.names:
                if ":" in name:
                    found[f"{chunk.entity_path} {name}"] = batch.column(name).to_pylist()[-1]
    return found


def _origins(path: Path) -> list[str]:
    return sorted(value[0] for name, value in _blueprint(path).items() if name.endswith("ViewBlueprint:space_origin"))


def test_the_recording_of_a_failed_test_shows_the_failure_first(suite: Run) -> None:
    suite.check_files()
    path = suite.path("test_s.py::test_many[bad-1]")
    cells = support.cells(path).elements()
    (document,) = [cell for cell in cells if (cell.entity, cell.component) == ("/pytest/report", "TextDocument:text")]
    assert "## `` AssertionError: the `tracks` are wrong ``" in document.value
    assert "`test_s.py::test_many[bad-1]` failed in the call, at `test_s.py:18`:" in document.value
    assert "    assert tracks == [number + (kind != " in document.value
    # It is static, so it is seen at each time.
    assert () == document.times
    assert ["/", "/n", "/pytest/report"] == _origins(path)
    # A test that has passed has no such layout.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [] == rr.chunk.RrdReader(suite.path("test_s.py::test_many[good-1]")).blueprints()


def test_a_blueprint_of_the_test_is_kept_beside_the_failure(suite: Run) -> None:
    path = suite.path("test_s.py::test_own_layout")
    assert ["/", "/n", "/pytest/report"] == _origins(path)
    found = _blueprint(path)
    contents = {name.split()[0]: value for name, value in found.items() if name.endswith(":contents")}
    (viewport,) = [value for name, value in found.items() if name.endswith(":root_container")]
    root = f"/container/{_uuid(viewport[0])}"
    (inside,) = [name for name in contents if name != root]
    assert inside.removeprefix("/") in contents[root]
    assert 2 == len(contents[inside])


def _uuid(value: Any) -> str:
    text = bytes(value).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def test_the_terminal_names_ten_recordings_and_the_page(suite: Run) -> None:
    text = suite.stdout.partition("= mpr recordings =")[2]
    commands = re.findall(r"^    (rerun .*)  \(", text, re.MULTILINE)
    assert 10 == len(commands)
    # The shell reads them as they are meant.
    for command in commands:
        assert (suite.folder / shlex.split(command)[1]).is_file(), command
    assert "and 1 more\n" in text
    assert re.search(r"^all of them: mpr-results/.*/index.html$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "message", "where", "source"),
    [
        (
            "    def test_a():\n>       assert 1 == 2\nE       assert 1 == 2\n\ntest_a.py:3: AssertionError",
            "assert 1 == 2", "test_a.py:3", "assert 1 == 2",
        ),
        (
            "test_a.py:2: in test_a\n    helper()\ntest_a.py:9: in helper\n    raise ValueError(1)\nE   ValueError: 1",
            "ValueError: 1", "test_a.py:9", "raise ValueError(1)",
        ),
        ("what differs:\n  /n: 1 expected\n", "what differs: /n: 1 expected", "", ""),
        ("", "(no text)", "", ""),
    ],
    ids=["long", "short", "text", "empty"],
)  # fmt: skip
def test_a_failure_is_read_from_the_text_of_pytest(text: str, message: str, where: str, source: str) -> None:
    (found,) = test_facts.failures_of([("call", text), ("call", text)], "/")
    assert (message, where, source, text) == (found.message, found.where, found.source, found.text)


def test_a_long_traceback_is_shortened_in_its_middle() -> None:
    (found,) = test_facts.failures_of([("call", "begin" + "x" * 1_000_000 + "end")], "/")
    assert len(found.text) < 20_000
    assert found.text.startswith("begin")
    assert found.text.endswith("end")


_KILLED = """
import os, signal, pytest, rerun as rr

@pytest.fixture
def logged():
    rr.log("before", rr.Scalars(1))

def test_fine(logged): pass

@pytest.mark.parametrize("what", ["something", "nothing"])
def test_dies(what, request):
    if what == "something":
        request.getfixturevalue("logged")
        rr.get_global_data_recording().flush()
    if what == os.environ["DIES"]:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("dies", ["something", "nothing"])
def test_a_recovered_test_has_its_node_id_outcome_and_phases(tmp_path: Path, dies: str) -> None:
    killed = inner.run(tmp_path, "--mpr=on", env={"DIES": dies}, test_k=_KILLED)
    assert -signal.SIGKILL == killed.code
    recovered = CliRunner().invoke(cli.main, ["recover", str(killed.output)])
    assert 0 == recovered.exit_code, recovered.output
    nodeid = f"test_k.py::test_dies[{dies}]"
    assert f"recovered: {nodeid} crashed during its call" in recovered.output
    assert (dies == "nothing") == ("no row of it was in the file" in recovered.output)
    killed.check_files()
    (path,) = [path for path in killed.files() if f"[{dies}]" in path.name]
    properties = {
        cell.component: cell.value
        for cell in support.cells(path, properties=True)
        if cell.entity == "/__properties/pytest"
    }
    assert (f"['{nodeid}']", "['crashed']") == (properties["nodeid"], properties["outcome"])
    texts = {(each.entity, each.text) for each in support.texts(path)}
    assert {("/pytest/phase", "setup"), ("/pytest/phase", "call")} <= texts
    (document,) = [cell.value for cell in support.cells(path) if cell.component == "TextDocument:text"]
    # There is no traceback, and no empty place for one.
    assert f"may be missing`\\n\\n`{nodeid}` failed in the call.']" in document
    before = path.read_bytes()
    again = CliRunner().invoke(cli.main, ["recover", str(killed.output)])
    assert (0, len(killed.files())) == (again.exit_code, again.output.count("is whole"))
    assert before == path.read_bytes()


def test_the_recording_of_a_test_that_still_runs_is_left_alone(tmp_path: Path) -> None:
    source = """
import subprocess, sys, os
def test_runs():
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    command = [sys.executable, "-m", "mpr", "recover", "mpr-results"]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert f"is being written by the process {os.getpid()}, which runs test_r.py::test_runs" in done.stderr
"""
    run = inner.run(tmp_path, "--mpr=on", test_r=source)
    assert 0 == run.code, run.stdout
    run.check_files()


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ({"GITHUB_RUN_ID": "1", "GITHUB_RUN_ATTEMPT": "1", "GITHUB_JOB": "a"},) * 2 + (2,),
        ({"CI_JOB_ID": "7"}, {"CI_JOB_ID": "8"}, 1),
        ({"CI": "true"}, {"CI": "true"}, 2),
        ({}, {}, 1),
    ],
    ids=["same job", "another job", "unknown", "no CI"],
)
def test_a_run_of_the_same_job_is_never_removed(
    tmp_path: Path, first: dict[str, str], second: dict[str, str], kept: int
) -> None:
    for env in (first, second):
        inner.run(tmp_path, "--mpr=on", "--mpr-keep-runs=1", env={"CI": "", **env}, test_x="def test_x(): pass\n")
    assert kept == len(list((tmp_path / "mpr-results").glob("*/run.json")))


def test_a_changed_run_json_neither_stops_a_run_nor_removes_files_of_others(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("")
    changed = ["{}", "[]", '{"files": 5}', '{"pid": "x"}', '{"files": ["../../own.txt"]}', f'{{"files": ["{own}"]}}']
    for number, text in enumerate([*changed, '{"files": ["run.json"]}']):
        folder = tmp_path / "mpr-results" / str(number)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(text)
    run = inner.run(tmp_path, "--mpr=on", "--mpr-keep-runs=1", env={"CI": ""}, test_x="def test_x(): pass\n")
    assert "cannot finish" not in run.stdout
    assert own.exists()
    (last,) = {path.name for path in run.output.iterdir() if path.is_dir()}.difference(map(str, range(len(changed))))
    assert last.startswith("20")


@pytest.mark.timeout(120)
def test_the_page_is_served_with_a_web_viewer_until_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "test_v.py").write_text("def test_fails():\n    assert False\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-u", "-m", "pytest", "-p", "mpr", "-p", "no:cacheprovider", "--mpr=on", "--mpr-serve"]
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(inner.ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        try:
            address = next(
                found[1] for line in served.stdout if (found := re.search(r"the page of this run: (http://\S+)", line))
            )
            with urllib.request.urlopen(address, timeout=30) as answer:
                page = answer.read().decode()
            (link,) = re.findall(r'class="view" href="([^"]*)"', page)
            viewer, _, url = link.partition("?url=")

            def has_viewer() -> bool:
                try:
                    with urllib.request.urlopen(viewer, timeout=30) as answer:
                        return b"rerun" in answer.read().lower()
                except OSError:
                    return False

            support.wait_for(has_viewer, 60)
            with urllib.request.urlopen(unquote(url), timeout=30) as answer:
                assert answer.headers["Access-Control-Allow-Origin"] == viewer.rstrip("/")
                assert answer.read()[:4] == b"RRF2"
        finally:
            served.send_signal(signal.SIGINT)
            rest = served.stdout.read()
        assert 1 == served.wait(30)
    assert "the page is no longer served" in rest
    assert "1 failed" in rest


_CHANGES = """
import os
import numpy as np, rerun as rr

def test_golden(mpr_golden):
    for step in range(4):
        rr.set_time("step", sequence=step)
        # Only the picture of step 1 changes.
        red = 220 if step == 1 and os.environ.get("CHANGED") else 20
        rr.log("picture", rr.Image(np.full((40, 60, 3), (red, 180, 60), np.uint8)))
    mpr_golden()
"""


@pytest.mark.skipif(
    not hasattr(rr.experimental.ViewerClient, "get_state"),
    reason="the viewer of this SDK cannot be asked what it shows",
)
@pytest.mark.timeout(300)
def test_an_update_shows_before_and_after_as_pictures(tmp_path: Path) -> None:
    from PIL import Image

    viewers.needed(viewers.has_vulkan(), "a Vulkan driver")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmpr_screenshot_timeout = 100\nmpr_screenshots_time = 200\n")
    assert 0 == inner.run(tmp_path, env={"CI": ""}, test_g=_CHANGES).code
    updated = inner.run(tmp_path, "--mpr-golden-update", env={"CI": "", "CHANGED": "1"}, test_g=_CHANGES)
    assert 0 == updated.code, updated.stdout
    (page,) = updated.output.glob(f"*/{html_page.NAME}")
    assert f"before and after: {page.relative_to(tmp_path)}" in updated.stdout
    (change,) = updated.test("test_g.py::test_golden")["goldens"]
    assert ("step", 1, True) == (change["timeline"], change["time"], change["written"])
    # The first difference is on the page, and the pictures show its time.
    assert "at step=1: 2400 of 2400 pixels are different" in page.read_text()
    reds = []
    for name in ("before_picture", "after_picture"):
        with Image.open(change[name]) as image:
            colors = image.convert("RGB").getcolors(1 << 24) or []
        reds.append(max((count, color) for count, color in colors if abs(color[1] - 180) <= 8)[1][0])
        assert f'<img src="{Path(change[name]).relative_to(page.parent)}"' in page.read_text()
    assert reds[0] < 60 < 180 < reds[1]
    assert re.search(r"<figcaption>before</figcaption>.*<figcaption>after</figcaption>", page.read_text())

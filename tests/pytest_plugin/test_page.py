"""The page of a run, in a browser if there is one, and pictures of failing tests, in separate runs."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image
from rerun.experimental import ViewerClient

from mpr.pytest_plugin.report import html_page
from mpr.pytest_plugin.results import FailedPhase, RecordedTest, Step
from tests import viewers
from tests.pytest_plugin import inner

_HOSTILE = "test_x.py::test[<script>alert(1)</script>&\"'\x00\n\udcff-日本]"


class _Page(HTMLParser):
    """The links and rows of a page, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.rows: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.links += [values["href"] or ""] if tag == "a" and "href" in values else []
        self.loads += [value or "" for name, value in attrs if name == "src" or (name == "href" and tag == "link")]
        self.rows += [values] if tag == "tr" and "data-outcome" in values else []


def _result(folder: Path, nodeid: str, outcome: str = "passed", **more: Any) -> RecordedTest:
    name = more.pop("name", None)
    given = {"attempt": 0, "worker": "main", "started": 1.79e9, "duration_secs": 0.5} | more
    path = folder / name if name else None
    return RecordedTest(nodeid=nodeid, outcome=outcome, path=path, size_bytes=4321 if name else 0, **given)


def _some(folder: Path) -> list[RecordedTest]:
    return [
        _result(folder, "test_a.py::test_fine", duration_secs=90.0),
        _result(folder, "test_a.py::test_flaky", "failed", name="flaky.rrd", duration_secs=1.5),
        _result(folder, "test_a.py::test_flaky", attempt=1),
        _result(folder, _HOSTILE, "failed", name="odd [x] %41 'q'.rrd", picture=folder / "odd [x].png", worker="gw1"),
        _result(folder, "test_b.py::test_dead", "crashed", name="dead.rrd", duration_secs=None, notes=("<died>",)),
    ]


def test_a_page_needs_nothing_but_its_folder_and_escapes_what_it_is_given(tmp_path: Path) -> None:
    text = html_page.write(tmp_path, _some(tmp_path)).read_text(encoding="utf-8")
    found = _Page(text)
    # The page has one script and one style, and the names of tests add none.
    assert (1, 1) == (found.tags.count("script"), found.tags.count("style"))
    assert "<script>alert" not in text
    assert "&lt;died&gt;" in text
    for link in found.links + found.loads:
        assert ("", "") == urlsplit(link)[:2], link
        assert not link.startswith("/")
    assert {"flaky.rrd", "odd [x] %41 'q'.rrd", "dead.rrd", "odd [x].png"} == {unquote(each) for each in found.links}
    assert "rerun &#x27;odd [x] %41 &#x27;&quot;&#x27;&quot;&#x27;q&#x27;&quot;&#x27;&quot;&#x27;.rrd&#x27;" in text
    assert [html_page.NAME] == os.listdir(tmp_path)


def test_a_page_lists_outcomes_and_puts_the_worst_first(tmp_path: Path) -> None:
    text = html_page.page(tmp_path, _some(tmp_path))
    plain = re.sub(r"<[^>]*>", "", text)
    assert "4 tests in 5 attempts: 1 crashed, 2 failed, 2 passed. Started 20" in plain
    assert "took 1 min 30 s." in plain
    assert "3 recordings kept, 13 kB." in plain
    rows = [(row["data-outcome"], row["data-test"]) for row in _Page(text).rows]
    # The attempts of a test stay together.
    assert ["crashed", "failed", "passed", "failed", "passed"] == [outcome for outcome, _ in rows]
    assert ["test_flaky", "test_flaky"] == [str(test).rpartition("::")[2] for _, test in rows[1:3]]
    assert "attempt 2" in plain


def test_a_page_of_nothing_and_of_many(tmp_path: Path) -> None:
    assert "No test was recorded." in html_page.page(tmp_path, [])
    many = [_result(tmp_path, f"test_a.py::test[{number}]") for number in range(3000)]
    text = html_page.page(tmp_path, many)
    assert 3000 == len(_Page(text).rows)
    assert len(text) < 2e6


@pytest.fixture
def browser() -> Iterator[Any]:
    viewers.needed(importlib.util.find_spec("playwright") is not None, "playwright")
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    viewers.needed(program is not None, "Chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.geteuid() != 0)
        yield started
        started.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_can_be_filtered_and_sorted(browser: Any, tmp_path: Path, scheme: str) -> None:
    shown = browser.new_page(color_scheme=scheme)
    errors: list[object] = []
    shown.on("pageerror", lambda error: errors.append(error))
    Image.new("RGB", (16, 10)).save(tmp_path / "odd [x].png")
    shown.goto(html_page.write(tmp_path, _some(tmp_path)).as_uri(), timeout=60_000)

    def tests() -> list[str]:
        found: list[str] = shown.evaluate(
            "[...document.querySelectorAll('tbody tr')].filter(r => !r.hidden).map(r => r.dataset.test)"
        )
        return [each.rpartition("::")[2] for each in found]

    assert 5 == len(tests())
    shown.check("input[value=failed]", force=True)
    assert {"test_flaky"} == {each for each in tests() if "script" not in each}
    assert 2 == len(tests())
    shown.fill("input[type=search]", "FLAKY")
    assert ["test_flaky"] == tests()
    assert "1 of 5" == shown.inner_text("output")
    shown.fill("input[type=search]", "")
    shown.check("input[value='']", force=True)
    shown.click("text=Time")
    assert "test_fine" == tests()[-1]
    shown.click("text=Time")
    assert "test_fine" == tests()[0]
    assert shown.evaluate("document.images[0].naturalWidth") == 16
    luminous = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (scheme == "light") == (int(re.findall(r"\d+", luminous)[0]) > 128)
    viewers.artifact(f"page-{scheme}.png").write_bytes(shown.screenshot(timeout=60_000))
    assert [] == errors


def _many(folder: Path) -> list[RecordedTest]:
    """Return 200 failures, with parameters and tracebacks, a third of them with pictures."""
    Image.new("RGB", (640, 400), (20, 120, 60)).save(folder / "picture.png")
    found = []
    for number in range(200):
        kind = ("left", "right", "a kind with a long name")[number % 3]
        name = f"tests/tracking/test_tracker.py::TestTracker::test_follows_objects_through_occlusions[{kind}-{number}]"
        text = f">       assert {number} == 1\nE       assert {number} == 1\n" + "a long line " * 40
        failure = FailedPhase(
            phase="call", message=f"AssertionError: number {number} is wrong " + "x" * 150,
            where="tests/tracking/test_tracker.py:12", source=f"assert {number} == 1", text=text,
        )  # fmt: skip
        steps = tuple(Step(name=each, outcome="passed", duration_secs=0.01) for each in ("setup", "call", "teardown"))
        picture = folder / "picture.png" if number % 3 == 0 else None
        found.append(
            _result(
                folder, name, "failed", name=f"{number}.rrd", failures=(failure,), steps=steps, picture=picture,
                parameters={"kind": kind, "number": str(number)},
            )
        )  # fmt: skip
    return found


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (1000, "dark"), (420, "light"), (420, "dark")])
def test_two_hundred_failures_are_readable_in_each_window(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    shown = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    errors: list[object] = []
    shown.on("pageerror", lambda error: errors.append(error))
    shown.goto(html_page.write(tmp_path, _many(tmp_path)).as_uri(), timeout=60_000)
    viewers.artifact(f"page-200-{width}-{scheme}.png").write_bytes(shown.screenshot(timeout=60_000))
    # Nothing is wider than the window, and a name has most of the width even beside or above a picture.
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    names = shown.evaluate("[...document.querySelectorAll('.name')].map(each => each.getBoundingClientRect().width)")
    assert min(names) >= (0.8 * width if width < 900 else 400)
    overlaps = shown.evaluate(
        """[...document.querySelectorAll('tbody tr')].filter(row => {
            const picture = row.querySelector('.picture img'), name = row.querySelector('.test');
            if (!picture) return false;
            const one = picture.getBoundingClientRect(), other = name.getBoundingClientRect();
            return one.left < other.right - 1 && other.left < one.right - 1
                && one.top < other.bottom - 1 && other.top < one.bottom - 1;
        }).length"""
    )
    assert overlaps == 0
    # The traceback is hidden until a click.
    assert not shown.is_visible("pre >> nth=0")
    shown.click("summary >> nth=0")
    assert "assert 2 == 1" in shown.inner_text("pre >> nth=0")
    assert shown.is_visible("pre >> nth=0")
    assert [] == errors


def test_a_page_is_filtered_by_parameters_and_by_errors(browser: Any, tmp_path: Path) -> None:
    shown = browser.new_page()
    shown.goto(html_page.write(tmp_path, _many(tmp_path)).as_uri(), timeout=60_000)

    def count() -> str:
        return str(shown.inner_text("output"))

    # There are too many numbers for a list.
    assert ["kind"] == shown.evaluate("[...document.querySelectorAll('select')].map(each => each.dataset.name)")
    shown.select_option("select", "right")
    assert "67 of 200" == count()
    shown.click(".parameters button:visible >> text=number=4 >> nth=0")
    assert "1 of 200" == count()
    shown.click("#chosen button >> text=kind=right")
    assert ("1 of 200", "") == (count(), shown.input_value("select"))
    shown.click("#chosen button")
    assert "200 of 200" == count()
    shown.click(".parameters button:visible >> text=kind=left >> nth=0")
    assert ("67 of 200", "left") == (count(), shown.input_value("select"))
    shown.fill("input[type=search]", "NUMBER 42 is")
    assert "1 of 200" == count()


def test_a_page_from_a_web_server_opens_recordings_in_the_web_viewer(browser: Any, tmp_path: Path) -> None:
    page = html_page.page(tmp_path, _some(tmp_path))
    shown = browser.new_page()
    shown.route("**/*", lambda route: route.fulfill(body=page, content_type="text/html; charset=utf-8"))
    shown.goto("https://ci.example/job/7/index.html", timeout=60_000)
    links = shown.evaluate("[...document.querySelectorAll('a.view')].map(each => each.href)")
    assert 3 == len(links)
    assert all(
        each.startswith(html_page.hosted_viewer() + "?url=https%3A%2F%2Fci.example%2Fjob%2F7%2F") for each in links
    )
    assert shown.is_visible("a.view >> nth=0")
    own = browser.new_page()
    own.goto(html_page.write(tmp_path, _some(tmp_path)).as_uri(), timeout=60_000)
    assert not own.is_visible("a.view >> nth=0")


_FAILING = """
import os
import numpy as np, pytest, rerun as rr

@pytest.mark.parametrize("kind", ["good", "bad"])
def test_picture(kind):
    rr.set_time("step", sequence=1)
    rr.log("picture", rr.Image(np.full((40, 60, 3), (20, 180, 60), np.uint8)))
    assert kind == "good"

@pytest.fixture
def pictured():
    rr.log("picture", rr.Image(np.full((40, 60, 3), (20, 180, 60), np.uint8)))

def test_dies(pictured):
    if "DIE" in os.environ:
        os._exit(1)
"""

_SHOT = ("--mpr=on", "--mpr-screenshot=only-on-failure")

_drawn_by_the_viewer = pytest.mark.skipif(
    not hasattr(ViewerClient, "get_state"), reason="the viewer of this SDK cannot be asked what it shows"
)


@_drawn_by_the_viewer
@pytest.mark.timeout(300)
def test_failing_tests_leave_a_picture(tmp_path: Path) -> None:
    viewers.needed(viewers.has_vulkan(), "a Vulkan driver")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmpr_screenshot_timeout = 100\nmpr_screenshots_time = 200\n")
    run = inner.run(
        tmp_path, *_SHOT, "-n2", "--max-worker-restart=0", plugins=("xdist",), env={"DIE": "1"}, test_p=_FAILING
    )  # fmt: skip
    pictures = {each["nodeid"]: each["picture"] for each in run.manifest["tests"]}
    drawn = {name: Path(path) for name, path in pictures.items() if path is not None}
    assert {"test_p.py::test_picture[bad]", "test_p.py::test_dies"} == set(drawn)
    for name, path in drawn.items():
        assert path == run.path(name).with_suffix(".png")
        with Image.open(path) as image:
            colors = image.convert("RGB").getcolors(1 << 24)
        assert colors is not None
        assert sum(count for count, color in colors if abs(color[1] - 180) <= 8 and color[2] < 80) > 50_000
        assert f"picture: {shlex.quote(str(path.relative_to(tmp_path)))}" in run.stdout
    (made,) = run.output.glob(f"*/{html_page.NAME}")
    assert f"all of them: {made.relative_to(tmp_path)}" in run.stdout
    found = _Page(made.read_text())
    links = {(made.parent / unquote(link)).resolve() for link in found.links}
    assert links == {*run.files(), *drawn.values()}
    # The pictures are files of the run, and are removed with it.
    files = set(run.manifest["files"])
    assert {html_page.NAME, *(path.name for path in drawn.values())} <= files


@pytest.mark.parametrize(
    ("ini", "env", "message"),
    [
        ("", {"VK_DRIVER_FILES": "/none", "VK_ICD_FILENAMES": "/none"}, r"mpr: no pictures: .*(Vulkan driver|0\.41)"),
        ("mpr_screenshot_timeout = 0.01", {}, r"no picture: cannot draw .*: it took more than 0\.01 s"),
        ("mpr_screenshots_time = 0", {}, r"mpr: no pictures of the last 1 recordings: mpr_screenshots_time = 0 s"),
    ],
    ids=["driver", "timeout", "time"],
)
def test_the_reason_for_a_missing_picture_is_printed_once(
    tmp_path: Path, ini: str, env: dict[str, str], message: str
) -> None:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
    run = inner.run(tmp_path, *_SHOT, env=env, test_p=_FAILING)
    assert "1 failed, 2 passed" in run.stdout
    assert 1 == len(re.findall(message, run.stdout)), run.stdout
    assert [] == list(run.output.rglob("*.png"))
    assert 1 == len(list(run.output.glob(f"*/{html_page.NAME}")))


def test_without_recordings_there_is_no_page_and_wrong_settings_are_reported(tmp_path: Path) -> None:
    run = inner.run(
        tmp_path, "--mpr=retain-on-failure", "--mpr-screenshot=only-on-failure", "-k", "good", test_p=_FAILING
    )
    assert run.code == 0
    assert not run.output.exists()
    (tmp_path / "pytest.ini").write_text("[pytest]\nmpr_screenshot = always\n")
    wrong = inner.run(tmp_path, "--mpr=on", test_p=_FAILING)
    assert "mpr: mpr_screenshot = 'always' is none of: off, on, only-on-failure" in wrong.stderr

"""Serve `examples/gradio_app.py`, and use it in Chromium as several users at once.

`gradio_rerun` needs its own version of the Rerun SDK, so this runs in an environment of its own: `make test-gradio`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import rerun as rr
from PIL import Image

from tests import support, viewers

if not importlib.util.find_spec("gradio_rerun"):
    pytest.skip("gradio_rerun is not installed", allow_module_level=True)

_APP = Path(__file__).parent.parent / "examples" / "gradio_app.py"
_GREEN = (20, 180, 60)


class User:
    """A user with their own browser."""

    def __init__(self, browser: Any, port: int, name: str) -> None:
        self.page = browser.new_context().new_page()
        self.page.set_viewport_size({"width": 1000, "height": 900})
        # The viewer covers the page until it is there, which takes long on a busy machine without a GPU.
        self.page.set_default_timeout(150_000)
        #: The parts of recordings that the page has got, in the order of requests.
        self.responses: list[Any] = []
        self.page.on("response", self._note)
        self.page.goto(f"http://127.0.0.1:{port}/?{name}")

    def _note(self, response: Any) -> None:
        if response.url.partition("?")[0].endswith((".ts", ".rrd")):
            self.responses.append(response)

    def click(self, button: str) -> None:
        self.page.get_by_role("button", name=button, exact=True).click()

    def upload(self, path: Path) -> None:
        self.page.get_by_label("Remove Image").first.click()
        self.page.locator("input[type=file]").first.set_input_files(path)
        self.page.get_by_label("Remove Image").first.wait_for()

    def choose_steps(self, steps: int) -> None:
        box = self.page.get_by_label("number input for Steps")
        box.fill(str(steps))
        box.press("Tab")

    def wait_for(self, condition: Any) -> None:
        support.wait_for(lambda: self.page.wait_for_timeout(100) or condition(), 100)

    def recordings(self, folder: Path) -> dict[str, Counter[support.Cell]]:
        """Return the cells that the page was sent, by recording id."""
        found: dict[str, Counter[support.Cell]] = {}
        for response in self.responses:
            path = folder / "part.rrd"
            path.write_bytes(response.body())
            with support.whole_frames_of(path) as part:
                reader = rr.chunk.RrdReader(part)
                for entry in reader.recordings():
                    cells = found.setdefault(entry.recording_id, Counter())
                    for chunk in reader.stream(store=entry):
                        cells.update(support.cells_of(str(chunk.entity_path), chunk.to_record_batch()))
        return found


@pytest.fixture(autouse=True)
def census() -> None:
    """Take no census: the browser's processes come and go, and these tests look at those of the app."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, psutil.Process]]:
    """The app, with a state that expires soon; its port and process."""
    port = viewers.free_port()
    folder = tmp_path_factory.mktemp("app")
    command = [sys.executable, str(_APP), "--port", str(port), "--state-secs", "1"]
    environment = {**os.environ, "TMPDIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    server = subprocess.Popen(command, env=environment)
    try:
        support.wait_for(lambda: server.poll() is not None or _answers(port), 100)
        yield port, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(30)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    viewers.needed(program is not None, "Chromium")
    options = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


def _workers(server: psutil.Process) -> int:
    # Workers are children of the fork server, which is a child of the app. A worker that ends meanwhile is not counted.
    found = 0
    for each in server.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += each.ppid() != server.pid
    return found


def _steps(cells: Counter[support.Cell]) -> set[Any]:
    return {dict(cell.times)["step"] for cell in cells if cell.entity == "/share_of_edges"}


@pytest.mark.timeout(400)
def test_two_users_at_once_see_their_own_data_while_it_comes(app: Any, browser: Any, tmp_path: Path) -> None:
    port, _ = app
    Image.new("RGB", (200, 200), _GREEN).save(tmp_path / "green.png")
    first, second = User(browser, port, "first"), User(browser, port, "second")
    second.upload(tmp_path / "green.png")
    first.choose_steps(40)
    second.choose_steps(30)
    first.click("Analyse")
    second.click("Analyse")
    found: dict[User, Counter[support.Cell]] = {}
    for user, steps in ((first, 40), (second, 30)):
        user.wait_for(lambda user=user, steps=steps: _has_steps(user.recordings(tmp_path), steps))
        # The data came piece by piece, and belongs to one recording.
        assert len(user.responses) > 3
        ((_, found[user]),) = user.recordings(tmp_path).items()
    assert set(first.recordings(tmp_path)) != set(second.recordings(tmp_path))
    pictures = {user: {cell.value for cell in found[user] if cell.entity == "/blurred"} for user in (first, second)}
    assert not pictures[first] & {each for each in pictures[second] if len(each) > 1000}
    # The page shows it.
    second.wait_for(lambda: _share_of_green(second.page.screenshot()) > 0.05)
    second.page.screenshot(path=viewers.artifact("gradio-second-user.png"))
    first.page.screenshot(path=viewers.artifact("gradio-first-user.png"))
    for user in (first, second):
        user.page.context.close()


def _has_steps(recordings: dict[str, Counter[support.Cell]], steps: int) -> bool:
    return any(_steps(cells) == set(range(steps)) for cells in recordings.values())


def _share_of_green(picture: bytes) -> float:
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    # The picture is taken below the upload, which shows the colour too.
    return float((np.abs(pixels[330:] - _GREEN).max(axis=2) <= 8).mean())


@pytest.mark.timeout(400)
def test_a_user_who_stops_or_leaves_ends_the_pool(app: Any, browser: Any, tmp_path: Path) -> None:
    port, server = app
    user = User(browser, port, "leaving")
    idle = _workers(server)
    user.choose_steps(2000)
    for leave in (lambda: user.click("Stop"), user.page.context.close):
        user.click("Analyse")
        user.wait_for(lambda: _workers(server) > idle)
        leave()
        support.wait_for(lambda: _workers(server) == idle, 60)


@pytest.mark.timeout(400)
def test_a_file_is_shown_and_cleaned_up_and_episodes_are_shown(app: Any, browser: Any, tmp_path: Path) -> None:
    port, _ = app
    user = User(browser, port, "files")
    user.choose_steps(4)
    user.page.get_by_role("tab", name="File").click()
    user.click("Analyse into a file")
    user.wait_for(lambda: _has_steps(user.recordings(tmp_path), 4))
    folder = Path(psutil.Process(app[1].pid).environ()["TMPDIR"])
    support.wait_for(lambda: not list(folder.glob("mpr-gradio-*/analysis.rrd")), 100)

    user.responses.clear()
    user.page.get_by_role("tab", name="Episodes").click()
    user.click("Make three episodes")
    user.wait_for(lambda: len(user.recordings(tmp_path)) == 3)
    assert any("/recordings/" in response.url for response in user.responses)
    user.page.screenshot(path=viewers.artifact("gradio-episodes.png"))
    user.page.context.close()

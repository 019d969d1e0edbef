"""The real viewers decide: the native one without a window, and the web viewer in Chromium.

They need a software Vulkan driver (Debian: mesa-vulkan-drivers) and Chromium. Without them the tests are skipped, or
fail if `CI` is set.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import psutil
import pytest
import rerun.blueprint as rrb
from PIL import Image
from rerun.experimental import ViewerClient

import mpr
from mpr.picture import process
from tests import support, tasks, viewers
from tests.viewers import live, url_of, wait_for_state

_COLOR = (20, 180, 60)
_BLUEPRINT = rrb.Blueprint(
    rrb.Horizontal(
        rrb.TimeSeriesView(origin="/n", name="Numbers"), rrb.Spatial2DView(origin="/plain", name="Plain picture")
    ),
    collapse_panels=True,
)


_judged_by_the_native_viewer = pytest.mark.skipif(
    not hasattr(ViewerClient, "get_state"), reason="the viewer of this SDK cannot be asked what it shows"
)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hide the messages of viewers about a machine without a screen."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("RUST_LOG", "off")
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield


def _log(pool: mpr.Pool) -> None:
    assert pool.map(tasks.log_number, range(100)) == list(range(100))
    pool.apply(tasks.log_plain_image, (_COLOR,))


def _schema_of_file(path: Path) -> dict[str, set[str]]:
    """The components of each entity of the user's, in a file that may still be written."""
    found: dict[str, set[str]] = {}
    with support.whole_frames_of(path) as copy:
        for chunk in support.chunks(copy):
            fields = chunk.to_record_batch().schema
            names = {field.name for field in fields if field.metadata[b"rerun:kind"] == b"data"}
            found.setdefault(str(chunk.entity_path), set()).update(names)
    return _without_ours(found)


def _without_ours(schema: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out the telemetry of the pool, which grows until the end."""
    return {path: names for path, names in schema.items() if not path.startswith("/mpr/")}


def _schema_of_viewer(client: ViewerClient) -> dict[str, set[str]]:
    """Return the same as `_schema_of_file` for the only recording that the viewer has."""
    recordings = client.get_state().recordings
    if len(recordings) != 1:
        return {}
    schema = client.get_recording_schema(recordings[0].store_id)
    return _without_ours(
        {entity.entity_path: {each.component for each in entity.components} for entity in schema.entities}
    )


def _steps_of_viewer(client: ViewerClient) -> tuple[Any, Any]:
    (recording,) = client.get_state().recordings
    (steps,) = (timeline for timeline in recording.timelines if timeline.name == "step")
    return steps.start, steps.end


def _share(picture: bytes) -> float:
    """Return the share of a picture that has the logged colour, or nearly, because a renderer rounds."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    return float((np.abs(pixels - _COLOR).max(axis=2) <= 8).mean())


@_judged_by_the_native_viewer
def test_the_native_viewer_shows_what_is_in_the_file(tmp_path: Path) -> None:
    viewers.needed(viewers.has_vulkan(), "a Vulkan driver")
    path = tmp_path / "run.rrd"
    sinks = [path, mpr.SpawnViewerSink(headless=True)]
    with mpr.Pool("app", 2, sinks=sinks, blueprint=_BLUEPRINT, telemetry_view=False) as pool:
        _log(pool)
        wait_for_state(pool.recording, "connected")
        support.wait_for(lambda: not live(pool.recording)[0].missing_chunks, 60)
        client = ViewerClient.connect(pool.recording.urls[0])
        wanted = _schema_of_file(path)
        support.wait_for(lambda: _schema_of_viewer(client) == wanted, 60)
        assert _steps_of_viewer(client) == (0, 99)
        assert client.get_state().recordings[0].store_id == f"Recording:app:{pool.recording.recording_id}"
        # The blueprint is the parent's.
        support.wait_for(lambda: {view.name for view in client.get_state().views} == {"Numbers", "Plain picture"})
        shown = process.settled(client)
        assert _share(shown) > 0.1
        viewers.artifact("native-viewer.png").write_bytes(shown)
    support.check_file(path)
    assert _schema_of_file(path) == wanted


@_judged_by_the_native_viewer
def test_a_native_viewer_that_comes_late_shows_everything(tmp_path: Path) -> None:
    viewers.needed(viewers.has_vulkan(), "a Vulkan driver")
    path = tmp_path / "run.rrd"
    port = viewers.free_port()
    server = mpr.GrpcServerSink(port=0)
    with mpr.Pool("app", 2, sinks=[path, url_of(port), server], blueprint=_BLUEPRINT, telemetry_view=False) as pool:
        _log(pool)
        wait_for_state(pool.recording, "waiting for a viewer", 0)
        wait_for_state(pool.recording, "connected", 1)
        wanted = _schema_of_file(path)
        with contextlib.ExitStack() as stack:
            late = _headless(stack, port)
            support.wait_for(lambda: _schema_of_viewer(late) == wanted, 60)
            assert _steps_of_viewer(late) == (0, 99)
            # This viewer gets no rows from mpr directly: it reads the server.
            reader = _headless(stack)
            assert reader.get_state().recordings == []
            reader.open(pool.recording.urls[1])
            support.wait_for(lambda: _schema_of_viewer(reader) == wanted, 60)
            assert _steps_of_viewer(reader) == (0, 99)


@_judged_by_the_native_viewer
def test_a_viewer_that_is_spawned_stays_and_one_that_is_closed_stays_closed(tmp_path: Path) -> None:
    viewers.needed(viewers.has_vulkan(), "a Vulkan driver")
    sinks = [tmp_path / "run.rrd", *[mpr.SpawnViewerSink(headless=True, detach_process=True)] * 2]
    with mpr.Pool("app", 1, sinks=sinks) as pool:
        pool.apply(tasks.log_number, (1,))
        wait_for_state(pool.recording, "connected", 0)
        wait_for_state(pool.recording, "connected", 1)
        spawned = {url: _listener(pool.recording.urls[url]) for url in range(2)}
        shares = Path(f"/proc/{spawned[0].pid}/autogroup")
        # Linux compares priorities only within a session. The viewer has its own, so the whole session has a low one.
        assert not shares.exists() or shares.read_text().split()[-1] == "10"
        # The user closes the second viewer.
        spawned[1].kill()
        wait_for_state(pool.recording, "waiting for a viewer", 1)
        pool.apply(tasks.log_number, (2,))
    try:
        client = ViewerClient.connect(pool.recording.urls[0])
        wanted = _schema_of_file(tmp_path / "run.rrd")
        support.wait_for(lambda: _schema_of_viewer(client) == wanted, 60)
    finally:
        spawned[0].kill()
        spawned[0].wait()


@_judged_by_the_native_viewer
def test_all_sinks_at_once_have_the_rows_of_every_worker(tmp_path: Path) -> None:
    """One of each kind, with a reader at each."""
    viewers.needed(viewers.has_vulkan(), "a Vulkan driver")
    path, folder, port = tmp_path / "run.rrd", tmp_path / "tasks", viewers.free_port()
    stream = mpr.BinaryStreamSink()
    served = [mpr.GrpcServerSink(port=0), mpr.WebViewerSink(web_port=0, grpc_port=0, open_browser=False)]
    spawned = mpr.SpawnViewerSink(headless=True)
    sinks = [path, mpr.DirectorySink(path=folder), stream, url_of(port), *served, spawned]
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(viewers.listening(tmp_path / "viewer.rrd", port))]
        with mpr.Pool("app", 2, sinks=sinks) as pool:
            for index in range(4):
                wait_for_state(pool.recording, "connected", index)
            server, page = pool.recording.urls[1], parse_qs(urlsplit(pool.recording.urls[2]).query)["url"][0]
            for name, url in (("server", server), ("web", page)):
                readers.append(stack.enter_context(viewers.reading(tmp_path / f"{name}-reads.rrd", url)))
            pool.map(tasks.log_everything, range(4), chunksize=1)
            pool.map(tasks.log_number, range(40))
            rows = support.cells_of_growing(path)
            for reader in readers:
                support.wait_for(lambda reader=reader: reader.cells() == rows, 60)
            client = ViewerClient.connect(pool.recording.urls[3])
            support.wait_for(lambda: _schema_of_viewer(client) == _schema_of_file(path), 60)
    support.check_file(path)
    assert support.cells(path) == rows
    (tmp_path / "stream.rrd").write_bytes(b"".join(stream))
    support.check_file(tmp_path / "stream.rrd")
    assert support.cells(tmp_path / "stream.rrd") == rows
    files = sorted(folder.glob("0*.rrd"))
    assert len(files) == 44
    assert {cell for file in files for cell in support.cells(file)} == set(rows)


@_judged_by_the_native_viewer
def test_the_example_shows_a_run_while_it_goes_on(tmp_path: Path) -> None:
    viewers.needed(viewers.has_vulkan(), "a Vulkan driver")
    example = Path(__file__).parent.parent / "examples" / "live.py"
    picture, path = viewers.artifact("live-example.png"), tmp_path / "live.rrd"
    command = [sys.executable, str(example), "--picture", str(picture), "--save", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    colors = {tuple(color) for color in np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)[::7]}
    assert len(colors) > 30
    support.check_file(path)
    swarms = {entity for entity, _ in support.row_counts(path) if entity.startswith("/energy/")}
    assert swarms == {f"/energy/{number}" for number in range(8)}


def _listener(url: str) -> psutil.Process:
    """The viewer that listens at `url`."""
    port = str(urlsplit(url).port)
    (found,) = (each for each in viewers.exporters() if port in each.cmdline())
    return found


def _headless(stack: contextlib.ExitStack, port: int | None = None) -> ViewerClient:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return stack.enter_context(process.headless_viewer(folder, (1280, 800), port=port))


def test_the_web_viewer_shows_the_data(tmp_path: Path) -> None:
    viewers.needed(importlib.util.find_spec("playwright") is not None, "playwright")
    from playwright.sync_api import sync_playwright

    browser_program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    viewers.needed(browser_program is not None, "Chromium")
    path = tmp_path / "run.rrd"
    web = mpr.WebViewerSink(web_port=0, grpc_port=0, open_browser=False)
    # Without hardware, and where root must do without a sandbox.
    options = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
    with (
        mpr.Pool("app", 2, sinks=[path, web], blueprint=_BLUEPRINT, telemetry_view=False) as pool,
        sync_playwright() as playwright,
    ):
        _log(pool)
        wait_for_state(pool.recording, "connected")
        browser = playwright.chromium.launch(
            executable_path=browser_program, args=options, chromium_sandbox=os.geteuid() != 0
        )
        try:
            page = browser.new_page(viewport={"width": 900, "height": 500})
            page.goto(pool.recording.urls[0], timeout=60_000)
            # Everything is drawn by the page itself, so the picture is what there is to look at.
            support.wait_for(lambda: _share(page.screenshot(timeout=60_000)) > 0.1, 100)
            viewers.artifact("web-viewer.png").write_bytes(page.screenshot(timeout=60_000))
        finally:
            browser.close()
    support.check_file(path)

"""Pictures of recordings that the real viewer draws, and the message if it cannot draw."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import rerun as rr
import rerun.blueprint as rrb
from PIL import Image
from rerun.experimental import ViewerClient

from mpr import picture
from mpr.errors import NoViewerError, PictureError
from tests import support, viewers

_FIRST, _LAST = (200, 40, 40), (20, 180, 60)

_drawn_by_the_viewer = pytest.mark.skipif(
    not hasattr(ViewerClient, "get_state"), reason="the viewer of this SDK cannot be asked what it shows"
)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Write a recording with two images, one after the other, and with numbers."""
    path = tmp_path / "run.rrd"
    with rr.RecordingStream("app") as stream:
        stream.save(path)
        for step, color in enumerate((_FIRST, _LAST)):
            stream.set_time("step", sequence=step)
            stream.log("plain", rr.Image(np.full((40, 60, 3), color, np.uint8)))
            stream.log("numbers", rr.Scalars(step))
    return path


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _share(path: Path, color: tuple[int, int, int]) -> float:
    """Return the share of a picture that has a colour, or nearly, because a renderer rounds."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return float((np.abs(pixels - color).max(axis=2) <= 8).mean())


def _processes_of_pictures() -> list[int]:
    """Return the children of this process, without a fork server and the like of other tests."""
    return sorted(support.census().children)


@_drawn_by_the_viewer
def test_a_picture_shows_the_end_of_the_recording_or_the_wanted_time(recording: Path) -> None:
    viewers.needed(viewers.has_vulkan(), "a Vulkan driver")
    last, first = recording.with_name("pictures") / "last.png", recording.with_name("first.png")
    assert [] == picture.render(recording, last, timeout_secs=100)
    assert (1280, 800) == _size(last)
    assert _share(last, _LAST) > 0.1
    assert _share(last, _FIRST) < 0.001
    layout = rrb.Blueprint(rrb.Spatial2DView(origin="/plain"), collapse_panels=True)
    picture.render(recording, first, timeout_secs=100, size=(640, 480), blueprint=layout, timeline="step", time=0)
    assert (640, 480) == _size(first)
    assert _share(first, _FIRST) > 0.3
    assert _share(first, _LAST) < 0.001
    assert [] == _processes_of_pictures()
    assert [last] == list(last.parent.iterdir())
    viewers.artifact("picture.png").write_bytes(last.read_bytes())


@_drawn_by_the_viewer
def test_a_recording_without_an_end_is_drawn_as_well(recording: Path) -> None:
    """A recording whose writer was killed has no footer, and may end within a message."""
    viewers.needed(viewers.has_vulkan(), "a Vulkan driver")
    cut = recording.with_name("cut.rrd")
    cut.write_bytes(recording.read_bytes()[:-1500])
    target = recording.with_name("cut.png")
    picture.render(cut, target, timeout_secs=100, size=(640, 480))
    assert _share(target, _LAST) > 0.1


def test_a_picture_that_takes_too_long_is_given_up_and_nothing_is_left(recording: Path) -> None:
    target = recording.with_name("late.png")
    with pytest.raises(PictureError, match=r"cannot draw .*run\.rrd: it took more than 0\.5 s \(") as caught:
        picture.render(recording, target, timeout_secs=0.5)
    assert not isinstance(caught.value, NoViewerError)
    assert [] == _processes_of_pictures()
    assert [recording] == list(recording.parent.iterdir())


@_drawn_by_the_viewer
def test_the_error_without_a_driver_says_so(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        monkeypatch.setenv(name, str(recording.with_name("none.json")))
    with pytest.raises(NoViewerError, match="finds no Vulkan driver"):
        picture.render(recording, recording.with_name("none.png"), timeout_secs=100)
    assert [] == _processes_of_pictures()


@pytest.mark.skipif(hasattr(ViewerClient, "get_state"), reason="the viewer of this SDK can be asked what it shows")
def test_the_error_with_an_old_sdk_says_so(recording: Path) -> None:
    with pytest.raises(NoViewerError, match=r"use rerun-sdk 0\.41 or newer"):
        picture.render(recording, recording.with_name("none.png"), timeout_secs=100)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no recording", "Rerun cannot read it"), (None, "there is no such file")],
    ids=["foreign", "missing"],
)
def test_a_file_that_is_no_recording_is_an_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "foreign.rrd"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PictureError, match=message):
        picture.render(path, tmp_path / "none.png", timeout_secs=100)
    assert [] == list(tmp_path.glob("*.png"))


@_drawn_by_the_viewer
def test_an_unknown_timeline_is_an_error(recording: Path) -> None:
    viewers.needed(viewers.has_vulkan(), "a Vulkan driver")
    with pytest.raises(PictureError, match="no timeline 'frame', but log_time, step"):
        picture.render(recording, recording.with_name("none.png"), timeout_secs=100, timeline="frame")


_CALLER = """
import sys
from mpr import picture
picture.render(sys.argv[1], sys.argv[2], timeout_secs=100)
"""


@_drawn_by_the_viewer
def test_viewer_and_folder_are_gone_after_the_caller_is_killed(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewers.needed(viewers.has_vulkan(), "a Vulkan driver")
    folder = recording.with_name("tmp")
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    target = recording.with_name("none.png")
    caller = subprocess.Popen([sys.executable, "-c", _CALLER, recording, target], env=dict(os.environ))

    def below() -> list[psutil.Process]:
        return psutil.Process(caller.pid).children(recursive=True)

    def is_viewer(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return "--headless" in process.cmdline()
        return False

    support.wait_for(lambda: any(map(is_viewer, below())), 60)
    left = below()
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    _, alive = psutil.wait_procs(left, timeout=30)
    assert [] == [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
    support.wait_for(lambda: not list(folder.iterdir()), 30)
    assert not target.exists()
    shutil.rmtree(folder)

"""Draws a picture of a recording with the real viewer, without a window.

Covers: the bound on its time, the end of its processes and temporary files, and its errors.
Does not cover: the commands to the viewer, and when it has drawn everything (`process.py`).

The viewer and its graphics driver may hang or crash, so a process of its own draws.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from mpr.errors import NoViewerError, PictureError

if TYPE_CHECKING:
    import rerun.blueprint as rrb


# The time in seconds in which the process has to end the viewer and itself, once its standard input is closed.
_END_SECS = 5.0


class Order(NamedTuple):
    """The arguments of `render`, for the process that draws."""

    recording: str
    folder: str
    size: tuple[int, int]
    blueprint: Any
    timeline: str | None
    time: int | None


def render(
    recording: str | os.PathLike[str],
    picture: str | os.PathLike[str],
    *,
    timeout_secs: float = 60.0,
    size: tuple[int, int] = (1280, 800),
    blueprint: rrb.Blueprint | None = None,
    timeline: str | None = None,
    time: int | None = None,
) -> list[str]:
    """Draw a recording with the real viewer, without a window, and save the picture.

    It needs the viewer that comes with the Rerun SDK, and a Vulkan driver. Without a graphics card, Mesa's software
    rasteriser is enough (`apt-get install mesa-vulkan-drivers` on Debian).

    Parameters
    ----------
    recording:
        The `.rrd` file; it may lack its footer.
    picture:
        The PNG file to write. The file is complete, or there is none.
    timeout_secs:
        The time in seconds that drawing may take.
    size:
        Width and height of the picture in pixels.
    blueprint:
        The layout, as `rr.send_blueprint` takes it. By default that of the recording. If it has none, the viewer
        chooses the layout for the data, without panels.
    timeline:
        The name of the timeline to show; by default the viewer chooses it.
    time:
        The time to show: a sequence number, or nanoseconds. By default the last one.

    Returns
    -------
    list[str]
        Errors of views that could not show their data; empty if there are none.

    Raises
    ------
    NoViewerError
        If this machine can draw no recording at all: there is no viewer or no Vulkan driver, or the SDK is too old.
    PictureError
        If this recording cannot be drawn, or not in time.
    """
    source, target = Path(recording).absolute(), Path(picture).absolute()
    if not source.is_file():
        raise PictureError(f"cannot draw {source}: there is no such file")
    with tempfile.TemporaryDirectory(prefix="mpr-picture-", ignore_cleanup_errors=True) as folder:
        order = Order(str(source), folder, size, blueprint, timeline, time)
        Path(folder, "order").write_bytes(pickle.dumps(order))
        failure = _draw(folder, timeout_secs)
        reports = _reports(source, folder, failure)
        with _whole(target) as part:
            part.write(Path(folder, "picture.png").read_bytes())
    return reports


def _reports(source: Path, folder: str, failure: str) -> list[str]:
    """Return the reports of views in the answer in `folder`; raise its error, or `failure` if there is no answer."""
    answer = _answer(folder)
    if answer is None:
        raise PictureError(f"cannot draw {source}: {failure}")
    if "reports" not in answer:
        failed = NoViewerError if answer["everywhere"] else PictureError
        raise failed(f"cannot draw {source}: {answer['error']}")
    reports: list[str] = answer["reports"]
    return reports


def _draw(folder: str, timeout_secs: float) -> str:
    """Let a process draw the order in `folder`; return the reason to report if it leaves no answer."""
    # `-P`, so that modules in the working directory are not imported.
    command = [sys.executable, "-P", "-m", "mpr.picture.process", folder]
    environ = {name: value for name, value in os.environ.items() if name != "RERUN"}
    # A viewer that is killed leaves its temporary files behind, and they are removed with the folder.
    environ["TMPDIR"] = folder
    with Path(folder, "stages").open("wb") as stages, Path(folder, "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environ, stdin=subprocess.PIPE, stdout=stages, stderr=log, start_new_session=True
        )
    late = False
    try:
        process.wait(timeout_secs)
    except subprocess.TimeoutExpired:
        late = True
    finally:
        _end(process)
    if late:
        stage = Path(folder, "stages").read_text().splitlines()
        return (
            f"it took more than {timeout_secs:g} s ({stage[-1] if stage else 'starting'}). "
            "Give it more time, or fewer pixels or rows"
        )
    lines = Path(folder, "log").read_text(errors="replace").strip().splitlines()
    return f"the process that draws ended with {process.returncode}{': ' + lines[-1] if lines else ''}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, if it has not, and the viewer with it."""
    assert process.stdin is not None
    # The process ends when its standard input closes.
    process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECS)
    # Process and viewer are one group. If both have ended, there is no such group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answer(folder: str) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = json.loads(Path(folder, "answer").read_text())
    except FileNotFoundError:
        return None
    return answer


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

"""Draws a picture of a recording with the real viewer, without a window.

Another process controls the viewer. So `render` can end that process and the viewer if they take too long.

Covers: the limit on the time for drawing, ending processes, removing temporary files, errors.
Does not cover: the commands to the viewer, and finding out when the viewer has drawn everything (`process.py`).
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


# After its standard input is closed, the process that draws has this many seconds to end the viewer and itself.
_END_SECS = 5.0


class Order(NamedTuple):
    """Holds the arguments of `render` that the process that draws needs, and a folder.

    `recording` is the path of the recording. `folder` is a temporary folder for the picture and other files. The other
    fields have the same meaning as in `render`.
    """

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

    Drawing needs rerun-sdk 0.41 or newer, its viewer, and a Vulkan driver. On a machine without a graphics card, Mesa's
    software rasteriser is enough (`apt-get install mesa-vulkan-drivers` on Debian).

    Parameters
    ----------
    recording:
        The `.rrd` file. It may lack its footer, and may end within a message, as after a crash of its writer.
    picture:
        The PNG file to write. Missing folders are made. If drawing fails, this file is not written or changed.
    timeout_secs:
        The longest time in seconds that drawing may take. After that, the processes are ended within about 5 s.
    size:
        The width and the height of the picture in pixels.
    blueprint:
        The layout: a value that `rr.send_blueprint` takes, and that can be pickled. By default the layout of the
        recording. If the recording has no layout, the viewer chooses one, with the panels hidden or collapsed.
    timeline:
        The name of the timeline to show. By default the viewer chooses the timeline.
    time:
        The time to show, as a sequence number or in nanoseconds. By default the last time on the timeline.

    Returns
    -------
    list[str]
        The errors of views that could not show their data. Empty if there are no errors.

    Raises
    ------
    NoViewerError
        If this machine can draw no recording at all, because the viewer or a Vulkan driver is missing, or the SDK is
        too old.
    PictureError
        If this recording does not exist or cannot be drawn, or not within `timeout_secs`.
    OSError
        If the picture cannot be saved, or if no temporary folder or process can be made.
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
    """Return the errors of views that the process has written to the file `answer` in `folder`.

    If `answer` has an error that has prevented the picture, raise it as `NoViewerError` or `PictureError`. If there is
    no `answer`, raise `PictureError` with the text `failure`. `source` is the path of the recording.
    """
    answer = _answer(folder)
    if answer is None:
        raise PictureError(f"cannot draw {source}: {failure}")
    if "reports" not in answer:
        failed = NoViewerError if answer["everywhere"] else PictureError
        raise failed(f"cannot draw {source}: {answer['error']}")
    reports: list[str] = answer["reports"]
    return reports


def _draw(folder: str, timeout_secs: float) -> str:
    """Start a process that draws, wait up to `timeout_secs` seconds for its end, and then end it if it still runs.

    The process reads the file `order` in `folder`. Returns a text to report if the process has not written the file
    `answer`: the time is over, or the process has ended too early.
    """
    # With `-P`, Python does not import modules of the working directory.
    command = [sys.executable, "-P", "-m", "mpr.picture.process", folder]
    environ = {name: value for name, value in os.environ.items() if name != "RERUN"}
    # The viewer puts its temporary files into the folder, which is removed even if the viewer is killed.
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
    """End the process that draws and its viewer, if they have not ended yet.

    The process ends itself and the viewer when its standard input is closed. If one of the two still runs when the
    process has ended, or after 5 s, it is killed.
    """
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECS)
    # The process and the viewer are one process group. There is no such group if both have ended.
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
    """A context manager that yields a new file for writing, and renames it to `path` after the block.

    If the block raises, the new file is removed, and `path` stays as it is. Missing folders are made. Raises `OSError`
    if the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

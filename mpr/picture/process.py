"""Draws a picture of a recording, as the main module of a process of its own.

The process opens the recording in a viewer, and waits until the picture does not change any more. Its standard input is
a pipe from the caller, which is the process that has called `render`. When the caller closes the pipe or ends, the
viewer and this process end too.

Covers: choosing the layout and the time that the viewer shows, finding out when the viewer has drawn everything.
Does not cover: the wait for this process, and the limit on the wait (`rendering.py`).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mpr import errors
from mpr.errors import NoViewerError, PictureError
from mpr.rrd import framing, store_id
from mpr.sdk import encoder, programs
from mpr.sdk.reader import quiet_reader

if TYPE_CHECKING:
    from rerun.experimental import ViewerClient, ViewerState

    from mpr.picture.rendering import Order


_T = TypeVar("_T")

#: The height in pixels of the bar that the viewer still draws at the top if the top panel is hidden.
_EMPTY_TOP = 36
# The viewer draws this many frames until it hides a notification. It shows a notification for 4 s of its own clock.
# Without a window, its clock advances by 0.25 s with each frame. So 17 frames take longer than 4 s of this clock.
_FRAMES_OF_A_NOTIFICATION = 17
# The interval (seconds) at which this module asks whether the viewer is ready.
_LOOK_EVERY_SECS = 0.05


def main() -> None:
    """Draw the picture that the file `order` (a pickled `rendering.Order`) describes, and write `picture.png`.

    The only argument of the command line is the folder of these files. The process also writes the JSON file `answer`
    to the folder. If there is a picture, the key `reports` has the errors of views that the viewer reports. If not,
    `error` has the reason as text, and `everywhere` is true if this machine can draw no recording at all
    (`NoViewerError`). This function does not return, but ends the process.
    """
    folder = Path(sys.argv[1])
    order: Order = pickle.loads((folder / "order").read_bytes())  # noqa: S301  # written by the caller
    viewers: list[subprocess.Popen[bytes]] = []
    threading.Thread(target=_end_with_caller, args=(os.getppid(), folder, viewers), daemon=True).start()
    try:
        answer: dict[str, Any] = {"reports": _draw(order, viewers)}
    except Exception as error:  # noqa: BLE001  # the caller gets every error
        everywhere = isinstance(error, NoViewerError)
        text = str(error) if isinstance(error, PictureError) else f"{type(error).__name__}: {error}"
        answer = {"error": text, "everywhere": everywhere}
    (folder / "answer.part").write_text(json.dumps(answer))
    (folder / "answer.part").rename(folder / "answer")
    sys.stdout.flush()
    # `os._exit` skips the SDK's exit handlers. They would wait for the viewer, which has ended already.
    os._exit(0)


def _end_with_caller(caller: int, folder: Path, viewers: list[subprocess.Popen[bytes]]) -> None:
    """Wait until standard input closes, and then kill `viewers` and end this process. Runs in a thread of its own.

    If the process with the id `caller` has ended, the temporary folder `folder` is removed too.
    """
    sys.stdin.buffer.read()
    for viewer in viewers:
        viewer.kill()
        viewer.wait()
    if os.getppid() != caller:
        # The folder is removed here, because the caller was killed and cannot remove it.
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _report(stage: str) -> None:
    """Write `stage`, the name of the step that begins now, to standard output.

    If drawing takes too long, the error that `render` raises in the caller names the last stage.
    """
    sys.stdout.write(f"{stage}\n")
    sys.stdout.flush()


def _draw(order: Order, viewers: list[subprocess.Popen[bytes]]) -> list[str]:
    _report("reading the recording")
    folder = Path(order.folder)
    opened = _with_blueprint(Path(order.recording), folder, order.blueprint)
    _report("starting the viewer")
    with headless_viewer(folder, order.size, viewers=viewers) as client:
        _report("loading the recording")
        _patiently(lambda: client.open(str(opened)))
        state = _patiently(client.get_state)
        while state.loading or state.active_recording is None:
            time.sleep(_LOOK_EVERY_SECS)
            state = _patiently(client.get_state)
        _go_to(client, state, order.timeline, order.time)
        _report("drawing the recording")
        picture = settled(client)
        state = _patiently(client.get_state)
    _cut(picture, order.size).save(folder / "picture.png", optimize=True)
    return [f"{view.name}: {report.summary}" for view in state.views for report in view.reports]


def _stores(recording: Path) -> tuple[list[str], bool]:
    """Return the application ids of the recordings in a file, and True if the file has a blueprint, else False.

    Raises `PictureError` if Rerun cannot read the file.
    """
    try:
        reader = quiet_reader(recording)
        return [entry.application_id for entry in reader.recordings()], bool(reader.blueprints())
    except Exception as error:  # the SDK raises errors of many types for such a file
        raise PictureError(f"Rerun cannot read it: {error}") from error


def _readable(recording: Path, folder: Path) -> Path:
    """Return `recording` if Rerun can read it, or else the path of a copy of its whole messages, in `folder`.

    The copy is needed if the writer of the recording was killed, and the file ends within a message. Raises
    `PictureError` if there is no whole message to copy. This function does not check if Rerun can read the copy.
    """
    try:
        _stores(recording)
    except PictureError:
        try:
            whole = framing.whole(recording.read_bytes())
        except errors.FormatError:
            whole = b""
        if not whole:
            raise
        copy = folder / "readable.rrd"
        copy.write_bytes(whole)
        return copy
    return recording


def _without_blueprints(recording: Path, folder: Path) -> Path:
    """Return the path of a copy of `recording`, in `folder`, without blueprints and without a footer.

    Returns `recording` itself if mpr cannot parse its messages.
    """
    data = recording.read_bytes()
    parts = [data[: framing.HEADER_SIZE]]
    try:
        for frame in framing.frames_of(data):
            payload = data[frame.payload : frame.end]
            if frame.kind == framing.SET_STORE_INFO:
                kept = store_id.is_recording(store_id.store_id_of_info(payload))
            elif frame.kind == framing.ARROW_MSG:
                kept = store_id.is_recording(store_id.store_id_of_chunk(payload))
            else:
                kept = False
            parts += [data[frame.start : frame.end]] if kept else []
    except errors.FormatError:
        return recording
    copy = folder / "recording.rrd"
    copy.write_bytes(b"".join(parts))
    return copy


def _with_blueprint(recording: Path, folder: Path, blueprint: Any) -> Path:
    """Return the path of a file with the recording and a layout. New files are written to `folder`.

    The layout is `blueprint`, or else the layout in the recording, or else an automatic layout, whose panels are hidden
    or collapsed. Recording and layout are in one file, because `_draw` lets the viewer open only one file.

    Raises `PictureError` if Rerun cannot read the file `recording`, if there is no recording in it, or if the new file
    cannot be made. Raises `ConfigError` if `blueprint` is no value that `rr.send_blueprint` accepts.
    """
    import rerun.blueprint as rrb

    recording = _readable(recording, folder)
    application_ids, has_blueprint = _stores(recording)
    if not application_ids:
        raise PictureError("there is no recording in it")
    if blueprint is None:
        if has_blueprint:
            return recording
        blueprint = rrb.Blueprint(
            rrb.TopPanel(state="hidden"),
            rrb.BlueprintPanel(state="hidden"),
            rrb.SelectionPanel(state="hidden"),
            rrb.TimePanel(state="collapsed"),
            auto_layout=True,
            auto_views=True,
        )
    if has_blueprint:
        # Of two blueprints in one file, the viewer may choose the wrong one.
        recording = _without_blueprints(recording, folder)
    layout, merged = folder / "layout.rbl", folder / "merged.rrd"
    layout.write_bytes(encoder.encoded_blueprint(application_ids[0], blueprint))
    try:
        programs.merge([recording, layout], merged)
    except OSError as error:
        raise PictureError(str(error)) from error
    return merged


@contextlib.contextmanager
def headless_viewer(
    folder: Path,
    size: tuple[int, int],
    *,
    port: int | None = None,
    viewers: list[subprocess.Popen[bytes]] | None = None,
) -> Iterator[ViewerClient]:
    """A context manager that runs a viewer without a window, and yields a client that controls the viewer.

    The viewer is killed at the end of the block. If the block raises an `Exception`, and the viewer ends by itself
    within 1 s, an error with the viewer's own output replaces this exception.

    Parameters
    ----------
    folder:
        The folder for the files of the viewer.
    size:
        The width and the height in pixels of the picture without the bar at the top, which is 36 pixels high.
    port:
        The port at which the viewer listens, on this machine only. By default a free port.
    viewers:
        A list to which the process of the viewer is added as soon as it has started.

    Raises
    ------
    NoViewerError
        If this machine cannot run a viewer, because the viewer or a graphics driver is missing, or the SDK is too old.
    PictureError
        If the viewer ends too early for another reason.
    OSError
        If the viewer cannot be started.
    """
    from rerun.experimental import ViewerClient

    if not hasattr(ViewerClient, "get_state"):
        raise NoViewerError("the viewer of this Rerun SDK cannot be asked what it shows: use rerun-sdk 0.41 or newer")
    executable = programs.viewer_executable()
    if executable is None:
        raise NoViewerError("there is no Rerun viewer: neither in the rerun-sdk package nor on the PATH")
    port = port or _free_port()
    command = [executable, "--headless", "--bind", "127.0.0.1", "--port", str(port)]
    command += ["--window-size", f"{size[0]}x{size[1] + _EMPTY_TOP}"]
    quiet = {"RUST_LOG": "error", "XDG_RUNTIME_DIR": str(folder), "RERUN_APP_ONLY": "true"}
    log = folder / "viewer.log"
    with log.open("wb") as output:
        viewer = subprocess.Popen(
            command, env=os.environ | quiet, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    if viewers is not None:
        viewers.append(viewer)
    try:
        while not _listens(port):
            if viewer.poll() is not None:
                raise _ended(viewer.returncode, log.read_text(errors="replace"))
            time.sleep(_LOOK_EVERY_SECS)
        client = ViewerClient.connect(f"rerun+http://127.0.0.1:{port}/proxy")
        try:
            yield client
        except Exception as error:
            # A viewer without a graphics driver ends when it tries to draw for the first time. It listens before that.
            # So wait up to 1 s for its end: if the viewer ends, its output has the true cause of `error`.
            with contextlib.suppress(subprocess.TimeoutExpired):
                raise _ended(viewer.wait(1), log.read_text(errors="replace")) from error
            raise
    finally:
        viewer.kill()
        viewer.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _ended(status: int, output: str) -> PictureError:
    """Return the error for a viewer that has ended with the exit status `status` and has written `output`.

    The error is a `NoViewerError` if `output` says that there is no graphics driver, else another `PictureError`.
    """
    if "render context" in output or "graphics adapter" in output:
        return NoViewerError(
            "the Rerun viewer finds no Vulkan driver. Without a graphics card Mesa's does: "
            "'apt-get install mesa-vulkan-drivers' on Debian"
        )
    first = next((line.strip() for line in output.splitlines() if line.strip()), "it does not say why")
    return PictureError(f"the Rerun viewer ended with {status}: {first}")


def _patiently(ask: Callable[[], _T]) -> _T:
    """Call `ask` until it raises no `TimeoutError`, and return its result.

    There is no limit here, because the caller of this process limits the time for the whole picture.
    """
    while True:
        try:
            return ask()
        except TimeoutError:
            continue


def _go_to(client: ViewerClient, state: ViewerState, timeline: str | None, at: int | None) -> None:
    """Let the viewer show the time `at` on `timeline`. `state` is the present state of the viewer.

    `at` is a sequence number or in nanoseconds. If `at` is None, use the last time on the timeline. If `timeline` is
    None, use the timeline that the viewer has chosen, and do nothing if there is no data on it. Raises `PictureError`
    if `timeline` is given, and the recording has no data on it.
    """
    (recording,) = (each for each in state.recordings if each.store_id == state.active_recording)
    name = timeline or recording.current_timeline
    ends = {each.name: each.end for each in recording.timelines if each.end is not None}
    if timeline is not None and timeline not in ends:
        raise PictureError(f"it has no timeline '{timeline}', but {', '.join(sorted(ends)) or 'none'}")
    if name is not None and name in ends:
        sequence = ends[name] if at is None else at
        _patiently(lambda: client.set_time(name, sequence=sequence, play_state="paused"))


def settled(client: ViewerClient) -> bytes:
    """Wait until three screenshots of the viewer are equal, and return one of them (the bytes of a PNG file).

    At least 17 frames are drawn between the first screenshot and the next two. The picture changes for a while, because
    the viewer fetches data on demand and hides notifications after some time. The wait has no limit (see `_patiently`).
    """
    before = _patiently(client.take_screenshot)
    while True:
        # The viewer draws one frame for each answer. After these frames, all earlier notifications are hidden.
        for _ in range(_FRAMES_OF_A_NOTIFICATION):
            _patiently(client.get_state)
        shots = [_patiently(client.take_screenshot) for _ in range(2)]
        if before == shots[0] == shots[1]:
            return before
        before = shots[1]


def _cut(picture: bytes, size: tuple[int, int]) -> Any:
    from PIL import Image

    width, height = size
    return Image.open(io.BytesIO(picture)).convert("RGB").crop((0, _EMPTY_TOP, width, _EMPTY_TOP + height))


if __name__ == "__main__":
    main()

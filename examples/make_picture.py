"""Render a recording of quickstart.py in the real, headless Rerun Viewer and save a screenshot of it.

    python make_picture.py quickstart.rrd quickstart.png

Without a GPU the viewer needs a software Vulkan driver: `apt-get install mesa-vulkan-drivers` on Debian.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import rerun.blueprint as rrb
import rerun_cli  # type: ignore[import-untyped]  # it ships no types
from PIL import Image
from rerun.experimental import ViewerClient, ViewerState

APP_ID = "mpr_quickstart"
TIMELINE = "picture_nr"
WIDTH, HEIGHT = 1280, 800
EMPTY_TOP = 36  # height of the bar that even a hidden top panel leaves; cut off
TIMEOUT = 60.0  # seconds, for each of the waits below
RERUN = Path(rerun_cli.__file__).with_name("rerun")  # not the `rerun` script, whose child would outlive it


def blueprint() -> rrb.Blueprint:
    """The picture with all its layers large, two of the layers beside it, the statistics below."""
    no_legend = rrb.PlotLegend(visible=False)
    return rrb.Blueprint(
        rrb.Vertical(
            rrb.Horizontal(
                rrb.Spatial2DView(origin="picture", name="Picture, segments, boxes and contours"),
                rrb.Vertical(
                    rrb.Spatial2DView(origin="picture", contents="picture", name="Picture"),
                    rrb.Spatial2DView(origin="picture", contents="picture/segments", name="Segments"),
                ),
                column_shares=[2, 1],
            ),
            rrb.Horizontal(
                rrb.TimeSeriesView(origin="stats/edge_share", name="Share of edges", plot_legend=no_legend),
                rrb.TimeSeriesView(origin="stats/segments", name="Number of segments", plot_legend=no_legend),
                rrb.TimeSeriesView(origin="stats/seconds", name="Seconds of work", plot_legend=no_legend),
            ),
            row_shares=[7, 3],
        ),
        rrb.TopPanel(state="hidden"),
        rrb.BlueprintPanel(state="hidden"),
        rrb.SelectionPanel(state="hidden"),
        rrb.TimePanel(state="collapsed", timeline=TIMELINE),
    )


@contextlib.contextmanager
def headless_viewer(folder: str) -> Iterator[ViewerClient]:
    """A viewer of the wanted size (`ViewerClient.spawn` cannot be told one) that only this machine can reach."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    window = f"{WIDTH}x{HEIGHT + EMPTY_TOP}"
    command = [str(RERUN), "--headless", "--window-size", window, "--bind", "127.0.0.1", "--port", str(port)]
    quiet = {"RUST_LOG": "error", "XDG_RUNTIME_DIR": folder, "RERUN_APP_ONLY": "true"}
    viewer = subprocess.Popen(command, env=os.environ | quiet)
    try:

        def is_up() -> bool:
            if viewer.poll() is not None:
                raise RuntimeError(f"the viewer ended with {viewer.returncode}; is there a Vulkan driver?")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False

        wait_until(is_up, "the viewer to listen")
        yield ViewerClient.connect(f"rerun+http://127.0.0.1:{port}/proxy")
    finally:
        viewer.terminate()
        try:
            viewer.wait(timeout=10)
        except subprocess.TimeoutExpired:
            viewer.kill()
            viewer.wait(timeout=10)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll until the condition holds, for at most `TIMEOUT`."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {TIMEOUT:.0f} s for {what}")
        time.sleep(0.2)


def has_arrived(state: ViewerState) -> bool:
    """Whether the recording is loaded completely and its views are laid out."""
    timelines = [timeline for recording in state.recordings for timeline in recording.timelines]
    return (
        not state.loading
        and any(timeline.name == TIMELINE and timeline.end is not None for timeline in timelines)
        and len(state.views) == 6
    )


def main() -> None:
    """Load the recording with the blueprint, go to one picture and photograph the viewer."""
    parser = argparse.ArgumentParser(description="Screenshot a recording of quickstart.py in the Viewer.")
    parser.add_argument("recording", nargs="?", type=Path, default="quickstart.rrd")
    parser.add_argument("screenshot", nargs="?", type=Path, default="quickstart.png")
    parser.add_argument("--picture-nr", type=int, default=5, help="which picture to show")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder, headless_viewer(folder) as client:
        # The viewer files a recording under a data set id of its own, so that a blueprint opened next to it does
        # not apply; merged into one file the two stay together.
        layout, merged = Path(folder, "layout.rbl"), Path(folder, "merged.rrd")
        blueprint().save(APP_ID, str(layout))
        merge = [RERUN, "rrd", "merge", args.recording, layout, "-o", merged]
        subprocess.run(merge, check=True, timeout=TIMEOUT, env=os.environ | {"RUST_LOG": "error"})

        client.open(str(merged))
        wait_until(lambda: has_arrived(client.get_state()), "the recording to load")
        client.set_time(TIMELINE, sequence=args.picture_nr, play_state="paused")

        # Data is fetched on demand and notifications fade: the picture is ready once it stops changing.
        shots = [b"", client.take_screenshot()]

        def is_still() -> bool:
            time.sleep(2)
            shots.append(client.take_screenshot())
            return shots[-1] == shots[-2] == shots[-3]

        wait_until(is_still, "the picture to stop changing")
        problems = [report.summary for view in client.get_state().views for report in view.reports]
        if problems:
            raise RuntimeError(f"the viewer reports {problems}")

    image = Image.open(io.BytesIO(shots[-1])).convert("RGB").crop((0, EMPTY_TOP, WIDTH, EMPTY_TOP + HEIGHT))
    image.quantize(256).save(args.screenshot, optimize=True)  # a palette: less than half the bytes
    print(f"{args.screenshot}: {image.width}x{image.height}, {args.screenshot.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

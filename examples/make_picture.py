"""Run the examples, and let the real Rerun viewer draw their recordings without a window, into the pictures here.

    python make_picture.py                 # all of them
    python make_picture.py quickstart      # one

Without a GPU, the viewer needs a software Vulkan driver: `apt-get install mesa-vulkan-drivers` on Debian.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import rerun as rr
from PIL import Image

from mpr import picture

FOLDER = Path(__file__).parent


class Shot(NamedTuple):
    """Say how to make the picture of an example.

    `recording` is the file that the example writes if it runs with `arguments`. The picture shows this recording at
    `time` on the timeline `timeline`. If `state_timelines` is true, the picture also shows what each worker did. These
    rows are only on the timeline `log_time`. So the picture then shows the moment on `log_time` at which all rows with
    the time `time` had been logged.
    """

    recording: str
    timeline: str
    time: int
    arguments: tuple[str, ...] = ()
    state_timelines: bool = False


SHOTS = {
    "quickstart": Shot("quickstart.rrd", "picture_nr", 5, state_timelines=True),
    "episodes": Shot("episodes/episode-013.rrd", "step", 150),
    "engines": Shot("engines.rrd", "tile", 63, state_timelines=True),
    "point_clouds": Shot("point_clouds.rrd", "scan", 15, state_timelines=True),
    "robots": Shot("robots.rrd", "time", 7_950_000_000),
    "video": Shot("video.rrd", "frame", 40),
    "web": Shot("web.rrd", "step", 249, ("web.rrd", "--pause-secs", "0", "--port", "0"), state_timelines=True),
}


def moment(recording: Path, timeline: str, time: int) -> int:
    """Return the time on `log_time` (nanoseconds) at which all rows with the time `time` on `timeline` were logged."""
    moments = [0]
    for chunk in rr.chunk.RrdReader(recording).stream():
        if timeline in chunk.timeline_names:
            batch = chunk.to_record_batch()
            times, logged = (batch.column(each).cast("int64").to_pylist() for each in (timeline, "log_time"))
            moments += [at for at, here in zip(logged, times, strict=True) if here == time]
    return max(moments)


def make(name: str) -> None:
    """Run the example `name`, draw its recording, and save the picture as a small file."""
    shot, target = SHOTS[name], FOLDER / f"{name}.png"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, FOLDER / f"{name}.py", *shot.arguments], check=True, cwd=folder, timeout=600)
        recording = Path(folder, shot.recording)
        timeline, now = shot.timeline, shot.time
        if shot.state_timelines:
            timeline, now = "log_time", moment(recording, timeline, now)
        reports = picture.render(recording, target, timeout_secs=240, timeline=timeline, time=now)
    if reports:
        raise RuntimeError(f"the viewer reports {reports}")
    with Image.open(target) as image:
        small = image.quantize(256)  # a palette needs less than half the bytes
    small.save(target, optimize=True)
    print(f"{target.name}: {small.width}x{small.height}, {target.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    """Make the pictures that the command line names, or all of them."""
    parser = argparse.ArgumentParser(description="Make the pictures of the examples.")
    parser.add_argument("names", nargs="*", choices=list(SHOTS), default=None)
    for name in parser.parse_args().names or SHOTS:
        make(name)


if __name__ == "__main__":
    main()

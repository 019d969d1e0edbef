"""Run the examples and draw what they have recorded with the real Rerun viewer, without a window: their pictures here.

    python make_picture.py                 # all of them
    python make_picture.py quickstart      # one

Without a GPU the viewer needs a software Vulkan driver: `apt-get install mesa-vulkan-drivers` on Debian.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mpr import picture

FOLDER = Path(__file__).parent


class Shot(NamedTuple):
    """Which recording of an example is drawn, when in it, and what the example is told."""

    recording: str
    timeline: str
    time: int
    arguments: tuple[str, ...] = ()


SHOTS = {
    "quickstart": Shot("quickstart.rrd", "picture_nr", 5),
    "episodes": Shot("episodes/episode-013.rrd", "step", 150),
    "point_clouds": Shot("point_clouds.rrd", "scan", 15),
    "robots": Shot("robots.rrd", "time", 7_950_000_000),
    "video": Shot("video.rrd", "frame", 40),
    "web": Shot("web.rrd", "step", 249, ("web.rrd", "--pause-secs", "0", "--port", "0")),
}


def make(name: str) -> None:
    """Run an example, draw its recording, and make the picture small."""
    shot, target = SHOTS[name], FOLDER / f"{name}.png"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, FOLDER / f"{name}.py", *shot.arguments], check=True, cwd=folder, timeout=600)
        recording = Path(folder, shot.recording)
        reports = picture.render(recording, target, timeout_secs=240, timeline=shot.timeline, time=shot.time)
    if reports:
        raise RuntimeError(f"the viewer reports {reports}")
    with Image.open(target) as image:
        small = image.quantize(256)  # a palette: less than half the bytes
    small.save(target, optimize=True)
    print(f"{target.name}: {small.width}x{small.height}, {target.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    """Make the pictures that were asked for."""
    parser = argparse.ArgumentParser(description="Make the pictures of the examples.")
    parser.add_argument("names", nargs="*", choices=list(SHOTS), default=None)
    for name in parser.parse_args().names or SHOTS:
        make(name)


if __name__ == "__main__":
    main()

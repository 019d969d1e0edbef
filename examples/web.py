"""Watch a run in a web browser while it goes on. A file keeps all rows, so you may open the page late.

    python web.py

Open the address that the script prints. Every task computes how particles move on a strange attractor of its own.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rerun as rr
import rerun.blueprint as rrb

import mpr

Points = npt.NDArray[np.float64]

ATTRACTORS = ["lorenz", "halvorsen", "aizawa", "thomas"]
STEPS, DT = 250, 0.016


def flow(name: str, places: Points) -> Points:
    """Return the velocities of particles at `places` on the attractor `name`. Both arrays have the shape (n, 3)."""
    x, y, z = places.T
    match name:
        case "lorenz":
            speed = 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z
        case "halvorsen":
            a = 1.89
            speed = (-a * x - 4 * y - 4 * z - y**2, -a * y - 4 * z - 4 * x - z**2, -a * z - 4 * x - 4 * y - x**2)
        case "aizawa":
            rise = 0.6 + 0.95 * z - z**3 / 3 - (x**2 + y**2) * (1 + 0.25 * z) + 0.1 * z * x**3
            speed = (z - 0.7) * x - 3.5 * y, 3.5 * x + (z - 0.7) * y, rise
        case _:
            speed = np.sin(y) - 0.2 * x, np.sin(z) - 0.2 * y, np.sin(x) - 0.2 * z
    return np.stack(speed, axis=1)


def follow(name: str, pause_secs: float) -> None:
    """Move 40 particles on the attractor `name`, and log them and their trails. Runs in a worker.

    Waits `pause_secs` seconds after each step.
    """
    places = np.random.default_rng(1).uniform(0.1, 0.6, (40, 3))
    speedup = {"thomas": 12.0, "aizawa": 3.0}.get(name, 1.0)
    colors = np.random.default_rng(2).integers(90, 255, (40, 3))
    trail = [places]
    for step in range(STEPS):
        for _ in range(2):
            middle = places + DT * speedup / 4 * flow(name, places)
            places = places + DT * speedup / 2 * flow(name, middle)
        trail = [*trail[-60:], places]
        rr.set_time("step", sequence=step)
        rr.log(name, rr.Points3D(places, colors=colors, radii=rr.Radius.ui_points(3)))
        strips = list(np.stack(trail, axis=1))
        rr.log(f"{name}/trails", rr.LineStrips3D(strips, colors=colors, radii=rr.Radius.ui_points(1)))
        time.sleep(pause_secs)  # so that there is something to watch


def main() -> None:
    """Run the tasks in a pool. Their rows go to a file and to a web page, which is served meanwhile."""
    parser = argparse.ArgumentParser(description="Watch a pool in a web browser.")
    parser.add_argument("path", nargs="?", type=Path, default="web.rrd", help="the recording to write")
    parser.add_argument("--pause-secs", type=float, default=0.05, help="between two steps")
    parser.add_argument("--port", type=int, default=9090, help="of the page; 0 for a free one")
    parser.add_argument("--open", action="store_true", help="open the page in the default browser")
    args = parser.parse_args()

    grid = rrb.Grid(*(rrb.Spatial3DView(origin=name, name=name.capitalize()) for name in ATTRACTORS))
    layout = rrb.Blueprint(grid, collapse_panels=True)
    page = mpr.WebViewerSink(web_port=args.port, grpc_port=0, open_browser=args.open)
    with mpr.Pool("mpr_web", sinks=[args.path, page], blueprint=layout) as pool:
        pool.starmap(follow, [(name, args.pause_secs) for name in ATTRACTORS], chunksize=1)
    print(f"the page is gone, the data is not; see: rerun {args.path}")


if __name__ == "__main__":
    main()

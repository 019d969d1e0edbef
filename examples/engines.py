"""Let Dask or Ray compute a landscape: each task computes one tile. The viewer shows the engine's workers as lanes.

Only the argument `engine` of the pool differs from a pool with workers of mpr.

    pip install distributed
    python engines.py
    rerun engines.rrd
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

import mpr

POINTS = 128  # along each side of a tile
STEPS = 600
HUES = np.array([0.6, 0.75, 0.95])  # of red, green and blue


def tile(number: int, side: int) -> float:
    """Compute the tile with the index `number` of `side` x `side` tiles, and log it. Runs in a worker of the engine.

    The height of a point says how long the sequence z -> z² + c, which begins there, stays near the origin. Returns the
    mean height.
    """
    row, column = divmod(number, side)
    steps = np.linspace(0, 1, POINTS, endpoint=False)
    x, y = np.meshgrid((column + steps) / side, (row + steps) / side)
    z = 3.0 * (x - 0.5) + 2.4j * (y - 0.5)
    count = np.zeros(z.shape)
    for _ in range(STEPS):
        near = np.abs(z) < 2
        z[near] = z[near] ** 2 + (-0.79 + 0.15j)
        count += near
    height = np.log1p(count) / np.log1p(STEPS)
    colors = 255 * (0.5 + 0.5 * np.cos(2 * np.pi * (0.9 * height[..., None] + HUES)))
    rr.set_time("tile", sequence=number)
    places = np.stack([x, y, 0.2 * height], axis=-1).reshape(-1, 3)
    rr.log(f"tiles/{number}", rr.Points3D(places, colors=colors.reshape(-1, 3).astype(np.uint8), radii=0.001))
    return float(height.mean())


def layout() -> rrb.Blueprint:
    """Return a layout that shows the landscape from above a corner. The lanes of the workers are below it."""
    eye = rrb.EyeControls3D(position=(0.5, -0.2, 0.75), look_target=(0.5, 0.42, 0.05), eye_up=(0, 0, 1))
    return rrb.Blueprint(rrb.Spatial3DView(origin="tiles", name="All tiles", eye_controls=eye), collapse_panels=True)


def main() -> None:
    """Compute all tiles with the engine, into one recording."""
    parser = argparse.ArgumentParser(description="Compute a landscape with Dask or Ray into one Rerun recording.")
    parser.add_argument("path", nargs="?", type=Path, default="engines.rrd", help="the recording to write")
    parser.add_argument("--engine", choices=["dask", "ray"], default="dask")
    parser.add_argument("--side", type=int, default=8, help="the number of tiles along each side")
    args = parser.parse_args()

    numbers = [(number, args.side) for number in range(args.side**2)]
    with mpr.Pool("mpr_engines", 3, engine=args.engine, sinks=args.path, blueprint=layout()) as pool:
        heights = pool.starmap(tile, numbers, chunksize=1)
    print(f"{len(heights)} tiles, mean height {sum(heights) / len(heights):.2f}; see: rerun {args.path}")


if __name__ == "__main__":
    main()

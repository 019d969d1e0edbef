"""Make one point cloud with many processes: each task computes one scan of a laser scanner that drives around.

Every scan is logged together with the place where it was taken (`rr.Transform3D`). So the viewer shows all scans as one
cloud.

    python point_clouds.py
    rerun point_clouds.rrd
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rerun as rr
import rerun.blueprint as rrb

import mpr

Points = npt.NDArray[np.float64]

BEAMS, TURNS = 40, 400  # per scan
REACH = 18.0  # metres
# Spheres as (x, y, z, radius). They stand on a floor with waves, between walls.
SPHERES = np.array([(4, 1, 1.2, 1.2), (-3, 4, 0.8, 1.4), (-4, -3, 1.5, 1.0), (2, -5, 0.6, 0.9), (0, 0, 3.5, 0.7)])


def distance(points: Points) -> npt.NDArray[np.float64]:
    """Return the distance of each point from the nearest surface, in metres. `points` has the shape (n, 3)."""
    x, y, z = points.T
    floor = z - 0.25 * np.sin(x) * np.cos(0.7 * y)
    walls = 8.0 - np.maximum(np.abs(x), np.abs(y))
    spheres = np.linalg.norm(points[:, None] - SPHERES[:, :3], axis=2) - SPHERES[:, 3]
    nearest: npt.NDArray[np.float64] = np.minimum(np.minimum(floor * 0.8, walls), spheres.min(axis=1))
    return nearest


def scan(number: int, scans: int) -> int:
    """Take the scan with the index `number` of `scans` scans on a circle, and log it. Runs in a worker.

    Returns the number of beams that have hit a surface.
    """
    angle = 2 * np.pi * number / scans
    place = np.array([5.5 * np.cos(angle), 5.5 * np.sin(angle), 1.4])

    sequence, tilt = np.meshgrid(np.linspace(0, 2 * np.pi, TURNS), np.radians(np.linspace(-45, 9, BEAMS)))
    beams = np.stack([np.cos(sequence) * np.cos(tilt), np.sin(sequence) * np.cos(tilt), np.sin(tilt)], axis=-1).reshape(
        -1, 3
    )
    reach = np.zeros(len(beams))
    for _ in range(40):  # a beam may go on as far as the nearest surface is away, because it hits nothing before
        reach += distance(place + beams * reach[:, None])
    hits = (beams * reach[:, None])[reach < REACH]

    rr.set_time("scan", sequence=number)
    rr.log("scanner/way", rr.Points3D([place], radii=0.12, colors=(255, 255, 255)))
    rr.log(f"scanner/{number}", rr.Transform3D(translation=place))
    height = np.clip((hits[:, 2] + place[2] + 0.4) / 3.4, 0, 1)
    colors = 255 * (0.55 + 0.45 * np.cos(2 * np.pi * (height[:, None] * 0.8 + [0.55, 0.75, 0.95])))
    rr.log(f"scanner/{number}/points", rr.Points3D(hits, colors=colors.astype(np.uint8), radii=0.02))
    return len(hits)


def layout() -> rrb.Blueprint:
    """Return a layout that shows the whole cloud, seen from above a corner."""
    eye = rrb.EyeControls3D(position=(10, -10, 8), look_target=(0, 0, 0), eye_up=(0, 0, 1))
    cloud = rrb.Spatial3DView(origin="scanner", name="All scans", eye_controls=eye)
    return rrb.Blueprint(cloud, collapse_panels=True)


def main() -> None:
    """Take all scans in a pool, into one recording."""
    parser = argparse.ArgumentParser(description="Scan a scene in parallel into one Rerun recording.")
    parser.add_argument("path", nargs="?", type=Path, default="point_clouds.rrd", help="the recording to write")
    parser.add_argument("--scans", type=int, default=16)
    args = parser.parse_args()

    with mpr.Pool("mpr_point_clouds", sinks=args.path, blueprint=layout()) as pool:
        counts = pool.starmap(scan, [(number, args.scans) for number in range(args.scans)])
    print(f"{sum(counts):,} points in {len(counts)} scans; see: rerun {args.path}")


if __name__ == "__main__":
    main()

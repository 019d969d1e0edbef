"""Analyse photographs in parallel, and see what every worker found in one Rerun recording.

Each task analyses one picture: it finds segments, boxes and contours, and logs them with plain `rr.log`. `mpr.Pool`
runs the tasks as `multiprocessing.Pool` does. It writes the rows that all its workers log into one .rrd file. The
photographs are a part of the package scikit-image:

    pip install scikit-image
    python quickstart.py
    rerun quickstart.rrd
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from skimage import color, data, feature, filters, measure, segmentation, transform, util

import mpr

PICTURES = [
    "astronaut", "coffee", "cat", "rocket", "camera", "coins", "clock", "moon", "hubble_deep_field", "retina",
    "immunohistochemistry", "brick", "gravel", "grass", "page", "text",
]  # fmt: skip
MAX_SIDE = 512  # pixels; larger pictures are scaled down


class Summary(NamedTuple):
    """The result of one task: numbers about its picture, and the id of the process that ran the task.

    `edge_share` is the share (0 to 1) of pixels that are on an edge. `seconds` is the time of the analysis.
    """

    name: str
    edge_share: float
    segments: int
    boxes: int
    contours: int
    seconds: float
    pid: int


def analyse(index: int, name: str) -> Summary:
    """Analyse the picture of scikit-image with this `name`, and log what was found. Runs in a worker.

    `index` is the time of its rows on the timeline `picture_nr`.
    """
    started = time.perf_counter()
    rr.set_time("picture_nr", sequence=index)

    picture = util.img_as_float(getattr(data, name)())
    rgb = picture if picture.ndim == 3 else color.gray2rgb(picture)
    scale = min(1.0, MAX_SIDE / max(rgb.shape))
    height, width = (round(side * scale) for side in rgb.shape[:2])
    rgb = transform.resize(rgb, (height, width), anti_aliasing=scale < 1)
    gray = color.rgb2gray(rgb)

    segments = segmentation.felzenszwalb(rgb, scale=250, sigma=1, min_size=300) + 1
    # Boxes around segments that are neither tiny nor background. A box has the class id of its segment, and so its
    # colour.
    regions = [r for r in measure.regionprops(segments) if 0.005 < r.area / segments.size < 0.2]
    mins = [(r.bbox[1], r.bbox[0]) for r in regions]
    sizes = [(r.bbox[3] - r.bbox[1], r.bbox[2] - r.bbox[0]) for r in regions]
    smooth = filters.gaussian(gray, sigma=2)
    outlines = measure.find_contours(smooth, level=filters.threshold_otsu(smooth))
    contours = [outline[:, ::-1] for outline in outlines if len(outline) > 80]
    thin = rr.Radius.ui_points(1)
    edge_share = float(feature.canny(gray, sigma=2).mean())
    seconds = time.perf_counter() - started

    # Everything is logged at the end, one call after another. Otherwise, the viewer could mix the layers of two
    # pictures, because several workers log to the same entities.
    rr.log("picture", rr.Image(util.img_as_ubyte(rgb)))
    rr.log("picture/segments", rr.SegmentationImage(segments.astype(np.uint16), opacity=0.35))
    rr.log("picture/boxes", rr.Boxes2D(mins=mins, sizes=sizes, class_ids=[r.label for r in regions]))
    rr.log("picture/contours", rr.LineStrips2D(contours, colors=(255, 255, 255), radii=thin))
    rr.log("stats/edge_share", rr.Scalars(edge_share))
    rr.log("stats/segments", rr.Scalars(segments.max()))
    rr.log("stats/seconds", rr.Scalars(seconds))
    return Summary(name, edge_share, int(segments.max()), len(regions), len(contours), seconds, os.getpid())


def layout() -> rrb.Blueprint:
    """Return a layout that shows the picture with all layers large, two layers beside it, and statistics below."""
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
        rrb.TimePanel(state="collapsed", timeline="picture_nr"),
    )


def main() -> None:
    """Analyse all pictures, let the SDK verify the recording, and print what was found."""
    parser = argparse.ArgumentParser(description="Analyse photographs in parallel into one Rerun recording.")
    parser.add_argument("path", nargs="?", type=Path, default="quickstart.rrd", help="the recording to write")
    parser.add_argument("--processes", type=int, help="number of workers (default: one per CPU)")
    args = parser.parse_args()
    path: Path = args.path

    started = time.perf_counter()
    with mpr.Pool("mpr_quickstart", processes=args.processes, sinks=path, blueprint=layout()) as pool:
        results = pool.starmap(analyse, enumerate(PICTURES))
    seconds = time.perf_counter() - started

    rerun = shutil.which("rerun", path=Path(sys.executable).parent) or "rerun"
    subprocess.run([rerun, "rrd", "verify", path], check=True, timeout=60)

    print("\npicture               edges  segments  boxes  contours  seconds      pid")
    for name, edge_share, segments, boxes, contours, took, pid in results:
        print(f"{name:<20} {edge_share:>6.1%} {segments:>9} {boxes:>6} {contours:>9} {took:>8.2f} {pid:>8}")
    workers = len({result.pid for result in results})
    print(f"\n{len(results)} pictures analysed by {workers} processes in {seconds:.1f} s")
    print(f"{path}: verified, {path.stat().st_size / 1e6:.1f} MB; open it with: rerun {path}")


if __name__ == "__main__":
    main()

"""Render a recording of quickstart.py in the real, headless Rerun Viewer and save a screenshot of it.

    python make_picture.py quickstart.rrd quickstart.png

Without a GPU the viewer needs a software Vulkan driver: `apt-get install mesa-vulkan-drivers` on Debian.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import rerun.blueprint as rrb
from PIL import Image

from mpr import picture

TIMELINE = "picture_nr"


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


def main() -> None:
    """Draw the recording at one picture, and make the file small."""
    parser = argparse.ArgumentParser(description="Screenshot a recording of quickstart.py in the Viewer.")
    parser.add_argument("recording", nargs="?", type=Path, default="quickstart.rrd")
    parser.add_argument("screenshot", nargs="?", type=Path, default="quickstart.png")
    parser.add_argument("--picture-nr", type=int, default=5, help="which picture to show")
    args = parser.parse_args()

    reports = picture.render(
        args.recording,
        args.screenshot,
        timeout_secs=120,
        blueprint=blueprint(),
        timeline=TIMELINE,
        time=args.picture_nr,
    )
    if reports:
        raise RuntimeError(f"the viewer reports {reports}")
    with Image.open(args.screenshot) as image:
        small = image.quantize(256)  # a palette: less than half the bytes
    small.save(args.screenshot, optimize=True)
    print(f"{args.screenshot}: {small.width}x{small.height}, {args.screenshot.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

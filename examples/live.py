"""Watch a run while it goes on. The rows of one pool go to a file, to a viewer, and to a server for more viewers.

    python live.py                      opens a viewer, and prints the address of the server to stderr
    python live.py --picture live.png   opens no window: saves what the viewer shows in the middle of the run

Without a GPU, the second command needs a software Vulkan driver: `apt-get install mesa-vulkan-drivers` on Debian.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from PIL import Image
from rerun.experimental import ViewerClient

import mpr

SWARMS, WORKERS, STEPS, STEP_SECS = 8, 4, 200, 0.02
COLORS = [(255, 130, 60), (70, 160, 255), (120, 220, 90), (230, 110, 210)]
VIEWS = 3  # in the blueprint; the pool shows its own views below them
PATIENCE = 120.0  # seconds that the viewer may take to start and draw, without a GPU and while the workers run


def swarm(number: int) -> float:
    """Let 60 particles move around a centre, step by step, and return their energy at the end. Runs in a worker.

    The particles have the colour of the worker.
    """
    task = mpr.current_task()
    worker = task.worker if task is not None and task.worker is not None else 0
    color = COLORS[worker % len(COLORS)]
    random = np.random.default_rng(number)
    centre = 6.0 * np.array([np.cos(number * np.pi / 4), np.sin(number * np.pi / 4)])
    places, speeds = centre + random.normal(size=(60, 2)), 0.6 * random.normal(size=(60, 2))
    trails = [places.copy()]
    rr.set_time("step", sequence=0)
    rr.log(f"log/{number}", rr.TextLog(f"swarm {number} begins in worker {worker}"))
    for step in range(STEPS):
        speeds = 0.995 * speeds + 0.05 * (centre - places)
        places = places + 0.1 * speeds
        trails = [*trails[-25:], places.copy()]
        energy = float((speeds**2).sum() / 2 + 0.25 * ((places - centre) ** 2).sum())
        rr.set_time("step", sequence=step)
        rr.log(f"swarm/{number}", rr.Points2D(places, colors=color, radii=0.06))
        rr.log(f"swarm/{number}/trails", rr.LineStrips2D(np.stack(trails, axis=1), colors=(*color, 70), radii=0.02))
        rr.log(f"energy/{number}", rr.Scalars(energy))
        time.sleep(STEP_SECS)
    rr.log(f"log/{number}", rr.TextLog(f"swarm {number} ends in worker {worker}, energy {energy:.1f}"))
    return energy


def blueprint() -> rrb.Blueprint:
    """Return a layout that shows the swarms large, and beside them their energies and the log of the tasks."""
    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Spatial2DView(origin="swarm", name="Swarms, one task each, coloured by worker"),
            rrb.Vertical(
                rrb.TimeSeriesView(origin="energy", name="Energy", plot_legend=rrb.PlotLegend(visible=False)),
                rrb.TextLogView(origin="log", name="Tasks"),
                row_shares=[3, 2],
            ),
            column_shares=[3, 2],
        ),
        rrb.BlueprintPanel(state="hidden"),
        rrb.SelectionPanel(state="hidden"),
        rrb.TimePanel(state="collapsed", timeline="log_time"),
    )


def picture_of(recording: mpr.SharedRecording) -> Image.Image:
    """Return a picture of the viewer, as soon as the viewer shows all its views.

    Raises `TimeoutError` if it does not show them within 120 s.
    """
    deadline = time.monotonic() + PATIENCE

    def wait_until(condition: Callable[[], bool]) -> None:
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the viewer shows nothing within {PATIENCE:.0f} s")
            time.sleep(0.2)

    wait_until(lambda: recording.stats().live_sinks[0].sent_chunks > 0)
    client = ViewerClient.connect(recording.urls[0])
    wait_until(lambda: len(client.get_state().views) >= VIEWS)
    return Image.open(io.BytesIO(client.take_screenshot())).convert("RGB")


def main() -> None:
    """Run the swarms, show them in a viewer, and take a picture if the command line asks for one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, help="save what the viewer shows, and open no window")
    parser.add_argument("--save", type=Path, default="live.rrd", help="the recording (default: %(default)s)")
    args = parser.parse_args()
    viewer = mpr.SpawnViewerSink(headless=args.picture is not None)
    sinks = [viewer, mpr.FileSink(args.save), mpr.GrpcServerSink(port=0)]
    with mpr.Pool("swarms", WORKERS, sinks=sinks, blueprint=blueprint()) as pool:
        for count, energy in enumerate(pool.imap_unordered(swarm, range(SWARMS)), 1):
            print(f"{count} of {SWARMS} done, energy {energy:.1f}")
            if args.picture is not None and count == WORKERS:
                # Wait until the next swarms have run for a while, so that the picture shows them in motion.
                time.sleep(0.6 * STEPS * STEP_SECS)
                picture = picture_of(pool.recording)
                picture.quantize(256).save(args.picture, optimize=True)
                print(f"{args.picture}: {picture.width}x{picture.height}, {args.picture.stat().st_size / 1e3:.0f} kB")
        for sink in pool.recording.stats().live_sinks:
            print(f"{sink.sink}: {sink.state}, {sink.sent_chunks} chunks sent, {sink.missing_chunks} to come")


if __name__ == "__main__":
    main()

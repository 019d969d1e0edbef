"""Serve a web page with a button that starts a pool. The page shows what the workers log while they work.

    pip install '.[gradio]'      # in a clone of mpr; `rerun-mpr[gradio]` once it is published
    python gradio_app.py            # and open http://127.0.0.1:7860

The page has three tabs, each with a viewer of Rerun. The recordings come to these viewers in three different ways:

- Live: the page gets the bytes of a `mpr.BinaryStreamSink` while the pool works.
- File: a pool writes an .rrd file, the page loads the file, and the file is deleted some time later.
- Episodes: each task makes a recording. One viewer shows three recordings: two from files, and one from a URL.

Each click has a pool of its own with its own recordings, so users never see each other's data.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import rerun as rr
import rerun.blueprint as rrb

import mpr

# Gradio is imported in `build`, because workers import this file too, and need no web server. This file has no
# `from __future__ import annotations`, because Gradio reads the annotations of functions, which would be texts then.

Picture = npt.NDArray[np.uint8]

APP_ID = "mpr_gradio"
WORKERS = 2  # for each click
ASTRONAUT = Path(__file__).with_name("astronaut.jpg")
VIEWER = {"streaming": False, "height": 520, "panel_states": {"blueprint": "collapsed", "selection": "hidden"}}


def analyse(step: int, picture: Picture) -> float:
    """Blur `picture`, the more the larger `step` is, and find its edges. Log both. Runs in a worker.

    Returns the share (0 to 1) of pixels that are on an edge.
    """
    blurred = cv2.GaussianBlur(picture, (0, 0), sigmaX=0.5 + step / 4)
    edges = cv2.Canny(blurred, 60, 120)
    share = float(np.count_nonzero(edges) / edges.size)
    rr.set_time("step", sequence=step)
    rr.log("blurred", rr.Image(blurred))
    rr.log("edges", rr.Image(edges))
    rr.log("share_of_edges", rr.Scalars(share))
    time.sleep(0.05)  # so that there is something to watch
    return share


def layout() -> rrb.Blueprint:
    """Return a layout that shows the two pictures side by side, and the chart below."""
    pictures = rrb.Horizontal(rrb.Spatial2DView(origin="blurred"), rrb.Spatial2DView(origin="edges"))
    chart = rrb.TimeSeriesView(origin="share_of_edges", plot_legend=rrb.PlotLegend(visible=False))
    return rrb.Blueprint(rrb.Vertical(pictures, chart, row_shares=[2, 1]), collapse_panels=True)


def work(pool: mpr.Pool, picture: Picture, steps: int) -> list[float]:
    """Run `steps` tasks and close the pool, which closes the recording. Return the results of the tasks."""
    with pool:
        return pool.starmap(analyse, [(step, picture) for step in range(int(steps))], chunksize=1)


# --- what the buttons do ------------------------------------------------------------------------------------------


async def stream(picture: Picture, steps: int) -> AsyncIterator[bytes]:
    """Yield the recording while it grows. A user who clicks 'Stop' or closes the page ends the pool."""
    sink = mpr.BinaryStreamSink()
    # Slow calls run in threads, so that the pages of other users go on meanwhile.
    pool = await asyncio.to_thread(mpr.Pool, APP_ID, WORKERS, sinks=sink, blueprint=layout())
    working = asyncio.create_task(asyncio.to_thread(work, pool, picture, steps))
    try:
        async for part in sink.parts():
            yield part
        await working
    finally:
        if not working.done():
            pool.terminate()
            await asyncio.gather(working, return_exceptions=True)


def write_file(picture: Picture, steps: int, made: list[Path]) -> tuple[str, list[Path]]:
    """Write a file. Return its path, and the list `made` with the folder of the file added, for `clean_up`.

    Gradio gives the page a copy of the file.
    """
    folder = Path(tempfile.mkdtemp(prefix="mpr-gradio-"))
    path = folder / "analysis.rrd"
    work(mpr.Pool(APP_ID, WORKERS, sinks=path, blueprint=layout()), picture, steps)
    # The list of folders is a state of Gradio. Its lifetime begins when it is returned.
    return str(path), [*made, folder]


def clean_up(folders: list[Path]) -> None:
    """Remove the folders in the list of a user. Gradio calls this when the list has expired."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def follow_edge(number: int, picture: Picture) -> None:
    """Log the pixels of `picture` that are brighter than a threshold, 16 rows more at each time. Runs in a worker.

    The threshold depends on `number`, the number of the episode.
    """
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    shown = np.zeros_like(picture)
    mask = gray > 60 + 50 * number
    for row in range(0, len(gray), 16):
        shown[row : row + 16] = picture[row : row + 16] * mask[row : row + 16, :, None]
        rr.set_time("row", sequence=row)
        rr.log("threshold", rr.Image(shown))


def episodes(picture: Picture, folder: Path, url: str) -> list[str]:
    """Make three recordings in `folder`, one per task. Return the paths of two of them, and the URL of the third one.

    `url` is the URL of `folder`.
    """
    made = Path(tempfile.mkdtemp(dir=folder))
    with mpr.Pool(APP_ID, WORKERS, sinks=mpr.DirectorySink(made, name="episode-{index}.rrd")) as pool:
        pool.starmap(follow_edge, [(number, picture) for number in range(3)])
    first, second, third = (made / f"episode-{number}.rrd" for number in range(3))
    return [str(first), str(second), f"{url}/{third.relative_to(folder)}"]


# --- the page -----------------------------------------------------------------------------------------------------


def build(folder: Path, state_secs: float) -> Any:
    """Build the server: files in `folder` have URLs, and the files of a user are kept for `state_secs` seconds."""
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.staticfiles import StaticFiles
    from gradio_rerun import Rerun

    server = FastAPI()
    server.mount("/recordings", StaticFiles(directory=folder))

    def show_episodes(picture: Picture, request: gr.Request) -> list[str]:
        return episodes(picture, folder, f"{request.request.base_url}recordings")

    with gr.Blocks(title="A pool behind a button", delete_cache=(600, 3600)) as page:
        with gr.Row():
            picture = gr.Image(str(ASTRONAUT), label="Picture", height=200)
            steps = gr.Slider(4, 2000, value=24, step=1, label="Steps")
        with gr.Tab("Live"):
            with gr.Row():
                start, stop = gr.Button("Analyse", variant="primary"), gr.Button("Stop")
            live = Rerun(**{**VIEWER, "streaming": True})
            # By default, Gradio handles one click after the other. With this limit, it handles four at a time.
            running = start.click(stream, [picture, steps], live, concurrency_limit=4)
            stop.click(None, cancels=running)
        with gr.Tab("File"):
            made = gr.State([], time_to_live=state_secs, delete_callback=clean_up)
            write = gr.Button("Analyse into a file", variant="primary")
            write.click(write_file, [picture, steps, made], [Rerun(**VIEWER), made], concurrency_limit=4)
        with gr.Tab("Episodes"):
            several = gr.Button("Make three episodes", variant="primary")
            several.click(show_episodes, picture, Rerun(**VIEWER), concurrency_limit=4)
    return gr.mount_gradio_app(server, page, path="/")


def main() -> None:
    """Serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A web page that shows what a pool logs.")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--state-secs", type=float, default=3600, help="how long a user's files are kept")
    args = parser.parse_args()

    import uvicorn

    with tempfile.TemporaryDirectory(prefix="mpr-gradio-") as folder:
        uvicorn.run(build(Path(folder), args.state_secs), host="127.0.0.1", port=args.port, log_level="warning")


if __name__ == "__main__":
    main()

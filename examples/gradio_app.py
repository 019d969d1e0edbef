"""A web page whose button starts a pool: what the workers log is seen on the page while they work.

    pip install 'mpr[gradio]'
    python gradio_app.py            # and open http://127.0.0.1:7860

Three tabs, three ways to the same viewer:

- Live: the bytes of a `mpr.BinaryStreamSink` are sent to the page while they come.
- File: a pool writes an .rrd file, the page loads it, and it is deleted when nobody needs it any more.
- Episodes: a recording per task, two of them as files and one by its URL, all in one viewer.

Each click has a pool and a recording of its own, so users never see each other's data.
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

# Gradio itself is imported in `build`: workers import this file too, and have no use for a web server. It reads the
# annotations of functions, so they stay values here.

Picture = npt.NDArray[np.uint8]

APP_ID = "mpr_gradio"
WORKERS = 2  # for each click
ASTRONAUT = Path(__file__).with_name("astronaut.jpg")
VIEWER = {"streaming": False, "height": 520, "panel_states": {"blueprint": "collapsed", "selection": "hidden"}}


def analyse(step: int, picture: Picture) -> float:
    """Blur the picture a little more with each step, find its edges, and log both; runs in a worker."""
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
    """The two pictures side by side, the chart below."""
    pictures = rrb.Horizontal(rrb.Spatial2DView(origin="blurred"), rrb.Spatial2DView(origin="edges"))
    chart = rrb.TimeSeriesView(origin="share_of_edges", plot_legend=rrb.PlotLegend(visible=False))
    return rrb.Blueprint(rrb.Vertical(pictures, chart, row_shares=[2, 1]), collapse_panels=True)


def work(pool: mpr.Pool, picture: Picture, steps: int) -> list[float]:
    """Do all steps and close the pool, which ends the recording."""
    with pool:
        return pool.starmap(analyse, [(step, picture) for step in range(int(steps))], chunksize=1)


# --- what the buttons do ------------------------------------------------------------------------------------------


async def stream(picture: Picture, steps: int) -> AsyncIterator[bytes]:
    """Yield the recording while it grows. A user who clicks 'Stop' or closes the page ends the pool."""
    sink = mpr.BinaryStreamSink()
    # In threads, what takes a moment: the other users' pages go on meanwhile.
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
    """Write a file, of which Gradio gives the page a copy, and note what is to be cleaned up."""
    folder = Path(tempfile.mkdtemp(prefix="mpr-gradio-"))
    path = folder / "analysis.rrd"
    work(mpr.Pool(APP_ID, WORKERS, sinks=path, blueprint=layout()), picture, steps)
    # A state that is returned begins to age.
    return str(path), [*made, folder]


def clean_up(folders: list[Path]) -> None:
    """The state of a user has expired: so have the files."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def follow_edge(number: int, picture: Picture) -> None:
    """An episode: the picture with a threshold of its own, a row after the other."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    shown = np.zeros_like(picture)
    mask = gray > 60 + 50 * number
    for row in range(0, len(gray), 16):
        shown[row : row + 16] = picture[row : row + 16] * mask[row : row + 16, :, None]
        rr.set_time("row", sequence=row)
        rr.log("threshold", rr.Image(shown))


def episodes(picture: Picture, folder: Path, url: str) -> list[str]:
    """A recording per task: two as files, one by a URL of this server."""
    made = Path(tempfile.mkdtemp(dir=folder))
    with mpr.Pool(APP_ID, WORKERS, sinks=mpr.DirectorySink(path=made, name="episode-{index}.rrd")) as pool:
        pool.starmap(follow_edge, [(number, picture) for number in range(3)])
    first, second, third = (made / f"episode-{number}.rrd" for number in range(3))
    return [str(first), str(second), f"{url}/{third.relative_to(folder)}"]


# --- the page -----------------------------------------------------------------------------------------------------


def build(folder: Path, state_secs: float) -> Any:
    """The server: files in `folder` have URLs; what a user has made is kept for `state_secs`."""
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
            # By default Gradio lets one user wait for the other.
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

"""Render and encode clips in many processes. The viewer shows them frame by frame, with the balls that were found.

Each task makes a video file and logs the whole file (`rr.AssetVideo`). For each frame, it logs the frame's time in the
video (`rr.VideoFrameReference`). A video is about a hundred times smaller than its pictures, and the viewer decodes
only the frames that it shows.

    pip install av
    python video.py
    rerun video.rrd
"""

from __future__ import annotations

import argparse
import io
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import rerun as rr
import rerun.blueprint as rrb

import mpr

SIDE, FRAMES, FRAMES_PER_SEC = 256, 60, 30
Frames = list[npt.NDArray[np.uint8]]


def balls(random: np.random.Generator, count: int) -> tuple[Frames, npt.NDArray[np.float64]]:
    """Let `count` balls bounce. Return the pictures, and the places of the balls in pixels.

    A picture has the shape (SIDE, SIDE, 3). The places have the shape (FRAMES, count, 2), as (x, y).
    """
    radius = 18.0
    places, speeds = random.uniform(radius, SIDE - radius, (count, 2)), random.uniform(-5, 5, (count, 2))
    colors = random.integers(60, 255, (count, 3))
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    frames, track = [], []
    for _ in range(FRAMES):
        places = places + speeds
        speeds = np.where((places < radius) | (places > SIDE - radius), -speeds, speeds)
        picture = np.full((SIDE, SIDE, 3), 18, np.uint8)
        for (ball_x, ball_y), color in zip(places, colors, strict=True):
            away = np.hypot(x - ball_x, y - ball_y) / radius
            picture = np.where(away[..., None] < 1, color * np.sqrt(np.clip(1 - away**2, 0, 1))[..., None], picture)
        frames.append(picture.astype(np.uint8))
        track.append(places)
    return frames, np.array(track)


def encode(frames: Frames) -> bytes:
    """Return an MP4 file with `frames`, encoded with AV1. The viewer can decode AV1 on every system by itself."""
    os.environ.setdefault("SVT_LOG", "1")  # otherwise the encoder prints a lot
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libsvtav1", rate=FRAMES_PER_SEC, options={"preset": "10", "crf": "35"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FRAMES_PER_SEC)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def clip(number: int) -> int:
    """Make the clip with this `number`, and log it with boxes around its balls. Runs in a worker.

    Returns the size of the video in bytes.
    """
    frames, track = balls(np.random.default_rng(number), count=3 + number)
    video = rr.AssetVideo(contents=encode(frames), media_type="video/mp4")
    rr.log(f"clips/{number}", video, static=True)
    # One call logs the references to all frames, as columns.
    times = video.read_frame_timestamps_nanos()
    rr.send_columns(
        f"clips/{number}",
        indexes=[rr.TimeColumn("frame", sequence=range(len(times)))],
        columns=rr.VideoFrameReference.columns_nanos(times),
    )
    for frame, places in enumerate(track):
        rr.set_time("frame", sequence=frame)
        boxes = rr.Boxes2D(centers=places, half_sizes=np.full((len(places), 2), 19.0), colors=(255, 230, 80))
        rr.log(f"clips/{number}/boxes", boxes)
    return len(video.blob.as_arrow_array()[0]) if video.blob is not None else 0


def layout(clips: int) -> rrb.Blueprint:
    """Return a layout that shows all clips in a grid."""
    views = [rrb.Spatial2DView(origin=f"clips/{number}", name=f"Clip {number}") for number in range(clips)]
    return rrb.Blueprint(rrb.Grid(*views), rrb.TimePanel(state="collapsed", timeline="frame"), collapse_panels=True)


def main() -> None:
    """Make all clips, and print their size."""
    parser = argparse.ArgumentParser(description="Encode videos in parallel into one Rerun recording.")
    parser.add_argument("path", nargs="?", type=Path, default="video.rrd", help="the recording to write")
    parser.add_argument("--clips", type=int, default=6)
    args = parser.parse_args()

    with mpr.Pool("mpr_video", sinks=args.path, blueprint=layout(args.clips), telemetry_view=False) as pool:
        sizes = pool.map(clip, range(args.clips), chunksize=1)
    print(f"{len(sizes)} clips, {sum(sizes) / 1e3:.0f} kB of video; see: rerun {args.path}")


if __name__ == "__main__":
    main()

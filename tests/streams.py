"""Make streams as the Rerun SDK itself writes them, for tests of code that takes streams apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import rerun as rr

from mpr.rrd import framing, manifest
from mpr.rrd.manifest import Manifest
from mpr.sdk import encoder


def reader(data: bytes) -> Callable[[int, int], bytes]:
    """Return a function that reads `data`, as `framing.scan` needs it."""
    return lambda offset, size: data[offset : offset + size]


def all_frames(data: bytes) -> list[framing.Frame]:
    frames, _ = framing.scan(reader(data), framing.HEADER_SIZE, len(data))
    return frames


def log_points(stream: rr.RecordingStream) -> None:
    """Log static and temporal entities on several timelines, and one row that is larger than a scan's window."""
    stream.log("scene", rr.TextDocument("about"), static=True)
    for number in range(5):
        stream.set_time("frame", sequence=number)
        stream.set_time("elapsed", duration=number * 0.1)
        stream.log("scene/points", rr.Points3D(np.full((3, 3), number)))
        stream.log("scene/error", rr.Scalars(number))
    stream.disable_timeline("elapsed")
    stream.log("picture", rr.Image(np.zeros((160, 200, 3), dtype=np.uint8)))
    stream.log("scene/points", rr.Points3D([[0, 0, 0]]), static=True)


def log_text(stream: rr.RecordingStream) -> None:
    """Log columns that `log_points` does not have."""
    stream.set_time("step", sequence=1)
    stream.log("log", rr.TextLog("hello"))
    stream.log("log/static", rr.TextLog("hello"), static=True)


def manifest_of(data: bytes) -> Manifest:
    end = all_frames(data)[-1]
    (found,) = manifest.parse(data[end.payload : end.end])
    return found


def encoded(write: Callable[[rr.RecordingStream], None]) -> bytes:
    data = encoder.encoded_by_sdk(write)
    assert data, "the SDK logs nothing; is RERUN=off set?"
    return data

"""Make random programs that log, and run them in a worker or in a process without mpr."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import rerun as rr
from hypothesis import strategies as st

#: Ids of a recording that a task makes itself. Other rows go to the current recording.
TASK_RECORDING = ("own app", "own")


@dataclass(frozen=True)
class Step:
    """One call of the SDK: an archetype of `kind` at `entity`, with data from `seed`.

    Attributes
    ----------
    times:
        The times to set before, by timeline. None disables the timeline.
    is_static:
        Whether the data is static.
    in_task_recording:
        Whether the data goes to a recording that the task makes itself.
    """

    kind: str
    entity: str
    seed: int
    times: dict[str, int | None]
    is_static: bool
    in_task_recording: bool


def _image(seed: int) -> Any:
    return rr.Image(np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8))


def _points(seed: int) -> Any:
    count = seed % 4
    return rr.Points3D(np.arange(3.0 * count).reshape(count, 3) + seed, radii=0.5, labels=["p"] * count)


_MAKE: dict[str, Callable[[int], Any]] = {
    "scalar": lambda seed: rr.Scalars(float(seed)),
    "scalars": lambda seed: rr.Scalars([float(seed), float(seed + 1)]),
    "text": lambda seed: rr.TextLog(f"row {seed} \N{GREEK SMALL LETTER MU}", level="INFO" if seed % 2 else None),
    "document": lambda seed: rr.TextDocument("x" * (seed % 50)),
    "image": _image,
    "points": _points,
    "boxes": lambda seed: rr.Boxes2D(sizes=[[1 + seed, 2]], colors=[[seed % 256, 0, 0]], class_ids=[seed % 5]),
    "transform": lambda seed: rr.Transform3D(translation=[seed, 0, 0]),
    "strips": lambda seed: rr.LineStrips3D([[[0, 0, 0], [seed, 1, 1]], [[1, 1, 1]]]),
    "values": lambda seed: rr.AnyValues(number=seed, word=f"w{seed}"),
    "other values": lambda seed: rr.AnyValues(flag=bool(seed % 2)),
    "clear": lambda seed: rr.Clear(recursive=bool(seed % 2)),
    "tensor": lambda seed: rr.Tensor(np.full((2, 2, 2), seed % 256, dtype=np.uint8)),
}

_TIMELINES: dict[str, Callable[[int, Any], None]] = {
    "frame": lambda value, stream: rr.set_time("frame", sequence=value, recording=stream),
    "elapsed": lambda value, stream: rr.set_time("elapsed", duration=0.5 * value, recording=stream),
    "stamp": lambda value, stream: rr.set_time("stamp", timestamp=1_700_000_000 + value, recording=stream),
}

_STEPS = st.builds(
    Step,
    kind=st.sampled_from([*sorted(_MAKE), "columns"]),
    entity=st.sampled_from(["a", "a/b", "world/camera", "with space/x", "\N{GREEK SMALL LETTER MU}/1"]),
    seed=st.integers(0, 1000),
    times=st.dictionaries(st.sampled_from(sorted(_TIMELINES)), st.none() | st.integers(-5, 1000), max_size=3),
    is_static=st.booleans(),
    in_task_recording=st.sampled_from([False, False, False, True]),
)

#: Some tasks, each as a list of steps.
PROGRAMS = st.lists(st.lists(_STEPS, max_size=15), min_size=1, max_size=6)


def run(numbered: tuple[int, list[Step]], task_recording: rr.RecordingStream | None = None) -> int:
    """Run the steps of one task. If they need a recording of the task and `task_recording` is None, make one."""
    number, steps = numbered
    for step in steps:
        if step.in_task_recording and task_recording is None:
            task_recording = rr.RecordingStream(
                TASK_RECORDING[0], recording_id=f"{TASK_RECORDING[1]}-{number}", send_properties=False
            )
        stream = task_recording if step.in_task_recording else None
        for timeline, value in step.times.items():
            if value is None:
                rr.disable_timeline(timeline, recording=stream)
            else:
                _TIMELINES[timeline](value, stream)
        # Of two static rows, the one that was logged later wins. So tasks share no entity with static rows.
        entity = f"static/{number}/{step.entity}" if step.is_static else step.entity
        if step.kind == "columns":
            rows = 1 + step.seed % 3
            index = rr.TimeColumn("frame", sequence=range(step.seed, step.seed + rows))
            rr.send_columns(
                f"columns/{step.entity}",
                indexes=[] if step.is_static else [index],
                columns=rr.Scalars.columns(scalars=np.arange(rows)[: 1 if step.is_static else None]),
                recording=stream,
            )
        else:
            rr.log(entity, _MAKE[step.kind](step.seed), static=step.is_static, recording=stream)
    return len(steps)

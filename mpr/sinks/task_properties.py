"""Encodes the properties of a task's recording: name, start time, `task` (how the task ran), `args` (its arguments).

A catalog server makes columns of the properties: `property:task:outcome`, `property:args:lr` and so on. All values are
typed Arrow arrays. The SDK itself would give a value the type of an earlier value with the same name in this process.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mpr.datasets.properties import PropertyTypes, typed
from mpr.rrd.segment import TaskInfo
from mpr.sdk import encoder

if TYPE_CHECKING:
    import rerun as rr

#: The entities of the properties that this module encodes.
ENTITIES = ("/__properties", "/__properties/task", "/__properties/args")
_OUTCOMES = {(False, False): "not finished", (True, False): "returned", (True, True): "raised"}


def outcome(task: TaskInfo) -> str:
    """Return how the attempt `task` has ended: 'returned', 'raised' or 'not finished'."""
    return _OUTCOMES[task.is_over, task.error is not None]


def encoded(
    recording_name: str,
    task: TaskInfo,
    types: PropertyTypes,
    said: Callable[[str], set[str]],
    more: Mapping[str, tuple[str, Any]],
) -> bytes:
    """Return an encoded stream with the properties of the recording of `task`.

    `types` has the types of the arguments. `said(entity)` returns the components that the task has set itself at an
    entity of properties. These components are left out. `more` has additional parts of the property `task`, as pairs
    (type, value). The stream has a placeholder as its store id, which the caller replaces.
    """
    columns = typed(
        {
            "function": ("str", task.name),
            "index": ("int64", task.index),
            "attempt": ("int64", task.attempt),
            "worker": ("int64", task.worker),
            "seconds": ("float64", task.seconds if task.is_over else None),
            "outcome": ("str", outcome(task)),
            "error": ("str", task.error),
            "host": ("str", socket.gethostname()),
            **more,
        }
    )
    arguments, misfits = ({}, None) if task.call is None else types.columns(task.call)
    if misfits is not None:
        columns |= typed({"args_text": ("str", misfits)})

    def write(stream: rr.RecordingStream) -> None:
        about = said("/__properties")
        if "RecordingInfo:name" not in about:
            stream.send_recording_name(recording_name)
        if "RecordingInfo:start_time" not in about:
            stream.send_recording_start_time_nanos(task.started_nanos)
        for name, arrays in (("task", columns), ("args", arguments)):
            own = said(f"/__properties/{name}")
            encoder.send_typed_property(stream, name, {key: each for key, each in arrays.items() if key not in own})

    return encoder.encoded_by_sdk(write)

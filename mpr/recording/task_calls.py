"""Describes the tasks of a pool for the sinks of its recording that write the rows of each task separately.

Covers: which sinks get descriptions.
Does not cover: the description of a call (`datasets/arguments.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mpr.recording.runtime import RecordingRuntime
from mpr.rrd.segment import TaskCall


class TaskCalls:
    """Describes the tasks that a pool submits, and gives the descriptions to the sinks of `runtime`.

    Any thread and any signal handler may call `describe`.
    """

    def __init__(self, runtime: RecordingRuntime) -> None:
        apart = any(sink.keeps_tasks_apart for sink in runtime.options.sinks)
        self._writers = list(runtime.writers) if apart else []

    def describe(self, function: Callable[..., Any], mode: int, items: Sequence[Any]) -> Sequence[TaskCall]:
        """Return a description of each task of a call, or nothing if no sink needs it. The sinks expect these tasks.

        `mode` and `items` say how `function` is called (see `Describe` in `scheduler/work_item.py`). Raises
        `ConfigError` if a sink cannot take these tasks.
        """
        if not self._writers:
            return ()
        from mpr.datasets import arguments

        calls = arguments.describe_calls(function, mode, items)
        for writer in self._writers:
            writer.expect(calls)
        return calls

"""Describes the tasks of a pool for the sinks of its recording that write the rows of each task separately.

Covers: which sinks get descriptions.
Does not cover: the description of a call (`datasets/arguments.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mpr.recording.runtime import RecordingRuntime
from mpr.rrd.segment import TaskCall


class TaskCalls:
    """Describes the tasks that a pool submits, and gives the descriptions to the sinks of the recording `runtime`.

    Any thread and any signal handler may call `describe`.
    """

    def __init__(self, runtime: RecordingRuntime) -> None:
        durable = [sink for sink in runtime.options.sinks if not sink.is_live]
        apart = [
            (sink, writer) for sink, writer in zip(durable, runtime.writers, strict=False) if sink.keeps_tasks_apart
        ]
        self._writers = [writer for _, writer in apart]
        self._with_digests = any(sink.needs_digests for sink, _ in apart)

    def describe(
        self,
        function: Callable[..., Any],
        name: str,
        mode: int,
        items: Sequence[Any],
        start: int | None = None,
        length: int | None = None,
    ) -> Sequence[TaskCall]:
        """Return a description of each task of a call, and give the descriptions to the sinks that need them.

        A description has `is_complete=True` if all these sinks have a complete recording of the task. If no sink needs
        descriptions, returns an empty tuple. The parameters are explained at `Describe` in `scheduler/work_item.py`.
        Raises `ConfigError` if a sink cannot take these tasks.
        """
        if not self._writers:
            return ()
        from mpr.datasets import arguments

        calls = arguments.describe_calls(
            function, name, mode, items, start=start, length=length, with_digests=self._with_digests
        )
        done = zip(*(writer.expect(calls) for writer in self._writers), strict=True)
        return [
            replace(call, is_complete=True) if all(flags) else call for call, flags in zip(calls, done, strict=True)
        ]

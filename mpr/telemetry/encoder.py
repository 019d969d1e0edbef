"""Encodes the telemetry of a pool with the SDK.

Covers: entity paths, timelines and components of the rows; `docs/telemetry.md` lists them for users.
Does not cover: which rows there are (`tracker.py`), and the classes of the rows (`rows.py`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mpr.blueprint.telemetry_names import INSIGHTS, ROOT, TASK_TIMELINE, TASKS, WORKER_CHARTS, WORKERS
from mpr.sdk import encoder
from mpr.telemetry.insights import Insights
from mpr.telemetry.rows import Rows, Sample, Span, StateRow

if TYPE_CHECKING:
    import rerun as rr


def encoded(rows: Rows, insights: Insights | None, pool: int, wall_offset_ns: int, kinds: frozenset[str]) -> bytes:
    """Encode rows and insights as a whole stream in the format of `.rrd` files.

    The ids of the recording in the stream are placeholders, which `RecordingRuntime.accept_telemetry` replaces.

    Parameters
    ----------
    rows:
        The rows, with times in nanoseconds of the monotonic clock.
    insights:
        The insights at the end of the pool, or None.
    pool:
        The number of the pool in its recording.
    wall_offset_ns:
        The nanoseconds to add to a monotonic time, to get the time since the Unix epoch.
    kinds:
        The kinds of telemetry that are recorded, out of `TELEMETRY`.

    Returns
    -------
    bytes
        The stream. It is empty if there are neither rows nor insights, or if logging is switched off.
    """

    def write(stream: rr.RecordingStream) -> None:
        _RowWriter(stream, pool, wall_offset_ns, kinds).write(rows)
        if insights is not None:
            _write_insights(stream, insights, f"{INSIGHTS}/{pool}")

    return encoder.encoded_by_sdk(write)


def _write_insights(stream: rr.RecordingStream, insights: Insights, path: str) -> None:
    import rerun as rr

    text = f"```\n{insights}\n```"
    stream.log(path, rr.TextDocument(text, media_type=rr.MediaType.MARKDOWN), static=True)
    for name, values in (("workers", insights.workers), ("slowest", insights.slowest)):
        if values:
            columns: dict[str, Any] = {key: [getattr(each, key) for each in values] for key in values[0].__slots__}
            stream.log(f"{path}/{name}", rr.AnyValues(drop_untyped_nones=True, **columns), static=True)


class _RowWriter:
    def __init__(self, stream: rr.RecordingStream, pool: int, wall_offset_ns: int, kinds: frozenset[str]) -> None:
        self._stream = stream
        self._pool = pool
        self._offset = wall_offset_ns
        self._kinds = kinds

    def write(self, rows: Rows) -> None:
        import rerun as rr

        for state_timeline, states in rows.state_timelines.items():
            self._write_states(state_timeline, states)
        for function, spans in rows.spans.items():
            self._write_spans(function, spans)
        by_function: dict[str, list[Any]] = {}
        for error in rows.errors:
            by_function.setdefault(error.function, []).append(error)
        for function, errors in by_function.items():
            self._send(
                _task_path(function),
                [each.at_ns for each in errors],
                [each.task for each in errors],
                rr.TextLog.columns(text=[each.text for each in errors], level=[rr.TextLogLevel.ERROR] * len(errors)),
            )
        if rows.samples:
            self._write_samples(rows.samples)
        if rows.names:
            self._write_names(rows.names)

    def _write_states(self, state_timeline: int, states: Sequence[StateRow]) -> None:
        import rerun as rr

        self._send(
            f"{WORKERS}/{state_timeline}",
            [each.at_ns for each in states],
            None,
            [*rr.StateChange.columns(state=[each.state for each in states])],
            [*rr.AnyValues.columns(worker=[each.worker for each in states])],
        )

    def _write_spans(self, function: str, spans: Sequence[Span]) -> None:
        import rerun as rr

        names = ("index", "attempt", "count", "rows", "data_bytes", "worker")
        seconds = [each.micros / 1e6 for each in spans]
        columns: dict[str, Any] = {name: [getattr(each, name) for each in spans] for name in names}
        columns |= {"task": [each.name for each in spans], "seconds": seconds}
        self._send(
            _task_path(function),
            [each.begin_ns for each in spans],
            [each.number for each in spans],
            # The columns are not `rr.Scalars`, because the viewer would then add a chart for each function.
            rr.AnyValues.columns(drop_untyped_nones=True, **columns),
        )

    def _write_names(self, names: Sequence[str]) -> None:
        import rerun as rr

        if "resources" in self._kinds:
            for name in WORKER_CHARTS:
                self._stream.log(f"{ROOT}/{name}/{self._pool}", rr.SeriesLines(names=names), static=True)
        if "pool" in self._kinds:
            lines = rr.SeriesLines(names=["waiting", "running"])
            self._stream.log(f"{ROOT}/queue/{self._pool}", lines, static=True)

    def _write_samples(self, samples: Sequence[Sample]) -> None:
        if "resources" in self._kinds:
            for name in WORKER_CHARTS:
                self._write_chart(f"{name}/{self._pool}", samples, operator.attrgetter(name))
        if "pool" in self._kinds:
            self._write_chart(f"throughput/{self._pool}", samples, lambda each: [each.throughput])
            self._write_chart(f"queue/{self._pool}", samples, lambda each: [each.waiting, each.running])
            self._write_chart("delivery/rows", samples, lambda each: [each.rows])
            self._write_chart("delivery/bytes", samples, lambda each: [each.data_bytes])

    def _write_chart(self, name: str, samples: Sequence[Sample], values: Callable[[Sample], list[float]]) -> None:
        import rerun as rr

        rows = [values(each) for each in samples]
        flat = [value for row in rows for value in row]
        columns = rr.Scalars.columns(scalars=flat).partition([len(row) for row in rows])
        self._send(f"{ROOT}/{name}", [each.at_ns for each in samples], None, columns)

    def _send(self, path: str, times: Sequence[int], tasks: Sequence[int] | None, *columns: Iterable[Any]) -> None:
        import numpy as np
        import rerun as rr

        stamps = (np.array(times, np.int64) + self._offset).astype("datetime64[ns]")
        indexes = [rr.TimeColumn("log_time", timestamp=stamps)]
        if tasks is not None:
            # Other rows do not get this timeline. The viewer begins with the timeline that has the most rows, and this
            # should be a timeline of the user.
            indexes.append(rr.TimeColumn(TASK_TIMELINE, sequence=tasks))
        rr.send_columns(path, indexes, [each for some in columns for each in some], recording=self._stream)


def _task_path(function: str) -> str:
    import rerun as rr

    return f"{TASKS}/{rr.escape_entity_path_part(function)}" if function else TASKS

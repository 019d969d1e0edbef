"""Collects the rows of a pool's telemetry until they are written into the recording.

Covers: leaving out the kinds of telemetry that the user does not want, and limiting the number of errors.
Does not cover: which rows are made for an event (`worker_timeline.py`, `tracker.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from mpr.telemetry.rows import ErrorRow, Rows, Sample, Span, StateRow

# The number of errors that are kept between two calls of `take`. The other errors are only counted.
_ERRORS = 100


class RowCollector:
    """Keeps the rows of a pool's telemetry until `take` returns them. `TelemetryTracker` holds a lock during each call.

    Parameters
    ----------
    kinds:
        The kinds of telemetry that are kept, out of `TELEMETRY` in `rows.py`.
    """

    def __init__(self, kinds: frozenset[str]) -> None:
        self._keeps_states = "workers" in kinds
        self._keeps_tasks = "tasks" in kinds
        self._rows = Rows()
        self._errors_left = _ERRORS

    def add_state(self, timeline: int, at_ns: int, state: str, worker: int) -> None:
        """Record in the state timeline `timeline` that the worker `worker` has the state `state` from `at_ns` on.

        `timeline` and `worker` are numbers. `at_ns` is in nanoseconds of the monotonic clock. Does nothing without the
        kind "workers".
        """
        if self._keeps_states:
            self._rows.state_timelines.setdefault(timeline, []).append(StateRow(at_ns, state, worker))

    def add_span(self, span: Span) -> None:
        """Keep `span` until the next `take`. Does nothing without the kind "tasks"."""
        if self._keeps_tasks:
            self._rows.spans.setdefault(span.function, []).append(span)

    def wants_error(self) -> bool:
        """Count one more error. Return True if the caller must add its row by `add_error`.

        Returns False without the kind "tasks", and after 100 errors since the last `take`.
        """
        if self._keeps_tasks:
            self._errors_left -= 1
        return self._keeps_tasks and self._errors_left >= 0

    def add_error(self, error: ErrorRow) -> None:
        """Keep `error` until the next `take`. Call this only if `wants_error` has returned True."""
        self._rows.errors.append(error)

    def add_sample(self, sample: Sample) -> None:
        self._rows.samples.append(sample)

    def set_names(self, names: Sequence[str]) -> None:
        """Set the names of the lines in the charts of workers: one name for each place of the pool."""
        self._rows.names = list(names)

    def take(self, now_ns: int, settled_count: int) -> Rows:
        """Return all rows since the last call.

        If there were more than 100 errors, one more row says how many have no row of their own. This row has the time
        `now_ns` (nanoseconds of the monotonic clock) and the task number `settled_count`.
        """
        if self._errors_left < 0:
            text = f"{-self._errors_left} more errors are not written down one by one"
            self.add_error(ErrorRow(now_ns, "", settled_count, text))
        self._errors_left = _ERRORS
        rows, self._rows = self._rows, Rows()
        return rows

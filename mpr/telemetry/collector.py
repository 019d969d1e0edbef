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
    """Keeps the rows of a pool's telemetry until `take` returns them.

    This class has no lock, because the tracker locks each call.

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
        """Let the state timeline with the number `timeline` show a new state from `at_ns` on.

        `state` is the state of the worker with the number `worker`. `at_ns` is a time in nanoseconds of the monotonic
        clock. Does nothing if telemetry of workers is not kept.
        """
        if self._keeps_states:
            self._rows.state_timelines.setdefault(timeline, []).append(StateRow(at_ns, state, worker))

    def add_span(self, span: Span) -> None:
        """Keep `span` itself, and no copy, until the next `take`. Do nothing if telemetry of tasks is not kept."""
        if self._keeps_tasks:
            self._rows.spans.setdefault(span.function, []).append(span)

    def wants_error(self) -> bool:
        """Count one more error. Return True if the caller must add the row of this error by `add_error`.

        Returns False if telemetry of tasks is not kept, or if 100 errors were counted since the last `take`.
        """
        if self._keeps_tasks:
            self._errors_left -= 1
        return self._keeps_tasks and self._errors_left >= 0

    def add_error(self, error: ErrorRow) -> None:
        """Keep `error` until the next `take`. Call this only after `wants_error`, which counts, has returned True."""
        self._rows.errors.append(error)

    def add_sample(self, sample: Sample) -> None:
        """Keep `sample` until the next `take`."""
        self._rows.samples.append(sample)

    def set_names(self, names: Sequence[str]) -> None:
        """Set the names of the lines in the charts of workers. `names` has one name for each place of the pool."""
        self._rows.names = list(names)

    def take(self, now_ns: int, settled_count: int) -> Rows:
        """Return all rows since the last call, and begin anew with no rows.

        If there were more than 100 errors, only 100 of them have a row. One more row then says how many others there
        were. This row has the time `now_ns` (nanoseconds of the monotonic clock) and the task number `settled_count`.
        """
        if self._errors_left < 0:
            text = f"{-self._errors_left} more errors are not written down one by one"
            self.add_error(ErrorRow(now_ns, "", settled_count, text))
        self._errors_left = _ERRORS
        rows, self._rows = self._rows, Rows()
        return rows

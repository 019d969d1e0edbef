"""Compares the rows that producers have counted with the rows that have reached the sinks.

The SDK writes a manifest at the end of each outbox, which says how many rows the outbox has. The producer sends its
count after the last bytes of the outbox. If the outboxes have fewer rows than the producer has counted, rows are lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpr.errors import FormatError

# The largest count that can be true. A process that logs a row in each microsecond needs nine years for it.
_ROWS_MAX = 1 << 48


def _check(rows: int) -> None:
    if rows > _ROWS_MAX:
        raise FormatError(f"an impossible number of rows: {rows}")


@dataclass(slots=True)
class RowTotals:
    """Counts rows of all producers of a recording.

    Attributes
    ----------
    counted, accepted:
        The rows that the producers have counted, and the rows that have reached the sinks. The second number may be
        higher, because a producer does not count every row (`producer/row_account.py`).
    lost:
        The rows that were counted and have not reached the sinks.
    """

    counted: int = 0
    accepted: int = 0
    lost: int = 0

    def loss(self) -> str:
        """Return a sentence about the rows that are lost; an empty text if none is lost."""
        if not self.lost:
            return ""
        rows = f"{self.lost} {'row' if self.lost == 1 else 'rows'} of {self.counted} that were logged"
        return f"{rows} did not come to the recording: see mpr's log and `/mpr/workers` in the recording"


class RowBalance:
    """Compares the rows that one producer has counted with its rows that have reached the sinks.

    Parameters
    ----------
    totals:
        The sums of the recording, to which this object adds.
    """

    def __init__(self, totals: RowTotals) -> None:
        self._totals = totals
        self._counted = self._accepted = 0
        # Whether the rows of all outboxes until now could be counted.
        self._is_known = True
        # The number of the last outbox whose rows were added.
        self._added = -1
        # How many tasks have given their results since the last comparison.
        self._results = 0

    def count(self, rows: int) -> None:
        """Note that the producer has counted `rows` rows in all its outboxes until now.

        Does nothing if an earlier call had a higher number. Raises `FormatError` if `rows` is above 2**48, because no
        process can log so many rows.
        """
        _check(rows)
        if rows > self._counted:
            self._totals.counted += rows - self._counted
            self._counted = rows

    def note_results(self, count: int) -> None:
        """Note that the results of `count` more tasks of the producer have arrived."""
        self._results += count

    def compare(self, outbox: int, rows: int | None) -> str:
        """Add the `rows` rows that have arrived from outbox number `outbox`. Compare the sum with the producer's count.

        `rows` is None if the number is unknown. A second call for the same outbox adds nothing. If rows are missing
        that were not reported before, returns a text such as '3 of its rows are lost (...)'. Returns an empty text if
        no rows are missing, or if the rows of any outbox until now are unknown.
        """
        if outbox > self._added:
            self._added = outbox
            self._is_known = self._is_known and rows is not None
            self._accepted += rows or 0
            self._totals.accepted += rows or 0
        missing, results, self._results = self._counted - self._accepted, self._results, 0
        if missing <= 0 or not self._is_known:
            return ""
        # Added, so that these missing rows are not reported again.
        self._accepted += missing
        self._totals.lost += missing
        return f"{missing} of its rows are lost (tasks with a result since the last check of its rows: {results})"


class TaskRecordingBalance:
    """Compares counted rows with arrived rows, for each recording that tasks of one producer have made.

    Parameters
    ----------
    totals:
        The sums of the recording, to which this object adds.
    """

    def __init__(self, totals: RowTotals) -> None:
        self._totals = totals
        # For each recording from which more rows have come than were counted: how many more. A row may come before it
        # is counted, and some rows are never counted.
        self._more: dict[int, int] = {}

    def compare(self, recording: int, counted: int, came: int) -> str:
        """Add `counted` and `came` to the two numbers of rows of recording number `recording`, and compare the sums.

        `counted` is how many more rows the producer has counted, and `came` is how many more rows have arrived. Returns
        a sentence about missing rows that were not reported before, or an empty text. Raises `FormatError` if `counted`
        is above 2**48, because no process can log so many rows.
        """
        _check(counted)
        self._totals.counted += counted
        self._totals.accepted += came
        more = self._more.pop(recording, 0) + came - counted
        if more > 0:
            self._more[recording] = more
        if more >= 0:
            return ""
        self._totals.lost -= more
        return f"{-more} rows of a recording that a task has made are lost"

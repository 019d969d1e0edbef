"""A signal handler of a task may raise at any moment within mpr: the rows of calls that returned are in the file."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import rerun as rr

import mpr
from mpr.producer import log_counters, outbox_writer
from tests import support

_OURS = str(Path(mpr.__file__).parent)
_CALLS = 6


class _Interrupted(BaseException):
    """Raised by the handler; the SDK lets it pass, unlike an `Exception`."""


class _RaisesInCall:
    """Raises once, at the `number`-th moment at which CPython may run a signal handler within mpr.

    These moments are the begin of a Python function, and the return of a C function (`ceval.c`).
    """

    def __init__(self, number: int) -> None:
        self.left = number
        self.place = ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(_OURS):
            self.left -= 1
            if not self.left:
                sys.setprofile(None)
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise _Interrupted


def _log_interrupted(first: int, moment: int) -> tuple[list[int], str]:
    """Log `_CALLS` rows, and raise at moment number `moment`. Returns the rows whose call has returned."""
    raises = _RaisesInCall(moment)
    returned = []
    sys.setprofile(raises)
    try:
        for number in range(first, first + _CALLS):
            try:
                rr.log("n", rr.Scalars(float(number)), rr.AnyValues(text="x" * 2_000))
            except _Interrupted:
                continue
            returned.append(number)
    finally:
        sys.setprofile(None)
    return returned, raises.place


@pytest.fixture
def rolls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are forked flush and change the outbox in each second call."""
    monkeypatch.setattr(log_counters, "CHECK_EVERY_BYTES", 3_500)
    monkeypatch.setattr(outbox_writer, "UNFLUSHED_MAX_BYTES", 1)
    monkeypatch.setattr(outbox_writer, "OUTBOX_ROLL_BYTES", 1)


@pytest.mark.usefixtures("rolls_often")
@pytest.mark.filterwarnings("ignore::rerun.error_utils.RerunWarning")
@pytest.mark.parametrize("inline", [False, True], ids=["shared memory", "in messages"])
def test_an_exception_at_any_moment_costs_no_row_of_a_call_that_returned(
    inline: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if inline:
        monkeypatch.setattr("mpr.aggregator.intake.OutboxReader", _refuse)
    path = tmp_path / "run.rrd"
    returned: list[int] = []
    places: Counter[str] = Counter()
    with (
        mpr.SharedRecording("app", sinks=path) as recording,
        mpr.Pool("app", 1, recording=recording, start_method="fork", telemetry=False) as pool,
    ):
        for moment in range(1, 2_000):
            rows, place = pool.apply(_log_interrupted, (1000 * moment, moment))
            returned += rows
            if not place:
                # The task has fewer moments, so each had its turn.
                break
            places[place.partition(":")[0]] += 1
    assert {"log_counters.py", "outbox_writer.py", "router.py", "announcer.py"} <= set(places)
    support.check_file(path)
    found = support.numbers(path)
    missing = [number for number in returned if not found[number]]
    assert missing == []
    assert max(found.values()) == 1
    assert recording.stats().lost_rows == 0


def _refuse(*_: object) -> None:
    raise PermissionError

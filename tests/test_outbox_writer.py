"""The outbox of a worker is changed, or cannot be written: the rows of a task that succeeds are all there."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rerun as rr

import mpr
from mpr.producer import log_counters, outbox_writer
from tests import support, tasks


@pytest.fixture
def rolls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are forked flush and change the outbox after each few kilobytes."""
    monkeypatch.setattr(log_counters, "CHECK_EVERY_BYTES", 3_500)
    monkeypatch.setattr(outbox_writer, "UNFLUSHED_MAX_BYTES", 1)
    monkeypatch.setattr(outbox_writer, "OUTBOX_ROLL_BYTES", 1)


class _Interrupted(BaseException):
    """Raised by a signal handler; the SDK lets it pass, unlike an `Exception`."""


def _interrupt(*_: object) -> None:
    raise _Interrupted


def _log_until(first: int, count: int) -> tuple[list[int], int]:
    """The numbers whose logging call has returned, and how many calls a signal has interrupted."""
    signal.signal(signal.SIGALRM, _interrupt)
    logged = []
    for number in range(first, first + count):
        try:
            rr.log("noise", rr.Tensor(np.zeros(1_000, np.uint8)))
            rr.log("n", rr.Scalars(float(number)))
            logged.append(number)
        except _Interrupted:
            pass
    return logged, count - len(logged)


@pytest.mark.usefixtures("rolls_often")
@pytest.mark.parametrize("place", ["worker.roll", "worker.opened", "worker.rolled"])
def test_a_signal_handler_that_raises_while_the_outbox_is_changed_costs_no_row_of_another_call(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.rrd"
    monkeypatch.setenv("MPR_FAILPOINTS", f"{place}@1:4:alrm")
    with mpr.Pool("app", 1, sinks=path, start_method="fork") as pool:
        logged, interrupted = pool.apply(_log_until, (0, 40))
        assert interrupted == 1
        # The worker goes on.
        assert pool.map(tasks.log_number, range(100, 110), chunksize=1) == list(range(100, 110))
    support.check_file(path)
    assert support.numbers(path) == Counter([*logged, *range(100, 110)])

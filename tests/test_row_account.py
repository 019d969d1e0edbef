"""The count of a process: only rows that certainly come to the parent count. And the numbers of the balance."""

from __future__ import annotations

import pytest
import rerun as rr

from mpr.aggregator.row_balance import RowBalance, RowTotals
from mpr.errors import FormatError
from mpr.producer.row_account import RowAccount
from mpr.transport.status_page import COUNTED_ROWS, FLUSHED_COUNTED_ROWS
from tests import support


def _account() -> RowAccount:
    stream = rr.RecordingStream("app", recording_id="account")
    account = RowAccount(memoryview(bytearray(4096)).cast("Q"), stream, is_on=True)
    assert account.handle is stream.inner
    return account


def test_rows_that_another_sink_gets_are_not_counted() -> None:
    account = _account()
    account.counters[COUNTED_ROWS] = 5
    account.detached()
    account.counters[COUNTED_ROWS] = 7
    # A task may choose a sink twice.
    account.detached()
    account.counters[COUNTED_ROWS] = 8
    assert account.settled() == 5
    account.attached()
    assert (account.settled(), account.counters[COUNTED_ROWS]) == (5, 5)
    account.counters[COUNTED_ROWS] = 6
    assert account.settled() == 6
    account.attached()
    assert account.settled() == 6


def test_a_flush_is_noted_for_the_parent() -> None:
    account = _account()
    account.counters[COUNTED_ROWS] = 5
    account.flushed(4)
    assert account.counters[FLUSHED_COUNTED_ROWS] == 4


def test_no_call_is_to_the_recording_if_nothing_is_to_be_counted() -> None:
    account = _account()
    handle = account.handle
    account.stop()
    assert account.handle is not handle
    stream = rr.RecordingStream("app", recording_id="off")
    off = RowAccount(memoryview(bytearray(4096)).cast("Q"), stream, is_on=False)
    assert off.handle is not stream.inner


def test_a_recording_that_is_switched_off_counts_nothing() -> None:
    source = """
import rerun as rr
from mpr.producer.row_account import RowAccount
stream = rr.RecordingStream("app")
account = RowAccount(memoryview(bytearray(4096)).cast("Q"), stream, is_on=True)
print(account.handle is stream.inner)
"""
    assert support.run_python(source, env={"RERUN": "off"}).stdout == "False\n"


def test_an_older_count_changes_nothing() -> None:
    totals = RowTotals()
    balance = RowBalance(totals)
    balance.count(10)
    balance.count(4)
    assert totals.counted == 10
    assert balance.compare(0, 7).startswith("3 of its rows are lost")


def test_a_count_that_no_process_reaches_is_damage() -> None:
    totals = RowTotals()
    balance = RowBalance(totals)
    with pytest.raises(FormatError, match="impossible"):
        balance.count(1 << 60)
    assert totals.counted == 0


def test_a_loss_says_how_many_results_it_may_concern() -> None:
    balance = RowBalance(RowTotals())
    balance.note_results(2)
    balance.count(1)
    assert balance.compare(0, 1) == ""
    balance.note_results(3)
    balance.note_results(4)
    balance.count(9)
    assert balance.compare(1, 2) == "6 of its rows are lost (tasks with a result since the last check of its rows: 7)"


def test_a_loss_in_words() -> None:
    assert RowTotals(counted=5, accepted=5).loss() == ""
    assert RowTotals(counted=5, accepted=4, lost=1).loss().startswith("1 row of 5 that were logged did not come")
    assert RowTotals(counted=5, accepted=3, lost=2).loss().startswith("2 rows of 5 that were logged did not come")

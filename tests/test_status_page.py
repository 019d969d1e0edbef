"""The numbers of a status page, as the parent reads them."""

from __future__ import annotations

import time
from pathlib import Path

from mpr.transport.status_page import ROWS, StatusPage, StatusPageReader


def test_waits_and_rows_are_counted(tmp_path: Path) -> None:
    page = StatusPage(tmp_path)
    reader = StatusPageReader(page.address, tmp_path)
    before = time.monotonic_ns()
    with page.back_pressure():
        since, earlier = reader.back_pressure()
        assert before <= since <= time.monotonic_ns()
        assert earlier == 0
    since, first = reader.back_pressure()
    assert (since, 0 < first <= time.monotonic_ns() - before) == (0, True)
    with page.back_pressure():
        assert reader.back_pressure()[1] == first
    assert reader.back_pressure()[1] > first
    page.counters[ROWS] = 7
    page.flushed(page.logged())
    page.counters[ROWS] = 9
    page.set_unsent_rows(3)
    assert (reader.rows(), reader.unflushed(), reader.unsent_rows()) == (9, 2, 3)
    reader.close()
    page.close()

"""Results of short tasks are sent together; none comes late because of that, and none is lost."""

from __future__ import annotations

import ctypes
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rerun as rr

import mpr
from mpr.aggregator import worker_memory
from mpr.transport import messages
from mpr.transport.messages import Hello, Ready, Result, SegmentReady
from mpr.transport.result_journal import ResultJournal
from mpr.transport.status_page import StatusPage
from tests import support, tasks

# After this many short tasks a worker has several at a time.
_WARM = 200


def _wait_for(path: Path | None) -> bool:
    if path is not None:
        tasks.wait_for_file(path)
    return path is None


def _read_and_keep_the_gil(fifo: Path | None) -> bool:
    """Wait until a byte is in `fifo`, in native code that lets no other thread run."""
    if fifo is not None:
        # A descriptor that is open for writing too does not wait for a writer.
        ctypes.PyDLL(None).read(os.open(fifo, os.O_RDWR), ctypes.create_string_buffer(1), 1)
    return fifo is None


def _log_or_die(number: int, dying: int, rows: int) -> int:
    rr.log("n", rr.Scalars(float(number)))
    if number == dying:
        for _ in range(rows - 1):
            rr.log("n", rr.Scalars(float(number)))
        stream = rr.get_global_data_recording()
        assert stream is not None
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _of_size(size: int) -> Any:
    return np.full(size, size % 251, np.uint8)


def _pool(path: Path, **options: Any) -> mpr.Pool:
    pool = mpr.Pool("app", 1, sinks=path, **options)
    pool.map(tasks.square, range(_WARM), chunksize=1)
    return pool


def test_a_result_does_not_wait_for_the_task_behind_it(tmp_path: Path) -> None:
    go_on = tmp_path / "go_on"
    with _pool(tmp_path / "run.rrd") as pool:
        results = pool.imap(_wait_for, [None, go_on], chunksize=1)
        assert results.next(timeout=30) is True
        go_on.touch()
        assert [False] == list(results)


def test_a_result_does_not_wait_for_native_code_that_keeps_the_gil(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = os.open(fifo, os.O_RDWR)
    try:
        with _pool(tmp_path / "run.rrd") as pool:
            for _ in range(3):
                results = pool.imap(_read_and_keep_the_gil, [None, fifo, None], chunksize=1)
                try:
                    assert results.next(timeout=30) is True
                finally:
                    os.write(writer, b"x")
                # The result comes once, although the worker also sends it as soon as it can.
                assert [False, True] == list(results)
    finally:
        os.close(writer)


def test_only_the_task_that_takes_too_long_fails_if_it_keeps_the_gil(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with _pool(tmp_path / "run.rrd", task_timeout=1.0) as pool:
        results = pool.imap(_read_and_keep_the_gil, [None, fifo, None], chunksize=1)
        assert next(results) is True
        with pytest.raises(mpr.TaskTimeoutError, match=r"_read_and_keep_the_gil\[1\]"):
            next(results)
        assert next(results) is True


@pytest.mark.parametrize("dying", range(0, 24, 3))
def test_a_death_fails_one_task_and_its_error_counts_the_rows_of_no_other(dying: int, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with _pool(path) as pool:
        futures = [pool.submit(_log_or_die, number, dying, 3) for number in range(24)]
        with pytest.raises(mpr.WorkerDiedError) as caught:
            futures.pop(dying).result(60)
        assert [number for number in range(24) if number != dying] == [future.result(60) for future in futures]
    assert 3 == caught.value.rows
    support.check_file(path)
    assert Counter({float(number): 1 for number in range(24)} | {float(dying): 3}) == support.numbers(path)


def test_results_of_all_sizes_come_in_order(tmp_path: Path) -> None:
    sizes = [0, 10, 4_000, 5_000, 100_000, 20, 9_000_000, 30, 40, 70_000] * 4
    with _pool(tmp_path / "run.rrd") as pool:
        for size, result in zip(sizes, pool.imap(_of_size, sizes, chunksize=1), strict=True):
            assert np.array_equal(result, _of_size(size))


def test_the_journal_of_a_worker_is_read_only_after_every_message_it_sent_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_memory, "_LATE_NANOS", -1)
    status_page = StatusPage(tmp_path)
    producer = support.intake_of(Hello("secret", 1, os.getpid(), "route", "", status_page.address), tmp_path)
    status_page.begin_work_item(1, 0)
    assert 0 == producer.overdue_result()
    result = Result(1, 0, 1, messages.RETURNED, True, 5, [b"x"], number=7)
    ResultJournal(status_page).write(result, SegmentReady(0, 0, 0), 2, parent_reads=True)
    # The hello has arrived, and later messages have not.
    assert 0 == producer.overdue_result()
    producer.take(Ready())
    assert 7 == producer.overdue_result()
    producer.take(result)
    assert 0 == producer.overdue_result()
    producer.close()
    assert 0 == producer.overdue_result()
    status_page.close()

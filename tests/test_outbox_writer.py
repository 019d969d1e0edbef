"""The outbox of a worker is changed, or cannot be written: the rows of a task that succeeds are all there."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rerun as rr

import mpr
from mpr.producer import log_counters, outbox_writer, sink_changes
from tests import support, tasks


@pytest.fixture
def rolls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make forked workers flush and change the outbox after a few kilobytes."""
    monkeypatch.setattr(log_counters, "CHECK_EVERY_BYTES", 3_500)
    monkeypatch.setattr(outbox_writer, "UNFLUSHED_MAX_BYTES", 1)
    monkeypatch.setattr(outbox_writer, "OUTBOX_ROLL_BYTES", 1)


class _Interrupted(BaseException):
    """Raised by a signal handler; the SDK lets it pass, unlike an `Exception`."""


def _interrupt(*_: object) -> None:
    raise _Interrupted


def _log_until(first: int, count: int) -> tuple[list[int], int]:
    """Return the numbers whose logging call has returned, and how many calls a signal has interrupted."""
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


# --- the SDK cannot write ------------------------------------------------------------------------------------------


def _outbox_size() -> int:
    """Return the size of the outbox that the SDK writes into, which is the largest file in memory."""
    sizes = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(link).startswith("/memfd:mpr-outbox"):
                sizes.append(link.stat().st_size)
    return max(sizes)


def _allow_no_more(number: int) -> None:
    """Log a row that is larger than the status page, and let no file of this process become any larger."""
    rr.log("noise", rr.Tensor(np.random.default_rng(number).integers(0, 255, 400_000, np.uint8)))
    tasks.log_number(number)
    stream = rr.get_global_data_recording()
    assert stream is not None
    stream.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (_outbox_size() + 5, resource.RLIM_INFINITY))


def _log_without_room_for_the_manifest(number: int) -> int:
    _allow_no_more(number)
    return number


def _log_without_room_for_rows(number: int, secs: float) -> int:
    """Log rows that end the writing thread of the SDK, before the SDK is flushed or meanwhile."""
    _allow_no_more(number)
    for _ in range(5):
        rr.log("noise", rr.Tensor(np.zeros(1_000_000, np.uint8)))
        time.sleep(secs)
    return number


@pytest.fixture
def a_dead_writer_is_noticed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_writer, "FLUSH_LOOK_SECS", 0.2)
    monkeypatch.setattr(outbox_writer, "FLUSH_SILENT_SECS", 1.0)


# What the end of a recording raises if rows are missing.
_MISSING = r"rows? of \d+ that were logged did not come to the recording"


def _fails_alone(
    path: Path, end: contextlib.AbstractContextManager[object], task: Callable[..., int], *args: float
) -> None:
    """Check that `task` fails because its rows are lost, and that the tasks before and behind it have theirs.

    The pool ends within `end`.
    """
    with end, mpr.Pool("app", 1, sinks=path, start_method="fork") as pool:
        assert pool.map(tasks.log_number, range(5), chunksize=1) == list(range(5))
        with pytest.raises(mpr.DeliveryError, match=r"worker 1 \(pid \d+\) cannot bring its rows to the recording: "):
            pool.apply(task, (50, *args))
        assert pool.map(tasks.log_number, range(5, 10), chunksize=1) == list(range(5, 10))
    support.check_file(path)
    found = support.numbers(path)
    found.pop(50, None)
    assert found == Counter(range(10))


def test_a_manifest_that_the_sdk_cannot_write_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_writer, "OUTBOX_ROLL_BYTES", 300_000)
    _fails_alone(tmp_path / "run.rrd", contextlib.nullcontext(), _log_without_room_for_the_manifest)


@pytest.mark.usefixtures("a_dead_writer_is_noticed_soon")
@pytest.mark.parametrize("secs", [0.0, 0.3])
def test_rows_that_the_sdk_cannot_write_are_an_error_within_a_bound(secs: float, tmp_path: Path) -> None:
    started = time.monotonic()
    end = pytest.raises(mpr.DeliveryError, match=_MISSING)
    _fails_alone(tmp_path / "run.rrd", end, _log_without_room_for_rows, secs)
    assert time.monotonic() - started < 60


@mpr.task
def _log_in_joined_process(number: int) -> None:
    # The fork server does not have the low limits of this test.
    outbox_writer.FLUSH_LOOK_SECS, outbox_writer.FLUSH_SILENT_SECS = 0.2, 1.0
    _log_without_room_for_rows(number, 0.3)


def test_a_joined_process_whose_rows_cannot_be_written_fails_and_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.rrd"
    with pytest.raises(mpr.DeliveryError, match=_MISSING), mpr.SharedRecording("app", sinks=path) as recording:
        recording.stream.log("n", rr.Scalars(1.0))
        child = multiprocessing.get_context("spawn").Process(target=_log_in_joined_process, args=(50,))
        child.start()
        child.join(60)
        assert child.exitcode == 1
    assert "DeliveryError: rows of this process" in capfd.readouterr().err
    support.check_file(path)
    assert support.numbers(path)[1] == 1


def _log_and_end_without_room() -> None:
    outbox_writer.FLUSH_LOOK_SECS, outbox_writer.FLUSH_SILENT_SECS = 0.2, 1.0
    mpr.join()
    _allow_no_more(50)
    tasks.log_number(51)


def test_a_process_whose_last_rows_cannot_be_written_ends_and_the_loss_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with pytest.raises(mpr.DeliveryError, match=_MISSING), mpr.SharedRecording("app", sinks=path) as recording:
        child = multiprocessing.get_context("spawn").Process(target=_log_and_end_without_room)
        child.start()
        child.join(60)
        assert child.exitcode == 0
    assert recording.stats().lost_rows == 1
    support.check_file(path)
    assert support.numbers(path) == {50: 1}


def _log_to_a_viewer_that_takes_nothing(port: int) -> None:
    rr.connect_grpc(f"rerun+http://127.0.0.1:{port}/proxy")
    tasks.log_number(50)


@pytest.mark.parametrize("route", ["funnel", "direct"])
def test_a_sink_of_a_task_that_takes_nothing_costs_only_its_worker(
    route: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_changes, "SINK_CHANGE_SECS", 2.0)
    path = tmp_path / "run.rrd"
    with socket.socket() as viewer:
        viewer.bind(("127.0.0.1", 0))
        viewer.listen()
        with (
            mpr.SharedRecording("app", sinks=path, route=route) as recording,
            mpr.Pool("app", 1, recording=recording, start_method="fork") as pool,
        ):
            with pytest.raises(mpr.DeliveryError, match="for the end of its last sink"):
                pool.apply_async(_log_to_a_viewer_that_takes_nothing, (viewer.getsockname()[1],)).get(60)
            assert pool.map(tasks.log_number, range(5)) == list(range(5))
    assert support.numbers(path) == Counter(range(5))


def test_an_error_of_a_signal_handler_within_the_sdk_is_not_one_of_the_sdk() -> None:
    def within_the_sdk() -> None:
        raise RuntimeError("a handler")

    with pytest.raises(RuntimeError) as caught:
        within_the_sdk()
    assert not outbox_writer.is_raised_by_sdk(caught.value)

"""Pairs of modes that a fault needs, each with the outcome that only a whole run shows."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import rerun as rr
import rerun.blueprint as rrb

import mpr
from mpr.producer import log_counters, outbox_writer
from mpr.rrd import framing, store_id
from tests import functions, support, tasks


def _refuse(*_: object) -> None:
    raise PermissionError


def test_bytes_in_messages_and_outboxes_that_change_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpr.aggregator.intake.OutboxReader", _refuse)
    monkeypatch.setattr(outbox_writer, "OUTBOX_ROLL_ROWS", 3)
    monkeypatch.setattr(log_counters, "CHECK_EVERY_BYTES", 1)
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method="fork") as pool:
        assert pool.map(tasks.log_number, range(40), chunksize=4) == list(range(40))
    support.check_file(path)
    assert support.numbers(path) == Counter(range(40))


def test_the_last_rows_of_a_process_come_in_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpr.aggregator.intake.OutboxReader", _refuse)
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        # Nothing flushes this row before the recording is closed.
        recording.stream.log("n", rr.Scalars(7.0))
    support.check_file(path)
    assert support.numbers(path) == Counter([7])
    assert recording.stats().accepted_rows == 1


def test_a_worker_that_is_killed_between_tasks_has_lost_nothing(tmp_path: Path) -> None:
    with (
        mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording,
        mpr.Pool("app", 1, recording=recording, start_method="fork") as pool,
    ):
        pool.apply(tasks.log_number, (1,))
        first = pool.apply(tasks.pid)
        os.kill(first, signal.SIGKILL)
        # A task that was sent to the dead worker has not begun, so it runs in the next one.
        assert pool.apply(tasks.pid) != first
    assert recording.stats().torn_processes == 0
    assert recording.stats().lost_rows == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_decorated_task_that_forks_and_calls_another_one(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        functions.log_here_and_in_a_child(0, "fork")
    support.check_file(path)
    assert support.numbers(path) == Counter(range(3))


def test_no_time_of_a_task_is_on_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method="fork") as pool:
        pool.apply(tasks.set_a_time, (0,))
        pool.apply(tasks.log_without_time, (0,))
    times = {cell.entity: cell.times for cell in support.cells(path)}
    assert times == {"/first": (("only_first", 1),), "/second": ()}


def _log_and_die_once(number: int, marker: Path) -> int:
    tasks.log_number(number)
    if number == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    task = mpr.current_task()
    assert task is not None
    return task.attempt


def test_only_tasks_that_run_again_have_a_higher_attempt(tmp_path: Path) -> None:
    folder = tmp_path / "episodes"
    sink = mpr.DirectorySink(path=folder, name="{index:d}-{attempt}.rrd")
    with mpr.Pool("app", 1, sinks=sink, start_method="fork", retries=1) as pool:
        items = [(number, tmp_path / "marker") for number in range(5)]
        assert pool.starmap(_log_and_die_once, items, chunksize=5) == [1, 1, 2, 1, 1]
    names = {path.name for path in folder.glob("*.rrd") if support.numbers(path)}
    assert {"0-1.rrd", "1-1.rrd", "2-2.rrd", "3-1.rrd", "4-1.rrd"} <= names
    assert names <= {"0-1.rrd", "1-1.rrd", "2-1.rrd", "2-2.rrd", "3-1.rrd", "4-1.rrd"}


def _log_and_send_blueprint(number: int) -> None:
    tasks.log_number(number)
    rr.send_blueprint(rrb.Blueprint(rrb.TimeSeriesView(origin="n")))
    tasks.log_number(number + 100)


@pytest.mark.parametrize("recording_id", ["short", "ö" * 60])
def test_tasks_with_a_blueprint_and_a_file_each(recording_id: str, tmp_path: Path) -> None:
    folder = tmp_path / "episodes"
    sink = mpr.DirectorySink(path=folder, name="{index}.rrd")
    with mpr.Pool("app", 1, sinks=sink, recording_id=recording_id, start_method="fork") as pool:
        pool.map(_log_and_send_blueprint, range(3), chunksize=2)
    for number in range(3):
        path = folder / f"{number}.rrd"
        support.check_file(path)
        assert support.numbers(path) == Counter([number, number + 100])
        assert _stores(path) == {True, False}
        assert framing.BLUEPRINT_ACTIVATION in [frame.kind for frame in framing.frames_of(path.read_bytes())]


def _stores(path: Path) -> set[bool]:
    """Return whether the chunks of a file belong to a recording, for each kind of store."""
    data = path.read_bytes()
    chunks = [frame for frame in framing.frames_of(data) if frame.kind == framing.ARROW_MSG]
    return {store_id.is_recording(store_id.store_id_of_chunk(data[each.payload : each.end])) for each in chunks}

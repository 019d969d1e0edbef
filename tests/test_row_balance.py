"""The account of rows: all that processes have logged has come, and a difference is reported, whatever its cause."""

from __future__ import annotations

import contextlib
import inspect
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rerun as rr
import rerun.blueprint as rrb
from hypothesis import given
from hypothesis import strategies as st

import mpr
from mpr.aggregator.row_balance import RowBalance, RowTotals
from mpr.producer import log_counters, outbox_writer, router
from tests import support, tasks

# --- every way of logging: nothing is lost, so nothing is reported ------------------------------------------------


def _plain(number: int) -> int:
    tasks.log_number(number)
    return 1


def _static(number: int) -> int:
    for _ in range(3):
        rr.log(f"static/{number}", rr.TextLog("x"), static=True)
    return 3


def _columns(number: int) -> int:
    rr.send_columns(f"c/{number}", [rr.TimeColumn("step", sequence=range(5))], rr.Scalars.columns(scalars=np.arange(5)))
    rr.send_columns(f"s/{number}", [], rr.Scalars.columns(scalars=[1.0]))
    return 6


def _without_components(number: int) -> int:
    # The SDK drops such a row, with a warning.
    rr.log(f"nothing/{number}", rr.Points3D.from_fields())
    return 0


def _bad_value(number: int) -> int:
    # An error in strict mode, otherwise the SDK logs a warning of its own.
    with contextlib.suppress(Exception):
        rr.log("bad", rr.Points3D("no number"))
    return 0


def _in_threads(number: int) -> int:
    threads = [threading.Thread(target=tasks.log_number, args=(10 * number + index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 4


def _uncounted(number: int) -> int:
    """Calls whose rows are not counted, but come."""
    rr.send_property(f"property{number}", rr.AnyValues(a=1))
    rr.send_recording_name(f"name {number}")
    rr.log_file_from_contents(f"note{number}.txt", b"hello")
    rr.send_blueprint(rrb.Blueprint(rrb.TimeSeriesView()))
    return 1


def _other_recording(number: int) -> int:
    with rr.RecordingStream("other", recording_id=f"other{number}"):
        tasks.log_number(number)
    return 0


def _other_recording_by_argument(number: int) -> int:
    other = rr.RecordingStream("other", recording_id=f"other{number}")
    rr.log("n", rr.Scalars(1.0), recording=other)
    return 0


def _other_recording_as_the_default(number: int) -> int:
    before = rr.get_global_data_recording()
    other = rr.RecordingStream("other", recording_id=f"other{number}")
    rr.set_global_data_recording(other)
    tasks.log_number(number)
    rr.set_global_data_recording(before)
    return 0


def _other_sink(number: int) -> int:
    tasks.log_number(number)
    rr.save(os.devnull)
    tasks.log_number(number)
    return 1


_WAYS: dict[Callable[[int], int], bool] = {
    # Whether the rows are counted exactly.
    _plain: True,
    _static: True,
    _columns: True,
    _without_components: True,
    _bad_value: False,
    _in_threads: True,
    _uncounted: False,
    _other_recording: False,
    _other_recording_by_argument: False,
    _other_recording_as_the_default: False,
    _other_sink: True,
}


@pytest.mark.filterwarnings("ignore::rerun.error_utils.RerunWarning")
@pytest.mark.parametrize(
    ("way", "start_method"),
    [
        *((way, "fork") for way in _WAYS),
        *((way, method) for way in (_plain, _other_sink) for method in ("forkserver", "spawn")),
    ],
    ids=lambda each: each if isinstance(each, str) else each.__name__.strip("_"),
)
def test_no_way_of_logging_looks_like_a_loss(way: Callable[[int], int], start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        with mpr.Pool("app", 2, recording=recording, start_method=start_method) as pool:
            rows = sum(pool.map(way, range(6), chunksize=2))
        # A second pool, so that a worker that has ended and one that begins are in one account.
        with mpr.Pool("app", 1, recording=recording, start_method=start_method) as pool:
            rows += sum(pool.map(way, [6]))
    stats = recording.stats()
    assert stats.lost_rows == 0
    assert stats.counted_rows <= stats.accepted_rows
    if _WAYS[way]:
        assert (rows, rows) == (stats.counted_rows, stats.accepted_rows)
    assert _verified(path) == 0


def test_a_task_that_rolls_its_outbox_often_has_a_whole_account(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(log_counters, "CHECK_EVERY_BYTES", 3_500)
    monkeypatch.setattr(outbox_writer, "UNFLUSHED_MAX_BYTES", 1)
    monkeypatch.setattr(outbox_writer, "OUTBOX_ROLL_BYTES", 1)
    with (
        mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording,
        mpr.Pool("app", 2, recording=recording, start_method="fork") as pool,
    ):
        assert pool.map(_log_many, [500] * 4) == [500] * 4
    assert (2000, 2000, 0) == _numbers(recording)
    assert _verified(tmp_path / "run.rrd") == 0


def _log_many(count: int) -> int:
    for number in range(count):
        rr.log("n", rr.Scalars(float(number)), rr.AnyValues(text="x" * 100))
    return count


def test_workers_that_are_killed_lose_only_what_was_not_flushed(tmp_path: Path) -> None:
    with (
        mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording,
        mpr.Pool("app", 2, recording=recording) as pool,
    ):
        calls = [tasks.log_and_die if number % 3 == 0 else tasks.log_number for number in range(9)]
        results = [pool.apply_async(call, (number,)) for number, call in enumerate(calls)]
        for number, result in enumerate(results):
            if number % 3 == 0:
                with pytest.raises(mpr.WorkerDiedError):
                    result.get()
            else:
                assert result.get() == number
    assert recording.stats().lost_rows == 0
    assert _verified(tmp_path / "run.rrd") == 0


def test_a_decorated_function_in_another_process_is_counted(tmp_path: Path) -> None:
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        support.run_python("from tests import functions\nfor n in range(5): functions.log_number(n)\n")
    assert (5, 5, 0) == _numbers(recording)
    assert Counter(range(5)) == support.numbers(tmp_path / "run.rrd")


def test_nothing_is_counted_if_logging_is_switched_off() -> None:
    source = """
import mpr
from tests import tasks
if __name__ == "__main__":
    with mpr.SharedRecording("app", sinks="/dev/null/never.rrd") as recording:
        with mpr.Pool("app", 1, recording=recording) as pool:
            print(pool.map(tasks.log_number, range(3)))
    stats = recording.stats()
    print(stats.counted_rows, stats.accepted_rows, stats.lost_rows)
"""
    done = support.run_python(source, env={"RERUN": "off"})
    assert (0, "[0, 1, 2]\n0 0 0\n") == (done.returncode, done.stdout)


# --- rows that are lost behind mpr's back -------------------------------------------------------------------------


def _log_past_the_outbox(number: int) -> int:
    """Log three rows into another file, which the SDK is given behind mpr's back."""
    import rerun_bindings

    producer = router.producer()
    assert producer is not None
    tasks.log_number(number)
    inspect.unwrap(rerun_bindings.save)(path=os.devnull, recording=producer.stream.inner)
    for _ in range(3):
        tasks.log_number(number)
    return number


def test_lost_rows_are_reported_however_they_were_lost(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    recording = mpr.SharedRecording("app", sinks=path)
    with mpr.Pool("app", 1, recording=recording) as pool:
        assert pool.apply(tasks.log_number, (0,)) == 0
        pool.apply(_log_past_the_outbox, (1,))
    with pytest.raises(mpr.DeliveryError, match="3 rows of 5 that were logged did not come"):
        recording.close()
    assert (5, 2, 3) == _numbers(recording)
    assert "3 of its rows are lost" in caplog.text
    notes = [each.text for each in support.texts(path) if each.entity == "/mpr/workers"]
    assert any("3 of its rows are lost" in note for note in notes)
    assert Counter([0, 1]) == support.numbers(path)
    assert _verified(path) == 1


def test_a_result_after_a_loss_fails_and_the_worker_is_replaced(tmp_path: Path) -> None:
    sinks = [mpr.DirectorySink(path=tmp_path / "episodes"), tmp_path / "run.rrd"]
    recording = mpr.SharedRecording("app", sinks=sinks)
    with mpr.Pool("app", 1, recording=recording) as pool:
        # Each task has an outbox of its own here, so the loss is noticed before the result.
        with pytest.raises(mpr.DeliveryError, match="of its rows are lost"):
            pool.apply(_log_past_the_outbox, (1,))
        assert pool.apply(tasks.log_number, (2,)) == 2
    with pytest.raises(mpr.DeliveryError, match="3 rows of 5"):
        recording.close()
    assert Counter([1, 2]) == support.numbers(tmp_path / "run.rrd")


def _die_after_a_loss(number: int) -> int:
    _log_past_the_outbox(number)
    rr.get_global_data_recording().flush()  # type: ignore[union-attr]  # a worker has one
    return number


def test_a_loss_is_noticed_at_the_death_of_the_worker_too(tmp_path: Path) -> None:
    recording = mpr.SharedRecording("app", sinks=tmp_path / "run.rrd")
    with mpr.Pool("app", 1, recording=recording) as pool:
        assert pool.apply(_log_past_the_outbox, (1,)) == 1
        with pytest.raises(mpr.WorkerDiedError):
            pool.apply(tasks.die, (0,))
    with pytest.raises(mpr.DeliveryError, match="3 rows of 4"):
        recording.close()


# Tasks of a process that has joined. It has no pool that could replace it, so it goes on after a loss.
_TASKS_AROUND_A_LOSS = """
import os, sys, threading
import mpr
from mpr.producer import outbox_writer
from tests import tasks, test_row_balance as t

# So that each task has an outbox of its own.
outbox_writer.OUTBOX_ROLL_ROWS = 1

@mpr.task
def whole(number):
    tasks.log_number(number)
    return tasks.log_number(number + 100)

@mpr.task
def lossy(number):
    tasks.log_number(number)
    return t._log_past_the_outbox(number)

@mpr.task
async def whole_in_loop(number):
    return tasks.log_number(number)

@mpr.task
def around(number):
    tasks.log_number(number)
    print("within", outcome_of(lossy_in_thread, number))
    return number

def lossy_in_thread(number):
    raised = []
    thread = threading.Thread(target=lambda: raised.append(outcome_of(lossy, number)))
    thread.start()
    thread.join()
    return raised[0]

def outcome_of(call, number):
    try:
        return call(number)
    except mpr.DeliveryError as error:
        return "of its rows are lost" in str(error)

def main():
    import asyncio
    print(*[outcome_of(call, number) for number, call in enumerate((whole, lossy, whole, whole, lossy, whole))])
    print(outcome_of(lambda number: asyncio.run(whole_in_loop(number)), 6))
    print("around", outcome_of(around, 7))
    print(outcome_of(whole, 8))

main()
"""


def test_after_a_loss_in_a_joined_process_only_the_tasks_that_it_concerns_fail(tmp_path: Path) -> None:
    recording = mpr.SharedRecording("app", sinks=tmp_path / "run.rrd")
    done = support.run_python(_TASKS_AROUND_A_LOSS, env=recording.environ())
    # The loss within another thread may concern the task that runs at the same time, too.
    expected = ["100 True 102 103 True 105", "6", "within True", "around True", "108"]
    assert done.stdout.splitlines() == expected, done.stderr
    with pytest.raises(mpr.DeliveryError, match="9 rows"):
        recording.close()
    assert recording.stats().lost_rows == 9


# --- the balance itself -------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=8))
def test_each_missing_row_is_reported_once(outboxes: list[tuple[int, int]]) -> None:
    totals = RowTotals()
    balance = RowBalance(totals)
    counted = accepted = reported = 0
    for number, (logged, came) in enumerate(outboxes):
        counted += logged
        accepted += came
        balance.count(counted)
        text = balance.compare(number, came)
        missing = max(0, counted - accepted - reported)
        assert (f"{missing} of its rows" in text) == bool(missing)
        assert balance.compare(number, came) == ""
        reported += missing
    assert (totals.counted, totals.accepted, totals.lost) == (counted, accepted, reported)


def test_an_outbox_that_cannot_be_counted_is_no_loss() -> None:
    totals = RowTotals()
    balance = RowBalance(totals)
    balance.count(10)
    assert balance.compare(0, None) == ""
    assert balance.compare(1, 3) == ""
    assert totals.lost == 0


# --- a finished file ----------------------------------------------------------------------------------------------


def _numbers(recording: mpr.SharedRecording) -> tuple[int, int, int]:
    stats = recording.stats()
    return stats.counted_rows, stats.accepted_rows, stats.lost_rows


def _verify(*paths: Path) -> Any:
    command = [sys.executable, "-m", "mpr", "verify", *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _verified(path: Path) -> int:
    return int(_verify(path).returncode)


def test_a_file_is_verified_against_the_number_of_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        pool.map(tasks.log_number, range(20))
    done = _verify(path)
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.endswith("rows with times, none is missing\n")


@pytest.mark.parametrize(
    "damage", ["entity dropped", "cut", "not finished", "not of mpr", "missing", "text", "empty", "FIFO"]
)
def test_a_file_that_is_not_whole_is_found(damage: str, tmp_path: Path) -> None:
    path, damaged = tmp_path / "run.rrd", tmp_path / "damaged.rrd"
    with mpr.Pool("app", 2, sinks=mpr.FileSink(path=path, write_footer=damage != "not finished")) as pool:
        pool.map(tasks.log_number, range(20))
    expected = {
        "entity dropped": (1, "when the recording was closed"),
        "cut": (2, "mpr verify: "),
        "not finished": (2, "mpr verify: "),
        "not of mpr": (2, "does not say how many"),
        "missing": (2, "No such file"),
        "text": (2, "mpr verify: "),
        "empty": (2, "mpr verify: "),
        "FIFO": (2, "it is a FIFO, and not a regular file"),
    }[damage]
    if damage == "entity dropped":
        assert support.rerun_cli("rrd", "filter", "--drop-entity", "/n", path, "-o", damaged).returncode == 0
    elif damage == "cut":
        damaged.write_bytes(path.read_bytes()[:-1000])
    elif damage == "not finished":
        damaged.write_bytes(path.read_bytes())
    elif damage == "not of mpr":
        with rr.RecordingStream("app") as stream:
            stream.save(damaged)
            tasks.log_number(1)
            stream.disconnect()
    elif damage == "text":
        damaged.write_text("no recording")
    elif damage == "empty":
        damaged.touch()
    elif damage == "FIFO":
        os.mkfifo(damaged)
    done = _verify(damaged)
    assert (expected[0], "") == (done.returncode, done.stdout if expected[1].startswith("mpr") else "")
    assert expected[1] in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_recording_without_telemetry_has_no_row_of_mpr(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, telemetry=False) as pool:
        pool.map(tasks.log_number, range(4))
    assert {"/n", "/__properties"} == {str(chunk.entity_path) for chunk in support.chunks(path)}
    assert "had no pool with telemetry" in _verify(path).stdout

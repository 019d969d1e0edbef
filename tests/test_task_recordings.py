"""Recordings that tasks make themselves, without a sink: their rows are beside the file, under their own ids."""

from __future__ import annotations

import gc
import inspect
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rerun as rr
import rerun_bindings

import mpr
from mpr.producer import log_counters, outbox_writer
from mpr.sinks import per_recording
from tests import support, tasks

MB = 1_000_000


def _ids(path: Path) -> tuple[str, str]:
    (entry,) = rr.chunk.RrdReader(path).recordings()
    return entry.application_id, entry.recording_id


def test_a_task_recording_is_a_file_beside_the_shared_one(
    start_method: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        for number in range(4):
            pool.apply(tasks.log_to_unsaved_recording, (number,))
            other_file = tmp_path / f"run-own_{number}.rrd"
            # The rows of a result are in the file when the result is there.
            assert support.numbers_of_growing(other_file) == Counter([number, 100 + number])
    support.check_file(path)
    assert support.numbers(path) == Counter([*range(4), *range(200, 204)])
    for number in range(4):
        other_file = tmp_path / f"run-own_{number}.rrd"
        support.check_file(other_file)
        assert _ids(other_file) == ("own app", f"own/{number}")
        assert support.numbers(other_file) == Counter([number, 100 + number])
        assert caplog.text.count(other_file.name) == 1
    assert sorted(pool.recording.paths) == sorted(tmp_path.iterdir())


def _log_to_two_with(applications: tuple[str, str]) -> None:
    one, two = (rr.RecordingStream(each, recording_id="episode", send_properties=False) for each in applications)
    for number in range(3):
        one.log("n", rr.Scalars(float(number)))
        with two:
            rr.log("n", rr.Scalars(10.0 + number))


@pytest.mark.parametrize("applications", [("one", "two"), ("one", "one")])
def test_two_recordings_with_the_same_recording_id_lose_nothing(applications: Any, tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        pool.apply(_log_to_two_with, (applications,))
    others = sorted(tmp_path.glob("run-episode*.rrd"))
    assert {_ids(path) for path in others} == {(each, "episode") for each in applications}
    found = sum((support.numbers(path) for path in others), Counter())
    assert found == Counter([*range(3), *range(10, 13)])


def _save_one_of_two(path: Path) -> None:
    one, two = (rr.RecordingStream("own", recording_id="episode", send_properties=False) for _ in range(2))
    one.log("n", rr.Scalars(1.0))
    two.log("n", rr.Scalars(2.0))
    one.save(path)
    with one:
        rr.log("n", rr.Scalars(3.0))


def test_a_sink_for_one_of_two_recordings_with_the_same_ids_leaves_the_other_to_mpr(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        pool.apply(_save_one_of_two, (tmp_path / "saved.rrd",))
    assert support.numbers(tmp_path / "saved.rrd") == Counter([1, 3])
    assert support.numbers(tmp_path / "run-episode.rrd") == Counter([2])


def test_thread_local_streams_keep_their_ids_and_cost_no_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(per_recording, "_OPEN_FILES_MAX", 4)
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        ids = pool.map(tasks.log_episode, range(100), chunksize=1)
        assert pool.apply(tasks.count_threads, (1,)) < 100
    support.check_file(path)
    assert support.numbers(path) == Counter([1])
    for number, recording_id in enumerate(ids):
        other_file = tmp_path / f"run-{recording_id}.rrd"
        assert _ids(other_file) == ("episode", recording_id)
        assert support.numbers(other_file) == Counter([number])


def test_a_recording_that_lives_on_from_task_to_task_loses_nothing(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        for number in range(7):
            pool.apply(tasks.log_to_kept_recording, (number,))
    other_file = tmp_path / "run-kept.rrd"
    support.check_file(other_file)
    assert support.numbers(other_file) == Counter([*range(7), *range(1000, 1007)])


def test_a_task_recording_with_its_own_sink_is_left_to_the_task(start_method: Any, tmp_path: Path) -> None:
    path, own = tmp_path / "run.rrd", tmp_path / "own"
    own.mkdir()
    with mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        assert pool.apply(tasks.log_to_saved_recording, (5, own)) == 5
    assert [path] == [each for each in tmp_path.iterdir() if each.is_file()]
    assert support.numbers(own / "own-5.rrd") == Counter([5])


def test_memory_stays_bounded_also_for_a_task_recording(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        pool.apply(tasks.log_images_to_unsaved_recording, (1,))
        grown = pool.apply(tasks.log_images_to_unsaved_recording, (300,))
    assert grown < 200 * MB
    other_file = tmp_path / "run-images.rrd"
    support.check_file(other_file)
    assert sum(support.row_counts(other_file).values()) == 301


def test_rows_of_task_recordings_that_are_lost_with_a_worker_are_counted_and_logged(
    start_method: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        pool.apply(tasks.log_to_unsaved_recording, (1,))
        with pytest.raises(mpr.WorkerDiedError):
            pool.apply(tasks.log_to_unsaved_recording_and_die, (3,))
    (message,) = [each for each in caplog.messages if "had made themselves" in each]
    assert "ended with 3 rows" in message
    assert [each.text for each in support.texts(path) if "had made themselves" in each.text] == [
        message.removeprefix("mpr: ")
    ]
    # The recording with a sink is not concerned, and rows that the parent had received are there.
    assert support.numbers(tmp_path / "run-own_1.rrd") == Counter([1, 101])


# --- unusual ways of using them -------------------------------------------------------------------------------------


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are taken from such recordings after each few rows, also in the middle of a task."""
    monkeypatch.setattr(log_counters, "CHECK_EVERY_BYTES", 200)
    monkeypatch.setattr(outbox_writer, "UNFLUSHED_MAX_BYTES", 1)


def _own() -> rr.RecordingStream:
    return rr.RecordingStream("own app", recording_id="own")


def _log(numbers: range, stream: rr.RecordingStream | None = None) -> None:
    for number in numbers:
        rr.log("n", rr.Scalars(float(number)), recording=stream)


def _one_after_another_with_one_id() -> None:
    for first in range(0, 90, 30):
        _log(range(first, first + 30), _own())


def _two_at_once_with_one_id() -> None:
    streams = [_own(), _own()]
    for number in range(90):
        _log(range(number, number + 1), streams[number % 2])


def _blocks_with_one_id() -> None:
    for first in range(0, 90, 30):
        with _own():
            _log(range(first, first + 30))


def _by_another_handle() -> None:
    with _own():
        handle = rr.get_data_recording()
    _log(range(90), handle)


def _current_without_a_handle() -> None:
    rr.set_thread_local_data_recording(_own())
    gc.collect()
    _log(range(90))


def _default_without_a_handle() -> None:
    before = rr.get_global_data_recording()
    rr.set_global_data_recording(_own())
    gc.collect()
    _log(range(90))
    rr.set_global_data_recording(before)


def _disconnected() -> None:
    stream = _own()
    for first in range(0, 90, 30):
        _log(range(first, first + 30), stream)
        stream.disconnect()


def _after_the_shutdown_of_the_sdk() -> None:
    stream = _own()
    _log(range(45), stream)
    rr.rerun_shutdown()
    _log(range(45, 90), stream)


def _in_columns() -> None:
    stream = _own()
    for first in range(0, 90, 30):
        columns = rr.Scalars.columns(scalars=np.arange(first, first + 30, dtype=float))
        rr.send_columns("n", [rr.TimeColumn("step", sequence=range(30))], columns, recording=stream)


_WAYS: list[Callable[[], None]] = [
    _one_after_another_with_one_id, _two_at_once_with_one_id, _blocks_with_one_id, _by_another_handle,
    _current_without_a_handle, _default_without_a_handle, _disconnected, _after_the_shutdown_of_the_sdk, _in_columns,
]  # fmt: skip


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("way", _WAYS, ids=lambda way: way.__name__.strip("_"))
def test_no_way_of_logging_to_a_recording_of_a_task_loses_rows(way: Callable[[], None], tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    recording = mpr.SharedRecording("app", sinks=path)
    with recording, mpr.Pool("app", 1, recording=recording, start_method="fork") as pool:
        pool.apply(way)
        assert support.numbers_of_growing(tmp_path / "run-own.rrd") == Counter(range(90))
    support.check_file(tmp_path / "run-own.rrd")
    stats = recording.stats()
    assert stats.lost_rows == 0
    assert stats.counted_rows <= stats.accepted_rows


def _late_sink(path: Path) -> None:
    stream = _own()
    _log(range(45), stream)
    stream.save(path)
    _log(range(45, 90), stream)


@pytest.mark.usefixtures("often")
@pytest.mark.filterwarnings("ignore::rerun.error_utils.RerunWarning")  # a forked worker may not finish its own file
def test_a_sink_that_comes_late_gets_the_later_rows_and_nothing_hangs(tmp_path: Path) -> None:
    recording = mpr.SharedRecording("app", sinks=tmp_path / "run.rrd")
    with recording, mpr.Pool("app", 1, recording=recording, start_method="fork") as pool:
        pool.apply_async(_late_sink, (tmp_path / "late.rrd",)).get(60)
    early, late = support.numbers(tmp_path / "run-own.rrd"), support.numbers(tmp_path / "late.rrd")
    assert early + late == Counter(range(90))
    assert set(range(45, 90)) <= set(late)
    support.check_file(tmp_path / "run-own.rrd")
    assert recording.stats().lost_rows == 0


def _log_past_mpr(number: int) -> int:
    """Log rows to a recording that the SDK is given another sink for, behind mpr's back."""
    stream = rr.RecordingStream("own app", recording_id=f"own{number}")
    _log(range(3), stream)
    if number % 2:
        inspect.unwrap(rerun_bindings.save)(path=os.devnull, recording=stream.to_native())
    _log(range(3, 9), stream)
    return number


def test_counted_rows_of_a_task_recording_that_do_not_come_are_reported(
    start_method: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recording = mpr.SharedRecording("app", sinks=tmp_path / "run.rrd")
    with mpr.Pool("app", 1, recording=recording, start_method=start_method) as pool:
        assert pool.apply(_log_past_mpr, (0,)) == 0
        with pytest.raises(mpr.DeliveryError, match="rows of a recording that a task has made are lost"):
            pool.apply(_log_past_mpr, (1,))
        assert pool.apply(_log_past_mpr, (2,)) == 2
    with pytest.raises(mpr.DeliveryError, match="did not come to the recording"):
        recording.close()
    # The properties of the recording, which are not counted, do not come either.
    assert recording.stats().lost_rows == 9
    assert "9 rows of a recording that a task has made are lost" in caplog.text


_LOSS_IN_A_JOINED_PROCESS = """
import mpr
from tests import test_task_recordings as t

log = mpr.task(t._log_past_mpr)
for number in range(4):
    try:
        print(log(number))
    except mpr.DeliveryError as error:
        print("lost" in str(error))
"""


def test_in_a_joined_process_only_the_task_of_the_lost_rows_fails(tmp_path: Path) -> None:
    recording = mpr.SharedRecording("app", sinks=tmp_path / "run.rrd")
    done = support.run_python(_LOSS_IN_A_JOINED_PROCESS, env=recording.environ())
    assert done.stdout.split() == ["0", "True", "2", "True"], done.stderr
    with pytest.raises(mpr.DeliveryError):
        recording.close()


def test_rows_of_a_recording_that_is_switched_off_are_no_loss(tmp_path: Path) -> None:
    recording = mpr.SharedRecording("app", sinks=tmp_path / "run.rrd")
    with recording, mpr.Pool("app", 1, recording=recording) as pool:
        pool.apply(_log_to_disabled)
    assert recording.stats().lost_rows == 0


def _log_to_disabled() -> None:
    _log(range(3), rr.RecordingStream("own app", recording_id="off", default_enabled=False))


class _InTimeError(BaseException):
    """The error that a handler of a signal raises, at any moment."""


def _raise_in_time(*_: object) -> None:
    raise _InTimeError


def _log_while_a_handler_raises(times: int) -> list[int]:
    """Log to a recording, while a handler of a signal raises this often. Returns the numbers whose calls returned."""
    stream, logged, number = _own(), [], 0
    _log(range(1_000_000, 1_000_001), stream)
    signal.signal(signal.SIGALRM, _raise_in_time)
    for _ in range(times):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.004))
            while True:
                number += 1
                _log(range(number, number + 1), stream)
                logged.append(number)
        except _InTimeError:
            pass
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return logged


@pytest.mark.usefixtures("often")
def test_a_handler_that_raises_at_any_moment_costs_no_row_of_a_task_recording(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", start_method="fork") as pool:
        logged = pool.apply(_log_while_a_handler_raises, (200,))
    came = support.numbers(tmp_path / "run-own.rrd")
    # A call that did not return may have logged its row.
    assert not Counter(logged) - came
    assert set(came.values()) == {1}

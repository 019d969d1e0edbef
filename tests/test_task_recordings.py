"""Recordings that tasks make themselves, without a sink: their rows are beside the file, under their own ids."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

import mpr
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

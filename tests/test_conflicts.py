"""One name with two types from two workers is an error that names both; the file is valid and has all rows."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
import rerun as rr

import mpr
from tests import support, tasks


def _timestamp() -> None:
    rr.send_columns(
        "c", indexes=[rr.TimeColumn("when", timestamp=[1.0, 2.0])], columns=rr.Scalars.columns(scalars=[1.0, 2.0])
    )


def _whole_number() -> None:
    rr.log("d", rr.AnyValues(answer=42), static=True)


def _text() -> None:
    rr.log("d", rr.AnyValues(answer="42"), static=True)


def _same_text_elsewhere() -> None:
    rr.log("e", rr.AnyValues(answer="42"))


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        (
            tasks.log_at_sequence,
            tasks.log_at_duration,
            r"timeline 'when' is a sequence in worker 1 .*, and a duration in worker 2 ",
        ),
        (
            tasks.log_at_duration,
            _timestamp,
            r"timeline 'when' is a duration in worker 1 .*, and a timestamp in worker 2 ",
        ),
        (_whole_number, _text, r"component 'answer' of /d is int64 in worker 1 .*, and string in worker 2 "),
    ],
)
def test_the_error_for_two_types_of_one_name_names_both_workers(
    one: Callable[[], None], two: Callable[[], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.rrd"
    # The workers run one after the other, so that it is known which is the first.
    pool = mpr.Pool("app", 1, maxtasksperchild=1, sinks=path)
    for task in (one, two, two):
        pool.apply(task)
    pool.close()
    with pytest.raises(mpr.ConflictError, match=message) as caught:
        pool.join()
    # The conflict is reported once, not for each later worker.
    assert str(caught.value).count(" in worker ") == 2
    support.check_file(path)
    assert sum(support.cells(path).values()) >= 3


def test_the_same_types_in_many_workers_are_no_conflict(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, maxtasksperchild=1, sinks=path) as pool:
        for task in (tasks.log_at_sequence, _whole_number, _same_text_elsewhere) * 2:
            pool.apply(task)
    support.check_file(path)


@pytest.mark.parametrize("beside", ["file", "server"])
def test_beside_a_folder_with_a_recording_per_task_the_recording_of_all_tasks_counts(
    beside: str, tmp_path: Path
) -> None:
    other = tmp_path / "run.rrd" if beside == "file" else mpr.GrpcServerSink(port=0)
    pool = mpr.Pool("app", 1, maxtasksperchild=1, sinks=[mpr.DirectorySink(path=tmp_path / "tasks"), other])
    for task in (tasks.log_at_sequence, tasks.log_at_duration):
        pool.apply(task)
    pool.close()
    with pytest.raises(mpr.ConflictError, match=r"timeline 'when' is a sequence in worker 1 .* in worker 2 "):
        pool.join()


def test_tasks_with_a_recording_each_may_differ(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    with mpr.Pool("app", 1, maxtasksperchild=1, sinks=mpr.DirectorySink(path=folder)) as pool:
        for task in (tasks.log_at_sequence, tasks.log_at_duration):
            pool.apply(task)
    assert len(list(folder.iterdir())) == 2


def test_types_are_compared_among_all_rows_outside_of_tasks(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    pool = mpr.Pool("app", 1, tasks.log_at_sequence, sinks=mpr.DirectorySink(path=folder))
    pool.apply(len, ("abc",))
    pool.recording.stream.set_time("when", duration=1.0)
    pool.recording.stream.log("b", rr.Scalars(1.0))
    pool.close()
    with pytest.raises(mpr.ConflictError, match=r"in worker 1 .* in the parent|in the parent.* in worker 1"):
        pool.join()
    support.check_file(folder / "shared.rrd")


def test_a_process_that_has_joined_is_not_taken_for_the_parent(tmp_path: Path) -> None:
    recording = mpr.SharedRecording("app", sinks=tmp_path / "run.rrd")
    recording.stream.set_time("when", duration=1.0)
    recording.stream.log("b", rr.Scalars(1.0))
    with recording:
        process = multiprocessing.get_context("spawn").Process(target=mpr.task(tasks.log_at_sequence))
        process.start()
        process.join()
        with pytest.raises(mpr.ConflictError, match=rf"in process {process.pid}, .* in the parent\."):
            recording.close()

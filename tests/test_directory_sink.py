"""`DirectorySink`: one recording per task, with its rows and no others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

import mpr
from mpr.producer import outbox_writer
from mpr.transport import messages, sockets
from tests import support, tasks


def _entry(path: Path) -> Any:
    (entry,) = rr.chunk.RrdReader(path).recordings()
    return entry


def _properties(path: Path) -> dict[str, str]:
    found = support.cells(path, properties=True)
    return {cell.component: cell.value for cell in found if cell.entity.startswith("/__properties")}


@pytest.mark.parametrize("chunksize", [1, 4])
def test_each_task_has_a_recording_of_its_own(chunksize: int, start_method: Any, tmp_path: Path) -> None:
    folder, whole = tmp_path / "episodes", tmp_path / "whole.rrd"
    sinks = [mpr.DirectorySink(path=folder), whole]
    with mpr.Pool("app", 2, sinks=sinks, recording_id="r", start_method=start_method) as pool:
        pool.map(tasks.log_number, range(10), chunksize=chunksize)
        # The file of a task is finished when its result is there.
        for number in range(10):
            support.check_file(folder / f"{number:06d}-log_number.rrd")
        pool.apply(tasks.log_everything, (10,))
        assert pool.apply(tasks.square, (3,)) == 9
    names = [f"{number:06d}-log_number" for number in range(10)] + ["000010-log_everything"]
    # The task that logged nothing has no file.
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.rrd" for name in names]
    for number, name in enumerate(names):
        path = folder / f"{name}.rrd"
        support.check_file(path)
        assert (_entry(path).application_id, _entry(path).recording_id) == ("app", f"r-{name}")
        if number < 10:
            assert support.numbers(path) == Counter([number])
        properties = _properties(path)
        assert properties["RecordingInfo:name"] == f"['{name}']"
        assert properties["outcome"] == "['returned']"
        assert properties["index"] == f"[{number}]"
    # The other sink has everything in one recording.
    support.check_file(whole)
    assert support.numbers(whole) == Counter(range(10))
    everything = {cell for path in folder.iterdir() for cell in support.cells(path)}
    assert everything == set(support.cells(whole))


def test_a_task_names_its_own_recording(start_method: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "episodes"
    with mpr.Pool("app", 1, sinks=mpr.DirectorySink(path=folder), start_method=start_method) as pool:
        # mpr says nothing about it.
        assert pool.map(_name_and_log, range(3), chunksize=1) == [[], [], []]
        pool.apply(tasks.log_number, (3,))
    for number in range(3):
        path = folder / f"{number:06d}-_name_and_log.rrd"
        support.check_file(path)
        info = {
            (cell.entity, cell.component): cell.value
            for cell in support.cells(path, properties=True)
            if cell.component.startswith("RecordingInfo:")
        }
        assert info == {
            ("/__properties", "RecordingInfo:name"): f"['as task {number} says']",
            ("/__properties", "RecordingInfo:start_time"): f"[{number}]",
        }
        assert _properties(path)["outcome"] == "['returned']"
    # A task that says nothing has the name of its file, also behind one that does.
    assert _properties(folder / "000003-log_number.rrd")["RecordingInfo:name"] == "['000003-log_number']"


def _name_and_log(number: int) -> list[str]:
    """Name the recording, and log. Returns what mpr has logged meanwhile."""
    with support.records_of_mpr() as records:
        tasks.name_recording(number)
        tasks.log_number(number)
    return [each.getMessage() for each in records]


def test_rows_outside_of_tasks_are_in_one_more_file(tmp_path: Path) -> None:
    folder = tmp_path / "episodes"
    import rerun.blueprint as rrb

    with mpr.Pool(
        "app",
        1,
        tasks.log_number,
        (-1,),
        sinks=mpr.DirectorySink(path=folder, name="{index}.rrd"),
        blueprint=rrb.Blueprint(rrb.TimeSeriesView(origin="/n")),
    ) as pool:
        pool.recording.stream.log("n", rr.Scalars(-2.0))
        pool.map(tasks.log_number, range(2), chunksize=1)
        pool.map(tasks.log_number, range(2), chunksize=1)
    files = {path.name: support.numbers(path) for path in folder.glob("*.rrd")}
    assert files == {
        "shared.rrd": Counter([-1, -2]),
        "0.rrd": Counter([0]),
        "1.rrd": Counter([1]),
        "0-r1.rrd": Counter([0]),
        "1-r1.rrd": Counter([1]),
    }
    for name in files:
        support.check_file(folder / name)
        assert len(rr.chunk.RrdReader(folder / name).blueprints()) == 1


def test_how_a_task_ended_is_in_its_recording(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "episodes"
    with mpr.Pool("app", 1, sinks=mpr.DirectorySink(path=folder)) as pool:
        with pytest.raises(ValueError, match="failed"):
            pool.apply(tasks.log_and_raise, (1,))
        with pytest.raises(mpr.WorkerDiedError):
            pool.apply(tasks.log_and_die, (2,))
        assert pool.apply(tasks.log_number, (3,)) == 3
    outcomes = {}
    for path in folder.iterdir():
        support.check_file(path)
        if path.name == "shared.rrd":
            # The note that a worker has died.
            continue
        (number,) = support.numbers(path)
        outcomes[number] = _properties(path)["outcome"]
    assert "not accepted" not in caplog.text
    assert outcomes == {1: "['raised']", 2: "['not finished']", 3: "['returned']"}


def test_a_task_may_log_more_than_an_outbox_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked workers have the low limit too: each task needs several outboxes."""
    monkeypatch.setattr(outbox_writer, "OUTBOX_ROLL_BYTES", 1)
    folder = tmp_path / "episodes"
    with mpr.Pool("app", 2, sinks=mpr.DirectorySink(path=folder), start_method="fork") as pool:
        pool.starmap(tasks.log_images, [(number, 8) for number in range(4)], chunksize=2)
    for number in range(4):
        path = folder / f"{number:06d}-log_images.rrd"
        support.check_file(path)
        assert support.row_counts(path) == {(f"/image/{number}", step): 1 for step in range(8)}


def test_a_task_recording_is_in_the_folder_too(tmp_path: Path) -> None:
    folder = tmp_path / "episodes"
    with mpr.Pool("app", 1, sinks=mpr.DirectorySink(path=folder)) as pool:
        recording_id = pool.apply(tasks.log_episode, (4,))
    (path,) = folder.iterdir()
    assert recording_id in path.name
    assert support.numbers(path) == Counter([4])


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"path": ""}, "path of a folder"),
        ({"path": 4}, "path of a folder"),
        ({"path": "rerun+http://127.0.0.1:9876/proxy"}, "is a URL"),
        ({"path": __file__}, "is a file"),
        ({"path": "x", "name": "{task:q}.rrd"}, "cannot be filled in"),
        ({"path": "x", "name": "{task!r}.rrd"}, "cannot be filled in"),
        ({"path": "x", "name": "{task.rrd"}, "cannot be filled in"),
        ({"path": "x", "name": "{}.rrd"}, "cannot be filled in"),
        ({"path": "x", "name": "{cfg[lr]}.rrd"}, "cannot be filled in"),
        ({"path": "x", "name": "{cfg.__class__}.rrd"}, "cannot be filled in"),
        ({"path": "x", "name": "{lr:{width}}.rrd"}, "cannot be filled in"),
        ({"path": "x", "name": "{task}"}, r"no name of an \.rrd file"),
        ({"path": "x", "name": "{task}/.rrd"}, r"no name of an \.rrd file"),
        ({"path": "x", "name": "/{task}.rrd"}, r"no name of an \.rrd file"),
        ({"path": "x", "name": "../{task}.rrd"}, r"no name of an \.rrd file"),
        ({"path": "x", "name": ".{task}.rrd"}, r"no name of an \.rrd file"),
        ({"path": "x", "name": None}, "is a template"),
    ],
)
def test_a_bad_value_is_refused_with_a_reason(keywords: Any, words: str) -> None:
    with pytest.raises(mpr.ConfigError, match=words):
        mpr.DirectorySink(**keywords)


def _log_attempt(kills_until: int) -> int:
    task = mpr.current_task()
    assert task is not None
    tasks.log_number(task.attempt)
    if task.attempt <= kills_until:
        tasks.log_and_die(100)
    return task.attempt


def test_an_attempt_has_the_same_number_in_its_file_name_properties_and_notes(tmp_path: Path) -> None:
    folder, whole = tmp_path / "episodes", tmp_path / "whole.rrd"
    sinks = [mpr.DirectorySink(path=folder, name="{index:d}-{attempt}.rrd"), whole]
    with mpr.Pool("app", 1, sinks=sinks, retries=2) as pool:
        # The other task of the chunk is at its first attempt, although the first task is retried.
        assert pool.map(_log_attempt, [2, 0], chunksize=2) == [3, 1]
    for name, attempt in (("0-1", 1), ("0-2", 2), ("0-3", 3), ("1-1", 1)):
        assert support.numbers(folder / f"{name}.rrd")[attempt] == 1
        assert _properties(folder / f"{name}.rrd")["attempt"] == f"[{attempt}]"
    assert {path.name for path in folder.glob("*.rrd")} == {"0-1.rrd", "0-2.rrd", "0-3.rrd", "1-1.rrd", "shared.rrd"}
    notes = [each.text for each in support.texts(whole) if each.entity == "/mpr/workers"]
    assert [note.rpartition(" (")[2] for note in notes] == ["attempt 2)", "attempt 3)"]


def _lose_messages(number: int) -> int:
    """Have every message of this worker lost from now on if `number` is 0. Log, and be killed, if it is 1."""
    task = mpr.current_task()
    assert task is not None
    if number == 0:
        sockets.Connection.send = lambda _self, _message: None  # type: ignore[method-assign]  # only in the worker
    elif task.attempt == 1:
        tasks.log_and_die(number)
    else:
        tasks.log_number(number)
    return number


def test_the_rows_of_a_killed_task_are_in_its_file_although_its_last_messages_are_lost(tmp_path: Path) -> None:
    # A message lies in the worker for a moment before it is sent.
    sinks = [mpr.DirectorySink(path=tmp_path / "episodes", name="{index:d}-{attempt}.rrd")]
    with mpr.Pool("app", 1, sinks=sinks, retries=1) as pool:
        assert pool.map(_lose_messages, [0, 1], chunksize=2) == [0, 1]
    for name, outcome in (("1-1", "not finished"), ("1-2", "returned")):
        path = tmp_path / "episodes" / f"{name}.rrd"
        support.check_file(path)
        assert support.numbers(path) == {1: 1}
        assert outcome in _properties(path)["outcome"]


def _lose_the_end(number: int) -> int:
    """Have the message about the end of this task lost, and this worker killed after the task, if it is the first."""
    task = mpr.current_task()
    assert task is not None
    if task.attempt == 1:
        send = sockets.Connection.send

        def send_most(connection: sockets.Connection, message: Any) -> None:
            if not isinstance(message, messages.TaskEnded):
                send(connection, message)

        sockets.Connection.send = send_most  # type: ignore[method-assign]  # only in the worker
    tasks.log_number(number)
    return number


def test_a_task_that_has_returned_is_not_called_unfinished_although_its_worker_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MPR_FAILPOINTS", "worker.roll@1:1:kill")
    sinks = [mpr.DirectorySink(path=tmp_path / "episodes", name="{index:d}-{attempt}.rrd")]
    with mpr.Pool("app", 1, sinks=sinks, retries=1) as pool:
        assert pool.map(_lose_the_end, [1]) == [1]
    for name in ("0-1", "0-2"):
        path = tmp_path / "episodes" / f"{name}.rrd"
        support.check_file(path)
        assert support.numbers(path) == {1: 1}
        assert "returned" in _properties(path)["outcome"]

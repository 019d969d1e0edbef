"""Whatever one worker's bytes are: its own task fails, it is replaced, and the rows and results of others are whole."""

from __future__ import annotations

import functools
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

import mpr
from mpr.rrd import compat
from mpr.transport import outbox
from tests import damage, support, tasks

_NAMES = [each.__name__ for each, _, _ in damage.DAMAGES]
_EXPECTED = {each.__name__: (error, words) for each, error, words in damage.DAMAGES}


def _sinks(kind: str, folder: Path) -> Any:
    match kind:
        case "file":
            return folder / "run.rrd"
        case "two files":
            return [folder / "run.rrd", folder / "other.rrd"]
        case "directory":
            return [folder / "run.rrd", mpr.DirectorySink(path=folder / "tasks")]
        case _:
            return [folder / "run.rrd", mpr.BinaryStreamSink()]


def _run(name: str, folder: Path, caplog: pytest.LogCaptureFixture, *, kind: str = "file", **options: Any) -> None:
    """Have one task do the damage while others run, and compare errors, log, notes and rows with the table."""
    error, words = _EXPECTED[name]
    path = folder / "run.rrd"
    with mpr.Pool("app", 2, sinks=_sinks(kind, folder), **options) as pool:
        assert pool.map(tasks.log_number, range(10), chunksize=1) == list(range(10))
        before = pool.submit(tasks.log_number, 10)
        bad = pool.submit(damage.log_and_damage, 11, name)
        others = [pool.submit(tasks.log_number, number) for number in range(12, 30)]
        with pytest.raises(Exception, match=words) as caught:
            bad.result(60)
        assert type(caught.value).__name__ == error
        results = [each.exception(60) for each in (before, *others)]
        # What the same worker had begun before it was cut off fails like its task, and nothing else fails.
        assert {str(each) for each in results if each is not None} <= {str(caught.value)}
        assert pool.map(tasks.log_number, range(30, 60), chunksize=1) == list(range(30, 60))
    reported = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(reported) == (error == "DeliveryError")
    support.check_file(path)
    notes = [text.text for text in support.texts(path) if text.entity == "/mpr/workers"]
    assert [note for note in notes if "worker" in note and words in note] == reported
    found = support.numbers(path)
    assert set(found.values()) == {1}
    succeeded = {number for number, each in zip((10, *range(12, 30)), results, strict=True) if each is None}
    assert set(found) >= {*range(10), *succeeded, *range(30, 60)}
    # It was in the sinks before the damage.
    assert 11 in found


@pytest.mark.parametrize("name", _NAMES)
def test_damage_is_the_error_of_its_own_task(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _run(name, tmp_path, caplog, start_method="fork")


# With other sinks, one kind of damage is tried in every run, and these in a run of all tests.
_MORE = ["footer_that_claims_a_petabyte", "unknown_message", "chunk_of_no_store"]


@pytest.mark.parametrize("kind", ["two files", "directory", "stream"])
@pytest.mark.parametrize(
    "name",
    ["zeros", *(pytest.param(each, marks=pytest.mark.slow) for each in _MORE)],
)
def test_damage_with_other_sinks(name: str, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _run(name, tmp_path, caplog, kind=kind, start_method="fork")
    if kind == "two files":
        assert support.numbers(tmp_path / "other.rrd") == support.numbers(tmp_path / "run.rrd")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zeros", "footer_of_noise", "unknown_message"])
def test_damage_with_each_start_method(
    name: str, start_method: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _run(name, tmp_path, caplog, start_method=start_method)


def test_rows_that_only_the_sdk_finds_damaged_are_left_out_of_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method="fork") as pool:
        assert pool.map(tasks.log_number, range(10), chunksize=1) == list(range(10))
        with pytest.raises(mpr.DeliveryError, match="what is no message"):
            pool.submit(damage.noise_within_rows, 10).result(60)
        assert pool.map(tasks.log_number, range(11, 30), chunksize=1) == list(range(11, 30))
    assert "is written anew without rows that the Rerun SDK cannot decode" in caplog.text
    support.check_file(path)
    assert support.numbers(path) == Counter(range(30))
    # All others of its rows are there.
    assert 15 < sum(each.entity == "/damaged/10" for each in support.texts(path)) < 20


@pytest.mark.parametrize("task", [damage.noise_within_a_row, functools.partial(damage.log_and_damage, name="zeros")])
def test_damage_in_a_format_that_is_not_known(
    task: Callable[[int], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK decodes all rows then, and what it refuses is the fault of a worker and not of the sink."""
    monkeypatch.setattr(compat, "format_is_known", lambda: "it is from the future")
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method="fork") as pool:
        assert pool.map(tasks.log_number, range(10), chunksize=1) == list(range(10))
        with pytest.raises(mpr.DeliveryError, match="no Rerun stream"):
            pool.submit(task, 10).result(60)
        assert pool.map(tasks.log_number, range(11, 30), chunksize=1) == list(range(11, 30))
    support.check_file(path)
    assert support.numbers(path) == Counter(range(30))


_ACTIVE = """
import sys
import mpr, rerun as rr
from tests import damage, tasks

if __name__ == "__main__":
    rr.init("app")
    rr.save(sys.argv[1])
    with mpr.Pool("app", 2, start_method="fork") as pool:
        assert pool.map(tasks.log_number, range(10), chunksize=1) == list(range(10))
        print(repr(pool.submit(damage.noise_within_a_row, 10).exception(60)))
        assert pool.map(tasks.log_number, range(11, 30), chunksize=1) == list(range(11, 30))
"""


def test_damage_that_comes_to_the_active_recording(tmp_path: Path) -> None:
    ran = support.run_python(_ACTIVE, tmp_path / "run.rrd", env={"PYTHONPATH": str(Path(__file__).parent.parent)})
    assert ran.returncode == 0, ran.stderr
    assert "DeliveryError" in ran.stdout
    assert "the Rerun SDK cannot decode it" in ran.stdout
    assert support.numbers(tmp_path / "run.rrd") == Counter(range(30))


@pytest.mark.parametrize(
    ("name", "in_messages"),
    [
        ("zeros", False),
        ("zeros", True),
        ("unknown_message", False),
        ("unknown_message", True),
        ("outbox_of_init", False),
        ("announces_too_much_for_a_file", False),
    ],
)
def test_a_worker_that_is_cut_off_does_not_wait_for_room(
    name: str, in_messages: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It logs more than an outbox holds, and nobody takes that."""

    def refuse(*_: object) -> None:
        raise PermissionError("another container")

    if in_messages:
        monkeypatch.setattr(outbox.OutboxReader, "__init__", refuse)
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method="fork") as pool:
        much = pool.submit(damage.damage_and_log_much, 0, name)
        assert isinstance(much.exception(60), mpr.DeliveryError)
        assert pool.map(tasks.log_number, range(1, 20), chunksize=1) == list(range(1, 20))
    support.check_file(path)
    assert support.numbers(path) == Counter(range(20))


_IN_MESSAGES = ["zeros", "no_frame", "chunk_of_no_store", "footer_of_noise", "end_without_closing_bytes", "deep_json"]


@pytest.mark.parametrize("name", _IN_MESSAGES)
def test_damage_in_bytes_that_travel_in_messages(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("another container")

    monkeypatch.setattr(outbox.OutboxReader, "__init__", refuse)
    _run(name, tmp_path, caplog, start_method="fork")


@pytest.mark.parametrize("name", ["zeros", "no_frame", "footer_that_claims_a_petabyte", "unknown_message"])
def test_a_worker_dies_behind_its_damage(name: str, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method="fork") as pool:
        with pytest.raises(mpr.WorkerDiedError):
            pool.submit(damage.log_damage_and_die, 0, name).result(60)
        assert pool.map(tasks.log_number, range(1, 30), chunksize=1) == list(range(1, 30))
    support.check_file(path)
    assert support.numbers(path) == Counter(range(30))


@pytest.mark.parametrize("die", [False, True])
def test_a_status_page_of_noise(die: bool, tmp_path: Path) -> None:
    """Whatever it says, all calls get an answer, and tasks that are submitted later have nothing to do with it."""
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method="fork") as pool:
        assert pool.map(tasks.log_number, range(10), chunksize=1) == list(range(10))
        noisy = pool.submit(damage.noise_on_status_page, 10, die)
        others = [pool.submit(tasks.log_number, number) for number in range(11, 31)]
        errors = [each.exception(60) for each in (noisy, *others)]
        assert all(isinstance(each, mpr.MprError | None) for each in errors)
        assert pool.map(tasks.log_number, range(31, 60), chunksize=1) == list(range(31, 60))
    support.check_file(path)
    found = support.numbers(path)
    assert set(found.values()) == {1}
    succeeded = {number for number, error in enumerate(errors, 10) if error is None}
    assert set(found) >= {*range(11), *succeeded, *range(31, 60)}


@pytest.mark.parametrize("name", ["zeros", "chunk_of_no_store", "footer_of_noise", "unknown_message"])
def test_damage_in_a_process_that_has_joined(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, reported = tmp_path / "run.rrd", tmp_path / "told"
    context = multiprocessing.get_context("spawn")
    with mpr.SharedRecording("app", sinks=path) as recording:
        bad = context.Process(target=damage.damage_in_a_joined_process, args=(name, reported))
        good = context.Process(target=damage.log_in_a_joined_process, args=(10,))
        for child in (bad, good):
            child.start()
        for child in (bad, good):
            child.join(60)
        assert good.exitcode == 0
        recording.stream.log("parent", rr.TextLog("it goes on"))
    assert "sent" in reported.read_text()
    errors = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert sum("sent" in error for error in errors) == 1
    support.check_file(path)
    assert {1: 1, 10: 1} == {number: count for number, count in support.numbers(path).items() if number != 3}
    assert "it goes on" in [text.text for text in support.texts(path)]


def test_no_worker_settles_the_task_of_another_one(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method="fork") as pool:
        assert pool.map(tasks.log_number, range(8), chunksize=1) == list(range(8))
        running = pool.submit(tasks.log_then_wait, 100, tmp_path / "started", tmp_path / "go on")
        support.wait_for((tmp_path / "started").exists)
        # The ninth that the pool has taken.
        number = 9
        with pytest.raises(mpr.DeliveryError, match="a work item that it does not have"):
            pool.submit(damage.steal_result, 101, number).result(60)
        assert not running.done()
        (tmp_path / "go on").touch()
        assert running.result(60) == 100
        assert pool.map(tasks.log_number, range(200, 210), chunksize=1) == list(range(200, 210))
    support.check_file(path)
    found = support.numbers(path)
    found.pop(101, None)
    assert found == Counter([*range(8), 100, *range(200, 210)])


def test_nobody_takes_the_place_of_a_worker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method="fork") as pool:
        assert pool.starmap(damage.say_hello_as, [(0, 1), (1, 2)], chunksize=1) == [0, 1]
        assert pool.map(tasks.log_number, range(20), chunksize=1) == list(range(20))
    assert sum("has said hello before" in record.message for record in caplog.records) == 2
    support.check_file(path)
    assert support.numbers(path) == Counter(range(20))

"""Faults and their exact outcomes, as a table of named moments (`mpr/failpoints.py`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
import rerun as rr

import mpr
from mpr import failpoints
from mpr.producer import outbox_writer
from mpr.transport.messages import TaskRecordingRows
from tests import support, tasks

_ROWS = 5
_TASKS = 8
# The third work item of worker 1. Later ones were sent already.
_VICTIM = 2
_ALL = dict.fromkeys(range(_TASKS), _ROWS)


class _Fault(NamedTuple):
    """A moment at which worker 1 dies, and the outcome of the task that it runs."""

    place: str
    #: Whether the task has its result.
    succeeds: bool
    #: How many of its rows are in the recording at least, and at most.
    least: int
    most: int


_FAULTS = [
    _Fault("worker.started", True, _ROWS, _ROWS),
    # The task had not begun, so it runs elsewhere.
    _Fault("worker.claimed", True, _ROWS, _ROWS),
    # Rows that the SDK has not written are lost with the process.
    _Fault("worker.ended", False, 0, _ROWS),
    _Fault("worker.flushed", False, _ROWS, _ROWS),
    # The result stands on the status page.
    _Fault("worker.noted", True, _ROWS, _ROWS),
    _Fault("worker.sent", True, _ROWS, _ROWS),
]


def _run(path: Path, retries: int = 0, **options: Any) -> dict[int, BaseException | None]:
    """Run a few tasks in a pool with one worker, and return the error of each."""
    with mpr.Pool("app", 1, sinks=path, retries=retries, **options) as pool:
        results = [pool.apply_async(tasks.log_some, (number, _ROWS)) for number in range(_TASKS)]
        for result in results:
            result.wait(60)
        errors: dict[int, BaseException | None] = {}
        for number, result in enumerate(results):
            try:
                returned, _ = result.get(0)
            except mpr.WorkerDiedError as error:
                errors[number] = error
            else:
                assert returned == number
                errors[number] = None
    support.check_file(path)
    return errors


def _rows_of_tasks(path: Path) -> dict[int, int]:
    """Return the number of rows of each task in the recording. Fail if a row is there twice."""
    found = support.numbers(path)
    assert set(found.values()) <= {1}
    return dict(Counter(number // _ROWS for number in found))


@pytest.mark.parametrize("fault", _FAULTS, ids=lambda fault: fault.place)
def test_a_worker_dies_at_a_named_moment(
    fault: _Fault, start_method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = 1 if fault.place == "worker.started" else _VICTIM + 1
    monkeypatch.setenv("MPR_FAILPOINTS", f"{fault.place}@1:{times}:kill")
    path = tmp_path / "run.rrd"
    errors = _run(path, start_method=start_method)
    failed = {number for number, error in errors.items() if error is not None}
    assert failed == (set() if fault.succeeds else {_VICTIM})
    rows = _rows_of_tasks(path)
    assert fault.least <= rows.pop(_VICTIM, 0) <= fault.most
    assert rows == {number: count for number, count in _ALL.items() if number != _VICTIM}


@pytest.mark.parametrize(
    ("action", "exitcode"),
    [("kill", -signal.SIGKILL), ("segv", -signal.SIGSEGV), ("term", -signal.SIGTERM), ("exit", 3)],
)
def test_the_error_names_how_the_worker_died(
    action: str, exitcode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPR_FAILPOINTS", f"worker.flushed@1:{_VICTIM + 1}:{action}")
    error = _run(tmp_path / "run.rrd")[_VICTIM]
    assert isinstance(error, mpr.WorkerDiedError)
    assert (error.task, error.worker, error.exitcode, error.ended) == ("log_some", 1, exitcode, True)
    assert error.rows == _ROWS
    assert error.silent_secs is not None
    assert _rows_of_tasks(tmp_path / "run.rrd") == _ALL


_BIG = 40 * 1024 * 1024


def _log_to_other_recording(number: int, size: int) -> int:
    """Log a row to the shared recording, and one of `size` bytes to a task recording."""
    rr.log("n", rr.Scalars(float(number)))
    stream = rr.RecordingStream("own app", recording_id=f"own/{number}")
    stream.log("noise", rr.Tensor(np.full(size, number, np.uint8)))
    return number


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("arrive", [True, False])
def test_a_result_on_the_status_page_counts_only_if_its_rows_have_arrived(
    arrive: bool, retries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows of task recordings are sent in messages; the result is on the status page before that."""
    monkeypatch.setenv("MPR_FAILPOINTS", f"worker.noted@1:{_VICTIM + 1}:kill")
    path = tmp_path / "run.rrd"
    other = tmp_path / f"run-own_{_VICTIM}.rrd"
    with mpr.Pool("app", 1, sinks=path, retries=retries) as pool:
        if not arrive:
            _lose_task_recording(pool, monkeypatch, _VICTIM)
        futures = [pool.submit(_log_to_other_recording, number, 1000) for number in range(_TASKS)]
        results = {number: future.exception(60) for number, future in enumerate(futures)}
    failed = results.pop(_VICTIM)
    assert set(results.values()) == {None}
    support.check_file(path)
    if failed is None:
        # The task has a result, so its rows are there: from the first worker, or from the one that has run it again.
        assert arrive or retries
        assert sum(support.row_counts(other, "log_time").values()) == 1
    else:
        assert isinstance(failed, mpr.WorkerDiedError)
        assert failed.ended
        assert not retries
        assert not other.exists()
    incomplete = [each for each in caplog.messages if "before rows of recordings" in each]
    assert incomplete or arrive
    assert support.numbers(path) == Counter(
        {**dict.fromkeys(range(_TASKS), 1), _VICTIM: 2 if incomplete and retries else 1}
    )


def test_a_result_does_not_overtake_rows_that_are_still_being_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is so large that the worker dies before the kernel has taken it."""
    monkeypatch.setenv("MPR_FAILPOINTS", "worker.noted@1:1:kill")
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        failed = pool.submit(_log_to_other_recording, 0, _BIG).exception(60)
        assert pool.submit(_log_to_other_recording, 1, _BIG).result(60) == 1
    assert isinstance(failed, mpr.WorkerDiedError) != (tmp_path / "run-own_0.rrd").exists()
    assert (tmp_path / "run-own_1.rrd").exists()


def _lose_task_recording(pool: mpr.Pool, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let worker 1 die before it has sent the rows of the task recording and all later messages."""
    up = pool.recording._runtime.sockets.up
    receive = up.receive
    lost: list[object] = []

    def receive_all_before(timeout_secs: float) -> Any:
        received = receive(timeout_secs)
        if isinstance(received, tuple) and received[0].worker == 1:
            if isinstance(received[1], TaskRecordingRows) and f"own/{number}".encode() in bytes(received[1].data):
                lost.append(received)
            if lost:
                return b""
        return received

    monkeypatch.setattr(up, "receive", receive_all_before)


@pytest.mark.parametrize("place", ["worker.ended", "worker.flushed"])
def test_with_retries_the_task_runs_again(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of both attempts stay, and those of all other tasks are there once."""
    monkeypatch.setenv("MPR_FAILPOINTS", f"{place}@1:{_VICTIM + 1}:kill")
    path = tmp_path / "run.rrd"
    assert set(_run(path, retries=1).values()) == {None}
    rows = Counter({number // _ROWS: 0 for number in range(_TASKS)})
    for number, count in support.numbers(path).items():
        rows[number // _ROWS] += count
    of_both = rows.pop(_VICTIM)
    assert (_ROWS <= of_both <= 2 * _ROWS) if place == "worker.ended" else of_both == 2 * _ROWS
    assert rows == {number: count for number, count in _ALL.items() if number != _VICTIM}


def test_the_recording_says_which_worker_died_at_what(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, retries=1) as pool:
        with pytest.raises(mpr.WorkerDiedError, match="1 row of the task is in the recording"):
            pool.apply(tasks.log_and_die, (1,))
        assert pool.apply(tasks.log_number, (2,)) == 2
    support.check_file(path)
    notes = [each.text for each in support.texts(path) if each.entity == "/mpr/workers"]
    assert any("at task log_and_die, which is run again (attempt 2)" in note for note in notes), notes
    assert any("killed by SIGKILL" in note and "while it ran task log_and_die" in note for note in notes), notes


def test_a_task_that_kills_every_worker_fails_when_its_retries_are_used_up(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", retries=2) as pool:
        with pytest.raises(mpr.WorkerDiedError) as caught:
            pool.apply(tasks.log_and_die, (1,))
        # The task has a first attempt and two more.
        assert caught.value.worker == 3
        assert pool.apply(tasks.log_number, (2,)) == 2
    assert support.numbers(tmp_path / "run.rrd") == Counter({1: 3, 2: 1})


def test_only_the_task_that_ran_fails_of_a_chunk(start_method: Any, tmp_path: Path) -> None:
    """Tasks before it have their results, and tasks behind it run elsewhere."""
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        outcomes: list[Any] = []
        results = pool.imap(tasks.log_slowly_or_die, [0, 1, 2, -1, 4, 5], chunksize=6)
        for _ in range(6):
            try:
                outcomes.append(next(results))
            except mpr.WorkerDiedError as error:
                outcomes.append((error.task, error.ended))
    assert outcomes == [0, 1, 2, ("log_slowly_or_die[3]", False), 4, 5]
    support.check_file(path)
    assert support.numbers(path) == Counter([0, 1, 2, -1, 4, 5])


def test_a_stopped_worker_delays_no_other_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it goes on, no row is lost and no row is there twice."""
    monkeypatch.setenv("MPR_FAILPOINTS", "worker.claimed@1:1:stop")
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        results = [pool.apply_async(tasks.log_number, (number,)) for number in range(20)]
        support.wait_for(lambda: sum(each.ready() for each in results) == 19)
        (stopped,) = (each for each in psutil.Process().children(recursive=True) if each.status() == "stopped")
        stopped.resume()
        assert sorted(each.get(60) for each in results) == list(range(20))
    support.check_file(path)
    assert support.numbers(path) == Counter(range(20))


def test_every_future_gets_the_error_of_a_failed_aggregator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPR_FAILPOINTS", "parent.segment:2:raise")
    with pytest.raises(mpr.DeliveryError, match="a failpoint"), mpr.Pool("app", 2, sinks=tmp_path / "run.rrd") as pool:
        results = [pool.apply_async(tasks.log_number, (number,)) for number in range(20)]
        for result in results:
            result.wait(60)
        assert all(each.ready() for each in results)
        assert not all(each.successful() for each in results)
        pool.map(tasks.log_number, range(3))


_SCRIPT = """
import sys, mpr
from pathlib import Path
from tests import tasks

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    # Telemetry comes in segments, too, so their number would depend on the time.
    pool = mpr.Pool("app", 2, sinks=folder / "run.rrd", telemetry=False)
    with pool, (folder / "results").open("w") as results:
        (folder / "pids").write_text(" ".join(map(str, {pool.apply(tasks.pid) for _ in range(20)})))
        for number in pool.imap_unordered(tasks.log_number, range(100)):
            print(number, file=results, flush=True)
"""


@pytest.mark.parametrize("place", ["parent.segment:5:kill", "parent.result:40:kill", "parent.closing:1:kill"])
def test_the_parent_is_killed_at_a_named_moment(place: str, tmp_path: Path) -> None:
    """No worker stays, and the file has every row of every result that the caller has."""
    environ = {**os.environ, "MPR_FAILPOINTS": place}
    done = subprocess.run([sys.executable, "-c", _SCRIPT, str(tmp_path)], env=environ, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    for pid in (tmp_path / "pids").read_text().split():
        support.wait_for(lambda pid=int(pid): not support.lives(pid))
    handed_over = {int(line) for line in (tmp_path / "results").read_text().split()}
    found = support.numbers_of_growing(tmp_path / "run.rrd")
    assert set(found.values()) <= {1}
    assert handed_over - set(found) == set()
    if place.startswith("parent.closing"):
        assert handed_over == set(found) == set(range(100))


def test_ctrl_c_between_the_rows_of_a_result_and_the_result(tmp_path: Path) -> None:
    environ = {**os.environ, "MPR_FAILPOINTS": "parent.result:40:int"}
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path)]
    done = subprocess.run(command, env=environ, timeout=120, check=False, capture_output=True, text=True)
    assert done.returncode in (1, -signal.SIGINT)
    assert done.stderr.count("Traceback") == 1, done.stderr
    handed_over = {int(line) for line in (tmp_path / "results").read_text().split()}
    support.check_file(tmp_path / "run.rrd")
    assert handed_over - set(support.numbers(tmp_path / "run.rrd")) == set()


def test_a_worker_dies_when_it_has_just_got_a_new_outbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Forked workers have the low limit too: each task gets its own outbox.
    monkeypatch.setattr(outbox_writer, "OUTBOX_ROLL_BYTES", 1)
    monkeypatch.setenv("MPR_FAILPOINTS", f"worker.rolled@1:{_VICTIM + 1}:kill")
    path = tmp_path / "run.rrd"
    errors = _run(path, start_method="fork")
    assert {number for number, error in errors.items() if error is not None} == {_VICTIM}
    assert _rows_of_tasks(path) == _ALL


def test_a_recording_that_is_closed_under_its_pool_ends_the_pool(tmp_path: Path) -> None:
    recording = mpr.SharedRecording("app", sinks=tmp_path / "run.rrd")
    with pytest.raises(mpr.RecordingClosedError), mpr.Pool("app", 1, recording=recording) as pool:
        assert pool.apply(tasks.log_number, (1,)) == 1
        result = pool.apply_async(tasks.wait_for_file, (tmp_path / "never",))
        recording.close()
        result.get(60)
    support.check_file(tmp_path / "run.rrd")
    assert support.numbers(tmp_path / "run.rrd") == Counter([1])


def test_an_exception_in_telemetry_fails_no_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.rrd"
    monkeypatch.setenv("MPR_FAILPOINTS", "parent.telemetry:1:raise")
    with mpr.Pool("app", 1, sinks=path) as pool:
        assert [0, 1, 2] == pool.map(tasks.log_number, range(3))
    support.check_file(path)
    assert Counter(range(3)) == support.numbers(path)
    messages = [record.message for record in caplog.records if "records nothing of itself any more" in record.message]
    assert 1 == len(messages)


def test_every_failpoint_is_named_in_a_test() -> None:
    files = (Path(__file__), Path(__file__).with_name("test_outbox_writer.py"))
    source = "".join(path.read_text() for path in files)
    assert [] == [place for place in failpoints.PLACES if f"{place}" not in source]


def test_tasks_that_log_nothing_cost_the_sinks_nothing(tmp_path: Path) -> None:
    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd", telemetry=False) as pool:
        # A worker that has several tasks at a time has all the threads that it ever has.
        before = pool.map(tasks.count_threads_and_files, range(8), chunksize=2)
        chunks = pool.recording.stats().accepted_chunks
        assert pool.map(tasks.square, range(20_000)) == [number * number for number in range(20_000)]
        assert pool.recording.stats().accepted_chunks == chunks
        after = pool.map(tasks.count_threads_and_files, range(8), chunksize=2)
    assert max(after) <= max(before)

"""`route="direct"`: workers send their rows to the sinks themselves, and keep the promises that hold there."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import rerun as rr
import rerun.blueprint as rrb

import mpr
from mpr.producer import direct
from mpr.rrd import recover
from tests import support, tasks, viewers
from tests.viewers import listening, reading, url_of, wait_for_state

# A task ends within this time, whatever the viewer does. The limit of mpr is lower, but a test machine may be slow.
_BOUND_SECS = 60


def _parts(path: Path) -> list[Path]:
    return sorted(path.with_name(f"{path.name}.parts").iterdir())


def test_workers_write_files_of_their_own_that_become_one(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    blueprint = rrb.Blueprint(rrb.TimeSeriesView(origin="/n"))
    with mpr.Pool(
        "app",
        2,
        sinks=path,
        route="direct",
        start_method=start_method,
        blueprint=blueprint,
        telemetry=False,
        telemetry_view=False,
    ) as pool:
        pool.map(tasks.log_number, range(20), chunksize=1)
        # The rows of a result are with the system when the result is there.
        written: Counter[int] = sum((support.numbers_of_growing(each) for each in _parts(path)), Counter())
        assert written == Counter(range(20))
        assert pool.recording.stats().accepted_chunks == 0
        with pytest.raises(mpr.WorkerDiedError, match="The rows that it had logged until then"):
            pool.apply(tasks.log_and_die, (20,))
        pool.recording.stream.log("n", rr.Scalars(21.0))
        pool.apply(tasks.log_to_unsaved_recording, (22,))
        pool.apply(tasks.log_everything, (3,))
    support.check_file(path)
    assert support.numbers(path) == Counter([*range(23), 222])
    support.check_file(tmp_path / "run-own_22.rrd")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run-own_22.rrd", "run.rrd"]
    reader = rr.chunk.RrdReader(path)
    (entry,) = reader.recordings()
    assert (entry.application_id, entry.recording_id) == ("app", pool.recording.recording_id)
    assert len(reader.blueprints()) == 1
    starts = [each for each in support.cells(path, properties=True) if each.component == "RecordingInfo:start_time"]
    assert len(starts) == 1


def test_a_viewer_and_a_server_get_the_rows_from_the_workers(tmp_path: Path) -> None:
    path, port = tmp_path / "run.rrd", viewers.free_port()
    sinks = [path, url_of(port), mpr.GrpcServerSink(port=0)]
    with (
        listening(tmp_path / "viewer.rrd", port) as viewer,
        mpr.Pool("app", 2, sinks=sinks, route="direct") as pool,
    ):
        wait_for_state(pool.recording, "connected", 1)
        with reading(tmp_path / "reader.rrd", pool.recording.urls[1]) as reader:
            pool.map(tasks.log_number, range(50), chunksize=1)
            pool.recording.stream.log("n", rr.Scalars(50.0))
            for peer in (viewer, reader):
                support.wait_for(lambda peer=peer: _numbers(peer) == Counter(range(51)), 60)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(51))


def _numbers(peer: viewers.Receiver) -> Counter[int]:
    return Counter(
        int(float(cell.value.strip("[]"))) for cell in peer.cells().elements() if cell.component == "Scalars:scalars"
    )


def test_a_viewer_that_is_killed_costs_a_file_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, port = tmp_path / "run.rrd", viewers.free_port()
    with (
        listening(tmp_path / "viewer.rrd", port) as viewer,
        mpr.Pool("app", 2, sinks=[path, url_of(port)], route="direct") as pool,
    ):
        pool.map(tasks.log_number, range(20), chunksize=1)
        viewer.kill()
        assert pool.map(tasks.log_number, range(20, 60), chunksize=1) == list(range(20, 60))
    support.check_file(path)
    assert support.numbers(path) == Counter(range(60))
    lost = [each for each in caplog.messages if "brings no more rows to" in each]
    # Each worker has its own connection.
    assert 1 <= len(lost) <= 2
    assert all(url_of(port) in each and "all are in its file" in each for each in lost)
    assert {f"mpr: {each.text}" for each in support.texts(path)} >= set(lost)


def test_without_a_file_a_viewer_that_is_killed_is_an_error_and_one_that_comes_back_is_not(tmp_path: Path) -> None:
    port = viewers.free_port()
    with mpr.Pool("app", 1, sinks=[url_of(port)], route="direct") as pool:
        with listening(tmp_path / "viewer.rrd", port):
            assert pool.apply(tasks.log_number, (1,)) == 1
        with pytest.raises(mpr.DeliveryError, match=r"worker 1 \(pid \d+\) cannot bring its rows to "):
            pool.apply(tasks.log_number, (2,))
        # The next worker makes its own connection.
        with listening(tmp_path / "again.rrd", port) as viewer:
            assert pool.apply(tasks.log_number, (3,)) == 3
            support.wait_for(lambda: _numbers(viewer) == Counter([3]))


@pytest.mark.parametrize("with_file", [True, False])
def test_a_viewer_that_reads_no_more_is_an_error_within_a_bound(
    with_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forked workers have the low limit too."""
    monkeypatch.setattr(direct, "DIRECT_FLUSH_SECS", 1.0)
    path, port = tmp_path / "run.rrd", viewers.free_port()
    sinks = [path, url_of(port)] if with_file else [url_of(port)]
    with listening(tmp_path / "viewer.rrd", port) as viewer:
        pool = mpr.Pool("app", 1, sinks=sinks, route="direct", start_method="fork")
        assert pool.apply(tasks.log_number, (1,)) == 1
        viewer.stop()
        started = time.monotonic()
        with pytest.raises((mpr.DeliveryError, mpr.WorkerDiedError)):
            pool.apply(tasks.log_images, (0, 100))
        pool.close()
        pool.join()
        assert time.monotonic() - started < _BOUND_SECS
    if with_file:
        support.check_file(path)
        assert support.numbers(path) == Counter([1])
        assert any("cannot bring its rows to" in each.text for each in support.texts(path))


def test_a_viewer_that_was_not_started_is_an_error_or_a_note_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "DIRECT_CONNECT_SECS", 0.5)
    port = viewers.free_port()
    with (
        mpr.Pool("app", 1, sinks=[url_of(port)], route="direct", start_method="fork") as pool,
        pytest.raises(mpr.DeliveryError, match="nobody has listened there"),
    ):
        pool.apply(tasks.log_number, (1,))
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=[path, url_of(port)], route="direct", start_method="fork") as pool:
        assert pool.apply(tasks.log_number, (1,)) == 1
    support.check_file(path)
    assert support.numbers(path) == Counter([1])
    assert any(url_of(port) in each.text for each in support.texts(path))


@mpr.task
def _task(number: int) -> None:
    tasks.log_number(number)


def test_the_error_for_two_types_of_one_name_names_both_workers(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    pool = mpr.Pool("app", 1, maxtasksperchild=1, sinks=path, route="direct", start_method="fork")
    pool.apply(tasks.log_at_sequence)
    pool.apply(tasks.log_at_duration)
    pool.close()
    with pytest.raises(mpr.ConflictError, match=r"in worker 1 .* in worker 2 "):
        pool.join()
    support.check_file(path)


def test_processes_that_mpr_did_not_start_write_files_of_their_own_too(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    context = multiprocessing.get_context("spawn")
    with mpr.SharedRecording("app", sinks=path, route="direct") as recording:
        children = [context.Process(target=_task, args=(number,)) for number in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
        with mpr.Pool("app", 1, recording=recording) as pool:
            pool.apply(tasks.log_number, (2,))
        assert len(_parts(path)) == 3
    support.check_file(path)
    assert support.numbers(path) == Counter(range(3))


def test_tasks_behind_one_that_takes_the_sink_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, route="direct", start_method="fork") as pool:
        for number in range(3):
            pool.apply(tasks.log_number, (number,))
            pool.apply(tasks.save_then_log, (10 * number + 10, tmp_path / f"own-{number}.rrd"))
    support.check_file(path)
    assert support.numbers(path) == Counter([0, 1, 2, 10, 20, 30])


_KILLED = """
import os, signal, sys, mpr
from tests import tasks

if __name__ == "__main__":
    pool = mpr.Pool("app", 2, sinks=sys.argv[1], route="direct", start_method="fork")
    pool.map(tasks.log_number, range(20), chunksize=1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_files_of_a_killed_parent_are_kept_and_can_be_recovered(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    ran = support.run_python(_KILLED, path)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    parts = _parts(path)
    with pytest.raises(mpr.SinkError, match=r"run\.rrd\.parts has what the workers of a run have left.*mpr recover"):
        mpr.SharedRecording("app", sinks=path, route="direct")
    assert _parts(path) == parts
    for part in parts:
        worker = int(part.name.split("-")[2])
        support.wait_for(lambda worker=worker: not support.lives(worker))
        try:
            recover.recover(part)
        except mpr.SinkError as error:
            # One worker may have run all tasks before the other one was ready.
            if "there are no rows" not in str(error):
                raise
            part.unlink()
            continue
        support.check_file(part)
    assert sum((support.numbers(each) for each in _parts(path)), Counter()) == Counter(range(20))


def test_a_run_that_fails_before_its_first_row_does_no_harm_to_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    path.write_bytes(b"older")
    with pytest.raises(ValueError, match="before"), mpr.Pool("app", 1, sinks=path, route="direct"):
        raise ValueError("before")
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("sinks", "words"),
    [
        (lambda folder: mpr.DirectorySink(path=folder / "tasks"), "a DirectorySink is neither"),
        (lambda folder: [folder / "a.rrd", mpr.BinaryStreamSink()], "a BinaryStreamSink is neither"),
        (lambda folder: mpr.FileSink(path=folder / "a.rrd", write_footer=False), "leave write_footer=True"),
    ],
)
def test_sinks_that_workers_cannot_open_are_refused(sinks: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(mpr.ConfigError, match=words):
        mpr.Pool("app", 1, sinks=sinks(tmp_path), route="direct")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_route_is_refused(tmp_path: Path) -> None:
    with pytest.raises(mpr.ConfigError, match="route must be 'funnel'"):
        mpr.Pool("app", 1, sinks=tmp_path / "a.rrd", route="straight")  # type: ignore[arg-type]  # what is tested
    with (
        mpr.SharedRecording("app", sinks=tmp_path / "a.rrd") as recording,
        pytest.raises(mpr.ConfigError, match="to the SharedRecording"),
    ):
        mpr.Pool("app", 1, recording=recording, route="direct")
    stream = rr.RecordingStream("app")
    stream.save(tmp_path / "mine.rrd")
    with stream, pytest.raises(mpr.ConfigError, match="your own active recording"):
        mpr.Pool("app", 1, route="direct")

"""If a caller has a result, its rows are in the file, each once, and another process can read them at that moment."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import mpr
from tests import support, tasks


def test_every_row_of_every_worker_is_in_one_valid_file(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=[mpr.FileSink(path=path)], start_method=start_method) as pool:
        assert list(range(20)) == pool.map(tasks.log_number, range(20), chunksize=1)
    support.check_file(path)
    assert Counter(range(20)) == support.numbers(path)


_READ = (
    "import sys; from tests import support; from pathlib import Path; print(dict(support.numbers(Path(sys.argv[1]))))"
)


def test_another_process_reads_the_rows_of_a_result_before_close(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        for number in range(3):
            pool.apply(tasks.log_number, (number,))
            # The file has no footer yet, of which the reader warns.
            read = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", _READ, path],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            assert dict.fromkeys(range(number + 1), 1) == eval(read.stdout)


def test_a_pool_records_the_same_cells_as_one_process(start_method: Any, tmp_path: Path) -> None:
    """Archetypes, columns, static data, several timelines and properties are the same."""
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        pool.map(tasks.log_everything, range(4), chunksize=1)
    support.check_file(path)
    alone = tmp_path / "alone.rrd"
    script = (
        "import sys, rerun as rr\nfrom tests import tasks\n"
        "rec = rr.RecordingStream('app', recording_id='x', make_default=True)\nrec.save(sys.argv[1])\n"
        "for index in range(4):\n    rr.reset_time()\n    tasks.log_everything(index)\nrec.disconnect()\n"
    )
    subprocess.run([sys.executable, "-c", script, alone], check=True, timeout=60)
    expected = support.cells(alone, properties=True)
    found = support.cells(path, properties=True)
    start_time = "RecordingInfo:start_time"
    assert {c: n for c, n in expected.items() if c.component != start_time} == {
        c: n for c, n in found.items() if c.component != start_time
    }


def test_the_ids_are_the_parents_and_so_is_the_start_time(tmp_path: Path) -> None:
    import time

    import rerun as rr

    path = tmp_path / "run.rrd"
    before = time.time_ns()
    with mpr.Pool("app", 2, sinks=path, recording_id="chosen") as pool:
        pool.map(tasks.log_number, range(4))
    after = time.time_ns()
    (entry,) = rr.chunk.RrdReader(path).recordings()
    assert ("app", "chosen") == (entry.application_id, entry.recording_id)
    starts = [
        chunk.to_record_batch().column("RecordingInfo:start_time").to_pylist()[0][0]
        for chunk in support.chunks(path)
        if "RecordingInfo:start_time" in chunk.to_record_batch().schema.names
    ]
    (start,) = starts
    assert before <= int(start) <= after


def test_the_parents_name_and_start_time_of_the_recording_win_over_those_of_tasks(
    start_method: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        pool.recording.stream.send_recording_name("the parent's")
        pool.map(tasks.name_recording, range(4), chunksize=1)
    support.check_file(path)
    info = [cell for cell in support.cells(path, properties=True) if cell.component.startswith("RecordingInfo:")]
    ours = {cell.component: cell.value for cell in info if cell.entity == "/__properties"}
    assert ours["RecordingInfo:name"] == repr(["the parent's"])
    assert int(ours["RecordingInfo:start_time"].strip("[]")) > 1_000_000_000
    theirs = {cell.value for cell in info if cell.entity.startswith("/__properties/worker_")}
    assert theirs == {repr([f"as task {index} says"]) for index in range(4)} | {repr([index]) for index in range(4)}


def test_properties_of_tasks_are_kept_beside_the_parents(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 3, sinks=path) as pool:
        pool.map(tasks.log_everything, range(3), chunksize=1)
    entities = {cell.entity for cell in support.cells(path, properties=True)}
    assert {"/__properties/task_0", "/__properties/task_1", "/__properties/task_2"} <= entities


@pytest.mark.parametrize("method", ["imap", "imap_unordered", "map", "starmap", "apply", "submit", "async"])
def test_each_kind_of_call_keeps_the_promise(method: str, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        if method in ("imap", "imap_unordered"):
            for number in getattr(pool, method)(tasks.log_number, range(10)):
                assert number in support.numbers_of_growing(path)
        elif method == "map":
            pool.map(tasks.log_number, range(10))
        elif method == "starmap":
            pool.starmap(tasks.log_number, ((number,) for number in range(10)))
        elif method == "apply":
            for number in range(10):
                pool.apply(tasks.log_number, (number,))
        elif method == "submit":
            futures = [pool.submit(tasks.log_number, number) for number in range(10)]
            assert list(range(10)) == [future.result(60) for future in futures]
        else:
            results = [pool.apply_async(tasks.log_number, (number,)) for number in range(10)]
            assert list(range(10)) == [result.get(60) for result in results]
        assert Counter(range(10)) == support.numbers_of_growing(path)
    support.check_file(path)


def test_an_exception_comes_after_the_rows_of_its_task(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        for number, task, error in ((1, tasks.log_and_raise, ValueError), (2, tasks.log_and_exit, SystemExit)):
            with pytest.raises(error):
                pool.apply(task, (number,))
            assert number in support.numbers_of_growing(path)
        # The workers live on.
        assert 3 == pool.apply(tasks.log_number, (3,))
    assert Counter([1, 2, 3]) == support.numbers(path)


def test_rows_from_a_thread_of_the_task_and_after_rr_init_are_kept(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        pool.apply(tasks.log_from_thread, (1,))
        pool.apply(tasks.init_then_log, (2,))
        pool.apply(tasks.log_number, (3,))
    support.check_file(path)
    assert Counter([1, 2, 3]) == support.numbers(path)


def test_a_worker_that_is_killed_loses_nothing_that_the_sdk_had_written(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        pool.map(tasks.log_number, range(10))
        with pytest.raises(mpr.WorkerDiedError) as caught:
            pool.apply(tasks.log_and_die, (100,))
        assert -9 == caught.value.exitcode
        assert "log_and_die" in str(caught.value)
        pool.map(tasks.log_number, range(10, 20))
    support.check_file(path)
    assert Counter([*range(20), 100]) == support.numbers(path)


def test_the_parents_own_rows_are_in_the_recording_too(tmp_path: Path) -> None:
    import rerun as rr

    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        pool.recording.stream.log("n", rr.Scalars(7.0))
        pool.recording.flush()
        assert 7 in support.numbers_of_growing(path)
        pool.map(tasks.log_number, range(5))
    support.check_file(path)
    assert Counter([0, 1, 2, 3, 4, 7]) == support.numbers(path)


def test_a_task_that_takes_the_sink_has_it_until_its_end(start_method: Any, tmp_path: Path) -> None:
    path, own = tmp_path / "run.rrd", tmp_path / "own.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        pool.apply(tasks.save_then_log, (0, own))
        pool.apply(tasks.log_number, (2,))
        pool.apply(tasks.disconnect_between, (3,))
        assert set(support.numbers_of_growing(path)) == {0, 2, 3, 4}
        pool.apply(tasks.log_number, (5,))
    support.check_file(path)
    assert support.numbers(path) == Counter([0, 2, 3, 4, 5])
    assert support.numbers(own) == Counter([1])


def test_rows_of_a_task_recording_with_a_sink_are_only_there(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        pool.starmap(tasks.log_to_saved_recording, [(number, tmp_path) for number in range(4)], 1)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(4))
    assert [support.numbers(tmp_path / f"own-{number}.rrd") for number in range(4)] == [{n: 1} for n in range(4)]


def test_tasks_in_upstreams_style_lose_nothing(start_method: Any, tmp_path: Path) -> None:
    """`rr.init` in each task, and `@rr.shutdown_at_exit`: without mpr, 2 of 20 rows."""
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        assert pool.map(tasks.log_and_shut_down, range(20), chunksize=1) == list(range(20))
    support.check_file(path)
    assert support.numbers(path) == Counter(range(20))

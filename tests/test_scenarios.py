"""Scenes with many processes that lose data without mpr."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import rerun as rr

import mpr
from tests import support, tasks


def test_short_tasks_of_a_pool_that_is_left_at_once_are_all_there(start_method: Any, tmp_path: Path) -> None:
    """`with multiprocessing.Pool()` keeps 0 of these 20 rows."""
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        results = [pool.apply_async(tasks.log_number, (number,)) for number in range(20)]
    # Leaving the block has waited for the work.
    assert [result.get(0) for result in results] == list(range(20))
    support.check_file(path)
    assert support.numbers(path) == Counter(range(20))


_WRITER = """
import sys, mpr
from pathlib import Path
from tests import tasks

if __name__ == "__main__":
    folder, name = Path(sys.argv[1]), sys.argv[2]
    with mpr.Pool("app", 2, sinks=folder / "run.rrd") as pool:
        pool.map(tasks.log_number, range(200))
        (folder / f"wrote-{name}").touch()
        tasks.wait_for_file(folder / "enough")
"""


def test_of_three_programs_that_write_one_path_one_writes_and_two_get_an_error(tmp_path: Path) -> None:
    """Without mpr: 200 of 600 rows, a file that does not verify, and exit code 0 three times."""
    command = [sys.executable, "-c", _WRITER, str(tmp_path)]
    programs = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(3)
    ]
    try:
        support.wait_for(lambda: sum(program.poll() is not None for program in programs) == 2, 60)
        support.wait_for(lambda: any(tmp_path.glob("wrote-*")), 60)
    finally:
        (tmp_path / "enough").touch()
        errors = [program.communicate(timeout=60)[1] for program in programs]
    assert sorted(program.returncode for program in programs) == [0, 1, 1]
    assert sum("is being written by another recording" in text for text in errors) == 2
    path = tmp_path / "run.rrd"
    support.check_file(path)
    assert support.numbers(path) == Counter(range(200))


def test_a_time_that_one_task_sets_is_not_on_the_rows_of_the_next(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        pool.apply(tasks.set_a_time, (0,))
        pool.apply(tasks.log_without_time, (0,))
    times = {cell.entity: cell.times for cell in support.cells(path)}
    assert times == {"/first": (("only_first", 1),), "/second": ()}


def test_three_workers_properties_are_kept_and_the_start_time_is_the_parents(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 3, sinks=path) as pool:
        pool.map(tasks.send_own_property, range(3), chunksize=1)
    properties = [cell for cell in support.cells(path, properties=True) if cell.entity.startswith("/__properties")]
    assert sorted(cell.entity for cell in properties if "start_time" not in cell.component) == [
        "/__properties/worker_0",
        "/__properties/worker_1",
        "/__properties/worker_2",
    ]
    assert sum("start_time" in cell.component for cell in properties) == 1


def test_a_thousand_tasks_in_one_worker_leave_it_with_few_threads(tmp_path: Path) -> None:
    """A recording stream per task would leave two threads each."""
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        counts = pool.map(tasks.count_threads, range(1000), chunksize=1)
    assert max(counts) < 20
    support.check_file(path)
    assert support.numbers(path) == Counter(range(1000))


def test_two_hundred_workers_start_beside_threads_that_log(tmp_path: Path) -> None:
    """Without mpr, 5 of 35 forks beside such threads hang."""
    stop = threading.Event()
    own = rr.RecordingStream("own")
    own.save(tmp_path / "own.rrd")

    def log() -> None:
        while not stop.is_set():
            own.log("busy", rr.Scalars(1.0))

    threads = [threading.Thread(target=log) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            path = tmp_path / f"{number}.rrd"
            with mpr.Pool("app", 10, sinks=path) as pool:
                # A work item is handed to each worker that is ready, so all ten have to start.
                assert (
                    len(set(pool.starmap(tasks.pid_after_meeting, [(tmp_path / f"meet-{number}", 10)] * 10, 1))) == 10
                )
            support.check_file(path)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        own.disconnect()


def test_two_pools_share_one_recording(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        with mpr.Pool("app", 2, recording=recording) as one, mpr.Pool("app", 2, recording=recording) as two:
            first = one.map_async(tasks.log_number, range(50), 1)
            second = two.map_async(tasks.log_number, range(50, 100), 1)
            assert first.get(60) + second.get(60) == list(range(100))
        # A pool does not close a recording that it was given.
        recording.stream.log("n", rr.Scalars(100.0))
    support.check_file(path)
    assert support.numbers(path) == Counter(range(101))


def test_a_blueprint_is_in_the_file(tmp_path: Path) -> None:
    import rerun.blueprint as rrb

    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, blueprint=rrb.Blueprint(rrb.TimeSeriesView(origin="/n"))) as pool:
        pool.map(tasks.log_number, range(3))
    support.check_file(path)
    # The user's own layout, and at the end the same with the state timelines of the pool below.
    assert len(rr.chunk.RrdReader(path).blueprints()) == 2
    assert support.numbers(path) == Counter(range(3))


def test_with_rerun_switched_off_tasks_run_and_nothing_is_recorded(tmp_path: Path) -> None:
    script = """
import sys, mpr
from tests import tasks
if __name__ == "__main__":
    with mpr.Pool("app", 2, sinks=sys.argv[1]) as pool:
        print(pool.map(tasks.log_number, range(3)))
"""
    ran = support.run_python(script, tmp_path / "run.rrd", env={"RERUN": "off"})
    assert (ran.returncode, ran.stdout) == (0, "[0, 1, 2]\n"), ran.stderr
    assert list(tmp_path.iterdir()) == []

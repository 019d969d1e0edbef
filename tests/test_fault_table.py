"""Every fault that mpr promises to survive, with the tests that show it. Some of these tests follow here."""

from __future__ import annotations

import ast
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import mpr
from mpr import limits
from tests import support, tasks

# Each fault, its outcome, and the test of it.
_TABLE = [
    ("a worker is killed before it has sent anything", "its task fails, the others go on",
     "test_faults.test_a_worker_dies_at_a_named_moment"),
    ("... behind the rows, before the result", "its task fails, its rows are there once",
     "test_faults.test_a_worker_dies_at_a_named_moment"),
    ("... right behind the result", "the result has all its rows",
     "test_faults.test_a_worker_dies_at_a_named_moment"),
    ("... at any moment", "each result has exactly its rows",
     "test_random_kills.test_results_have_exactly_their_rows_however_workers_are_killed"),
    ("... while it changes its outbox", "nothing of the old one is lost",
     "test_faults.test_a_worker_dies_when_it_has_just_got_a_new_outbox"),
    ("... with retries", "the task runs again, and the recording says so",
     "test_faults.test_with_retries_the_task_runs_again"),
    ("... by every task", "each fails when its retries are used up",
     "test_faults.test_a_task_that_kills_every_worker_fails_when_its_retries_are_used_up"),
    ("os._exit, sys.exit, SIGSEGV, SIGTERM, SIGKILL", "the error names it",
     "test_faults.test_the_error_names_how_the_worker_died"),
    ("a task of a chunk kills the worker", "only that task fails",
     "test_faults.test_only_the_task_that_ran_fails_of_a_chunk"),
    ("a worker's stream is damaged", "its tasks fail with an error that says so; the others go on",
     "test_fault_table.test_a_damaged_stream_fails_its_task_and_no_other"),
    ("a sink is slow", "rr.log waits, memory is bounded",
     "test_data_path.test_memory_stays_bounded_while_the_sink_is_slower_than_the_workers"),
    ("a sink's disk is full", "SinkError in all calls that wait, accepted rows can be read",
     "test_sink_faults.test_a_full_disk_is_an_error_at_once_and_the_other_sink_gets_everything"),
    ("a sink's file is deleted or replaced", "SinkError, and no other file is touched",
     "test_data_path.test_a_file_that_is_taken_away_is_an_error_and_no_other_file_is_touched"),
    ("the parent is killed", "its workers end, its file has every row of every result",
     "test_faults.test_the_parent_is_killed_at_a_named_moment"),
    ("the parent is stopped", "no worker takes it for dead, nothing is lost",
     "test_fault_table.test_a_stopped_parent_is_not_dead"),
    ("a worker is stopped", "the others go on; it goes on, too",
     "test_faults.test_a_stopped_worker_delays_no_other_worker"),
    ("the aggregator raises", "every future has that error",
     "test_faults.test_every_future_gets_the_error_of_a_failed_aggregator"),
    ("Ctrl-C between rows and result", "all ends, the file is valid",
     "test_faults.test_ctrl_c_between_the_rows_of_a_result_and_the_result"),
    ("Ctrl-C twice", "all ends at once, the file can be recovered", "test_ends.test_ctrl_c_twice_ends_all_too"),
    ("Ctrl-C anywhere in a call, and the program goes on", "the pool works and ends",
     "test_interrupts.test_an_interrupted_call_leaves_a_pool_that_works_and_ends"),
    ("a forked child uses the pool", "an error there, nothing here",
     "test_data_path.test_a_process_that_a_task_forks_cannot_harm_the_recording"),
    ("garbage, a wrong secret, another protocol on the socket", "counted, and nothing else",
     "test_transport.test_garbage_is_counted_and_ignored"),
    ("another user connects", "permission denied", "test_fault_table.test_another_user_cannot_reach_the_sockets"),
    ("TMPDIR is too long for a socket", "another folder is used",
     "test_odd_uses.test_a_tmpdir_with_a_long_path_or_a_missing_one_works"),
    ("a viewer reads nothing, or dies", "the run takes no notice",
     "test_live.test_a_viewer_cannot_cost_rows_or_time"),
    ("one row is larger than all credit", "it goes alone",
     "test_fault_table.test_a_row_larger_than_all_credit_arrives"),
    ("many workers, little credit", "all finish", "test_fault_table.test_many_workers_with_little_credit_all_finish"),
    ("tasks that log nothing", "no round trip", "test_faults.test_tasks_that_log_nothing_cost_the_sinks_nothing"),
    ("each task has a recording of its own", "threads stay few",
     "test_fault_table.test_tasks_that_make_recordings_leave_few_threads"),
    ("the clock is set back", "no timeout notices", "test_fault_table.test_a_clock_that_jumps_changes_nothing"),
    ("a worker hangs at its end, in native code", "it is ended, and that is said",
     "test_fault_table.test_a_worker_that_hangs_at_its_end_is_ended"),
    ("a task raises behind its rows", "its error comes behind them, too",
     "test_promise.test_an_exception_comes_after_the_rows_of_its_task"),
    ("a task's exception raises when it is looked at", "its task has that error; the others go on",
     "test_hostile_exceptions.test_a_hostile_exception_fails_only_its_own_task"),
    ("a worker dies before it has sent rows of a task recording", "the task fails, or runs again",
     "test_faults.test_a_result_on_the_status_page_counts_only_if_its_rows_have_arrived"),
    ("a result or an exception cannot be pickled", "a description of it; the worker lives",
     "test_pickling.test_a_result_that_cannot_travel_fails_alone_as_in_a_multiprocessing_pool"),
    ("the interpreter exits without close", "the file is valid",
     "test_ends.test_the_interpreter_exits_without_close_or_join"),
    ("a worker damages its memory or its messages", "its tasks fail, it is replaced, the others go on",
     "test_damage.test_damage_is_the_error_of_its_own_task"),
    ("a joined process damages them", "its rows fail, the others go on",
     "test_damage.test_damage_in_a_process_that_has_joined"),
    ("a process in another container names files by numbers", "no file is opened, its rows travel in messages",
     "test_shared_file.test_a_process_whose_numbers_are_those_of_another_one"),
    ("the recording is closed under its pool", "the pool ends with that",
     "test_faults.test_a_recording_that_is_closed_under_its_pool_ends_the_pool"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "test"), [(fault, test) for fault, _, test in _TABLE])
def test_every_fault_of_the_table_has_its_test(fault: str, test: str) -> None:
    module, _, name = test.partition(".")
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, fault


def test_a_damaged_stream_fails_its_task_and_no_other(tmp_path: Path) -> None:
    """Bytes that are no message fail the task whose rows are behind them, and the worker is replaced."""
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        assert pool.apply(tasks.log_number, (0,)) == 0
        with pytest.raises(mpr.DeliveryError, match="sent data that is no Rerun stream"):
            pool.apply(tasks.damage_outbox, (1,))
        assert pool.map(tasks.log_number, range(2, 12), chunksize=1) == list(range(2, 12))
    support.check_file(path)
    found = support.numbers(path)
    found.pop(1, None)
    assert found == Counter([0, *range(2, 12)])


_STOPPED = """
import sys, mpr
from pathlib import Path
from tests import support, tasks

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with mpr.Pool("app", 2, sinks=folder / "run.rrd") as pool:
        results = pool.imap_unordered(tasks.log_number, range(2000), chunksize=1)
        pids = {pool.apply(tasks.pid) for _ in range(20)}
        print(*pids, flush=True)
        assert sorted(results) == list(range(2000))
        sys.exit(None if all(map(support.lives, pids)) else "a worker was replaced")
"""


def test_a_stopped_parent_is_not_dead(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _STOPPED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pids = [int(pid) for pid in program.stdout.readline().split()]
        program.send_signal(signal.SIGSTOP)
        # A worker notices a dead parent in less time.
        time.sleep(6)
        assert all(support.lives(pid) for pid in pids)
        program.send_signal(signal.SIGCONT)
        assert program.wait(100) == 0
    support.check_file(tmp_path / "run.rrd")
    assert support.numbers(tmp_path / "run.rrd") == Counter(range(2000))


_CONNECT = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except PermissionError:
    sys.exit(7)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_another_user_cannot_reach_the_sockets(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd"):
            (folder,) = support.folders_of(os.getpid())
            for name in ("up", "down"):
                done = subprocess.run([sys.executable, "-S", "-c", _CONNECT, str(folder / name)], check=False)
                assert done.returncode == 7
    finally:
        os.umask(before)


def test_a_row_larger_than_all_credit_arrives(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        results = [pool.apply_async(tasks.log_noise, (number, 100)) for number in range(2)]
        assert [each.get(100) for each in results] == [0, 1]
    support.check_file(path)
    assert path.stat().st_size > 2 * 100 * 1024 * 1024
    assert support.row_counts(path) == {("/noise", 0): 1, ("/noise", 1): 1}


def test_many_workers_with_little_credit_all_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The credit of each worker is less than one of its rows takes."""
    monkeypatch.setattr(limits, "OUTBOX_TOTAL_BYTES", 1024 * 1024)
    monkeypatch.setattr(limits, "OUTBOX_MIN_BYTES", 64 * 1024)
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 16, sinks=path) as pool:
        assert pool.map(tasks.log_some_images, range(32), chunksize=1) == list(range(32))
    support.check_file(path)
    rows = support.row_counts(path)
    assert rows == {(f"/image/{number}", step): 1 for number in range(32) for step in range(5)}


def test_tasks_that_make_recordings_leave_few_threads(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        # The SDK ends the threads of streams that are gone some at a time.
        assert max(pool.map(tasks.log_episode_and_count_threads, range(300), chunksize=1)) < 100
    support.check_file(path)


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.rrd"
    real, real_ns = time.time, time.time_ns
    with mpr.Pool("app", 2, sinks=path, task_timeout=600.0) as pool:
        assert pool.apply(tasks.log_number, (0,)) == 0
        for hours in (-1, 1, -24, 24):
            monkeypatch.setattr(time, "time", lambda hours=hours: real() + 3600 * hours)
            monkeypatch.setattr(time, "time_ns", lambda hours=hours: real_ns() + 3600 * 10**9 * hours)
            assert pool.map(tasks.log_number, [hours] * 4, chunksize=1) == [hours] * 4
    monkeypatch.undo()
    support.check_file(path)
    assert support.numbers(path) == Counter([0, *[-1, 1, -24, 24] * 4])


def test_a_worker_that_hangs_at_its_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mpr.pool.worker_runtime._FAREWELL_SECS", 0.5)
    path = tmp_path / "run.rrd"
    with caplog.at_level(logging.WARNING, "mpr"), mpr.Pool("app", 1, tasks.hang_at_exit, sinks=path) as pool:
        assert pool.map(tasks.log_number, range(10)) == list(range(10))
    # The census checks that the workers are gone.
    assert [record.getMessage() for record in caplog.records] == ["ending 1 worker by SIGTERM"]
    support.check_file(path)
    assert support.numbers(path) == Counter(range(10))

"""Every end of a pool leaves no process, thread or folder behind, and a file with all accepted rows."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.aggregator import events
from mpr.aggregator.events import WorkerExited
from mpr.processes import forkserver
from tests import support, tasks


def test_an_exception_in_the_block_terminates_the_pool(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    started = tmp_path / "started"
    with pytest.raises(KeyError), mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        pool.map(tasks.log_number, range(3))
        result = pool.apply_async(tasks.log_then_wait, (3, started, tmp_path / "never"))
        support.wait_for(started.exists)
        raise KeyError
    with pytest.raises(mpr.PoolTerminatedError):
        result.get(0)
    support.check_file(path)
    assert set(support.numbers(path)) >= {0, 1, 2}


def test_terminate_can_be_called_twice_and_join_after_it(start_method: Any, tmp_path: Path) -> None:
    pool = mpr.Pool("app", 2, sinks=tmp_path / "run.rrd", start_method=start_method)
    pool.map(tasks.log_number, range(3))
    pool.terminate()
    pool.terminate()
    pool.join()
    support.check_file(tmp_path / "run.rrd")
    with pytest.raises(mpr.PoolClosedError):
        pool.map(tasks.square, [1])


def test_a_callback_may_end_the_pool_and_may_not_wait_for_it(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    pool = mpr.Pool("app", 2, sinks=path)
    pool.map(tasks.log_number, range(3))
    raised: list[BaseException] = []

    def end(_: object) -> None:
        pool.close()
        try:
            pool.join()
        except RuntimeError as error:
            raised.append(error)
        pool.terminate()

    pool.apply_async(tasks.log_number, (3,), callback=end).wait(60)
    assert "cannot wait for its own pool" in str(raised)
    support.wait_for(lambda: pool.recording.closed)
    support.wait_for(lambda: not any("carry-through" in thread.name for thread in threading.enumerate()))
    support.check_file(path)
    assert set(support.numbers(path)) == {0, 1, 2, 3}


def test_a_pool_without_any_task_leaves_a_valid_file(start_method: Any, tmp_path: Path) -> None:
    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd", start_method=start_method):
        pass
    support.check_file(tmp_path / "run.rrd")


def test_a_pool_that_has_broken_ends_its_other_workers_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = mpr.Pool("app", 2, tasks.refuse_the_second, (tmp_path / "first",), sinks=tmp_path / "run.rrd")
    with pytest.raises(mpr.InitializerError):
        while True:
            pool.apply(tasks.log_number, (1,))
    pool.close()
    pool.join()
    # Only a worker that does not end in time gets SIGTERM.
    assert "SIGTERM" not in caplog.text
    support.check_file(tmp_path / "run.rrd")


def test_a_forgotten_pool_ends_itself(tmp_path: Path) -> None:
    pool = mpr.Pool("app", 2, sinks=tmp_path / "run.rrd")
    pool.map(tasks.log_number, range(3))
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        del pool
        gc.collect()
    support.check_file(tmp_path / "run.rrd")


_SCRIPT = """
import os, sys, time, mpr
from pathlib import Path
from tests import tasks

if __name__ == "__main__":
    folder, how, method = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    pool = mpr.Pool("app", 2, sinks=folder / "run.rrd", start_method=method)
    pids = pool.map(tasks.log_number, range(10))
    (folder / "pids").write_text(" ".join(map(str, {pool.apply(tasks.pid) for _ in range(20)})))
    if how == "close":
        pool.apply_async(tasks.log_number, (10,))
        pool.close()
    elif how == "busy":
        pool.apply_async(tasks.log_then_wait, (11, folder / "started", folder / "never"))
        tasks.wait_for_file(folder / "never")
"""


def _start(folder: Path, how: str, method: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _SCRIPT, str(folder), how, method]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, start_new_session=True)


@pytest.mark.parametrize("how", ["no close", "close"])
def test_the_interpreter_exits_without_close_or_join(how: str, start_method: str, tmp_path: Path) -> None:
    program = _start(tmp_path, how, start_method)
    _, stderr = program.communicate(timeout=60)
    assert program.returncode == 0, stderr
    # The SDK ends before the pool does, and prints no error.
    assert "is not accepted" not in stderr
    support.check_file(tmp_path / "run.rrd")
    assert set(support.numbers(tmp_path / "run.rrd")) >= set(range(10))
    _assert_gone(tmp_path)


def test_ctrl_c_ends_all_and_leaves_a_valid_file(start_method: str, tmp_path: Path) -> None:
    program = _start(tmp_path, "busy", start_method)
    support.wait_for((tmp_path / "started").exists, 60)
    # The terminal sends the signal to the whole group.
    os.killpg(program.pid, signal.SIGINT)
    _, stderr = program.communicate(timeout=60)
    assert program.returncode in (1, -signal.SIGINT)
    assert stderr.count("Traceback") == 1, stderr
    support.check_file(tmp_path / "run.rrd")
    assert set(support.numbers(tmp_path / "run.rrd")) >= set(range(10))
    _assert_gone(tmp_path)


def test_the_workers_of_a_killed_parent_end_and_its_rows_are_in_the_file(start_method: str, tmp_path: Path) -> None:
    program = _start(tmp_path, "busy", start_method)
    support.wait_for((tmp_path / "started").exists, 60)
    program.kill()
    program.communicate(timeout=60)
    _assert_gone(tmp_path)
    # The file has no footer, but every row of a result that the parent had.
    assert set(support.numbers_of_growing(tmp_path / "run.rrd")) >= set(range(10))
    # The next start removes the folders that the killed parent left.
    with mpr.Pool("app", 1, sinks=tmp_path / "next.rrd") as pool:
        pool.map(tasks.log_number, range(2))
    assert support.folders_of(program.pid) == []


def _assert_gone(folder: Path) -> None:
    pids = [int(pid) for pid in (folder / "pids").read_text().split()]
    support.wait_for(lambda: not any(support.lives(pid) for pid in pids), 5)


def _is_gone(pid: int) -> bool:
    return not support.lives(pid)


def test_a_worker_is_replaced_after_its_number_of_tasks(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, maxtasksperchild=3, sinks=path, start_method=start_method) as pool:
        pids = [pool.apply(tasks.pid) for _ in range(9)]
        assert [len(set(pids[start : start + 3])) for start in (0, 3, 6)] == [1, 1, 1]
        assert len(set(pids)) == 3
        pool.map(tasks.log_number, range(7), chunksize=1)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(7))


def test_a_killed_worker_costs_one_task_and_is_replaced(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        results = [pool.apply_async(tasks.log_number, (number,)) for number in range(20)]
        killed = pool.apply_async(tasks.die, (0,))
        more = [pool.apply_async(tasks.log_number, (number,)) for number in range(20, 40)]
        assert [result.get(60) for result in results + more] == list(range(40))
        with pytest.raises(mpr.WorkerDiedError, match=r"was killed by SIGKILL.* while it ran task die"):
            killed.get(60)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(40))


def test_a_closed_pool_replaces_workers_until_its_work_is_done(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, maxtasksperchild=1, sinks=path) as pool:
        result = pool.map_async(tasks.log_number, range(5), 1)
    assert result.get(0) == list(range(5))
    assert support.numbers(path) == Counter(range(5))


def test_imap_reads_an_endless_input_at_the_pace_of_the_reader(tmp_path: Path) -> None:
    read = []

    def endless() -> Any:
        number = 0
        while True:
            read.append(number)
            yield number
            number += 1

    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd") as pool:
        results = pool.imap(tasks.log_number, endless())
        assert [next(results) for _ in range(10)] == list(range(10))
        assert len(read) <= 10 + 4 * 2 + 1
        # The rest is not read: the pool can end.
        del results


def _kill_fork_servers() -> None:
    for pid in forkserver.servers.pids():
        os.kill(pid, signal.SIGKILL)
        support.wait_for(functools.partial(_is_gone, pid))


def test_a_fork_server_that_was_killed_is_replaced(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "one.rrd") as pool:
        pool.map(tasks.log_number, range(2))
    _kill_fork_servers()
    path = tmp_path / "two.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        pool.map(tasks.log_number, range(10))
        workers = {pool.apply(tasks.pid) for _ in range(20)}
        _kill_fork_servers()
        # Without the fork server, nothing reports how these workers end. So they end now, and others take their place.
        support.wait_for(lambda: not any(support.lives(pid) for pid in workers))

        def works() -> bool:
            try:
                return pool.apply(tasks.log_number, (10,)) == 10
            except mpr.WorkerDiedError:
                return False

        support.wait_for(works)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(11))


@pytest.mark.parametrize("crash", range(3))
def test_a_task_that_has_ended_is_not_run_again_when_its_worker_dies(
    crash: int, start_method: Any, tmp_path: Path
) -> None:
    """This holds also for a result that is too large for the journal: it may be lost, but its rows are there once."""
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        # After short tasks, the worker is sent several at a time.
        pool.map(tasks.square, range(20), chunksize=1)
        big = pool.apply_async(tasks.big_result, (1,))
        died = pool.apply_async(tasks.log_and_die, (2,))
        after = pool.apply_async(tasks.log_number, (3,))
        with pytest.raises(mpr.WorkerDiedError, match="log_and_die"):
            died.get(60)
        assert after.get(60) == 3
        big.wait(60)
        if not big.successful():
            with pytest.raises(mpr.WorkerDiedError, match="big_result") as caught:
                big.get(0)
            assert caught.value.ended
    support.check_file(path)
    assert support.numbers(path) == Counter([1, 2, 3])


def _is_exit(received: Any) -> bool:
    return isinstance(received, bytes) and isinstance(events.decode(received), WorkerExited)


def test_a_recording_ends_when_its_workers_have_said_goodbye(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes may take longer to exit."""
    path = tmp_path / "run.rrd"
    pool = mpr.Pool("app", 1, sinks=path)
    up = pool.recording._runtime.sockets.up
    receive = up.receive

    def receive_no_end(timeout_secs: float) -> Any:
        received = receive(timeout_secs)
        return None if _is_exit(received) else received

    monkeypatch.setattr(up, "receive", receive_no_end)
    assert pool.apply(tasks.log_number, (1,)) == 1
    pool.close()
    pool.join()
    support.check_file(path)
    assert support.numbers(path) == Counter([1])


def test_a_recording_does_not_end_before_it_has_heard_of_a_worker_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZeroMQ may show a message of another thread some milliseconds after it was sent."""
    path = tmp_path / "run.rrd"
    pool = mpr.Pool("app", 2, sinks=path)
    pid = pool.apply(tasks.pid)
    up = pool.recording._runtime.sockets.up
    receive = up.receive
    held: list[Any] = []
    looks = iter(range(10))

    def receive_late(timeout_secs: float) -> Any:
        if held and next(looks, None) is None:
            return held.pop(0)
        received = receive(0.001 if held else timeout_secs)
        if not _is_exit(received):
            return received
        held.append(received)
        return None

    monkeypatch.setattr(up, "receive", receive_late)
    # The call of the old `receive`, which was waiting, returns with a message of this task.
    assert pool.apply(tasks.log_number, (1,)) == 1
    pool.close()
    os.kill(pid, signal.SIGKILL)
    pool.join()
    assert next(looks, None) is None
    support.check_file(path)
    assert support.numbers(path) == Counter([1])


def test_the_file_is_finished_before_the_exit_handlers_of_workers_are(start_method: Any, tmp_path: Path) -> None:
    path, marker = tmp_path / "run.rrd", tmp_path / "marker"
    with mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        pool.apply(tasks.wait_for_footer_at_exit, (path, marker))
    assert marker.exists()
    support.check_file(path)


_SLOW_TO_IMPORT = """
import os, sys, time, mpr
from pathlib import Path
from tests import tasks

folder, method = Path(sys.argv[1]), sys.argv[2]
if __name__ == "__main__":
    with mpr.Pool("app", 3, sinks=folder / "run.rrd", start_method=method) as pool:
        assert pool.map(tasks.log_number, range(3)) == [0, 1, 2]
else:
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        time.sleep(3600)
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_worker_that_is_still_importing_is_not_waited_for(method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SLOW_TO_IMPORT)
    command = [sys.executable, str(script), str(tmp_path), method]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    support.check_file(tmp_path / "run.rrd")
    assert support.numbers(tmp_path / "run.rrd") == Counter([0, 1, 2])


def test_a_worker_whose_child_lives_on_is_noticed_when_it_dies(start_method: Any, tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", start_method=start_method) as pool:
        try:
            with pytest.raises(mpr.WorkerDiedError):
                pool.apply_async(tasks.leave_a_child_and_die, (tmp_path,)).get(30)
            assert pool.apply(tasks.log_number, (1,)) == 1
        finally:
            (tmp_path / "child may end").touch()


def test_two_pools_of_forked_workers_end_one_after_the_other(tmp_path: Path) -> None:
    """The second zygote has the pipe and the file of the first pool. Neither may keep a part of that pool alive."""
    path = tmp_path / "one.rrd"
    one = mpr.Pool("app", 1, sinks=path, start_method="fork")
    one.map(tasks.log_number, range(3))
    with mpr.Pool("app", 1, sinks=tmp_path / "two.rrd", start_method="fork") as two:
        one.close()
        one.join()
        with mpr.Pool("app", 1, sinks=path) as again:
            again.map(tasks.log_number, range(5))
        two.map(tasks.log_number, range(3))
    support.check_file(path)
    assert support.numbers(path) == Counter(range(5))


def test_ctrl_c_twice_ends_all_too(start_method: str, tmp_path: Path) -> None:
    program = _start(tmp_path, "busy", start_method)
    support.wait_for((tmp_path / "started").exists, 60)
    os.killpg(program.pid, signal.SIGINT)
    os.killpg(program.pid, signal.SIGINT)
    _, stderr = program.communicate(timeout=60)
    assert program.returncode != 0, stderr
    assert set(support.numbers_of_growing(tmp_path / "run.rrd")) >= set(range(10))
    _assert_gone(tmp_path)


def test_a_callback_that_exits_ends_neither_pool_nor_program(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        pool.apply_async(tasks.square, (2,), callback=sys.exit).wait(60)
        assert pool.apply(tasks.square, (3,)) == 9
    assert "a callback for task square raised" in caplog.text


@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_a_server_that_is_stopped_goes_on(method: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=method) as pool:
        assert pool.apply(tasks.log_number, (1,)) == 1
        zygotes = [child.pid for child in multiprocessing.active_children() if child.name == "mpr-zygote"]
        for pid in zygotes if method == "fork" else forkserver.servers.pids():
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
        # The worker that replaces this one needs the server.
        with pytest.raises(mpr.WorkerDiedError):
            pool.apply(tasks.die, (0,))
        assert pool.apply(tasks.log_number, (2,)) == 2
    assert any("is stopped, so none can start" in record.getMessage() for record in caplog.records)
    assert support.numbers(path) == Counter([1, 2])

"""Processes that mpr did not start become producers of a recording."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import json
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest
import rerun as rr

import mpr
from mpr.aggregator import aggregator, intake
from mpr.producer import outbox_writer, propagation
from mpr.tasks.wrapped import Wrapped
from mpr.transport import connection_info
from tests import engine_work, functions, support, tasks

# Python warns of `fork` in a process with threads since 3.12. These tests show that it works all the same.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def _run(target: Any, *args: Any, method: str = "spawn") -> int:
    child = multiprocessing.get_context(method).Process(target=target, args=args)
    child.start()
    child.join(60)
    assert child.exitcode is not None
    return child.exitcode


def _python(source: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_processes_pools_and_executors_of_the_standard_library(start_method: str, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    context: Any = multiprocessing.get_context(start_method)
    before = (dict(os.environ), propagation.extract())
    with mpr.SharedRecording("app", sinks=path):
        assert _run(functions.log_number, 0, method=start_method) == 0
        # The rows are in the file as soon as a decorated function returns.
        assert support.numbers_of_growing(path) == Counter([0])
        assert _run(functions.join_and_log, 1, method=start_method) == 0
        assert support.numbers_of_growing(path) == Counter([0, 1])
        assert _run(functions.log_and_raise, 2, method=start_method) == 1
        assert _run(functions.log_and_exit, 3, method=start_method) == 3
        assert _run(functions.init_then_log, 4, method=start_method) == 0
        assert _run(functions.log_here_and_in_a_child, 5, start_method, method=start_method) == 0
        with context.Pool(2) as pool:
            assert pool.map(functions.log_number, range(10, 20), chunksize=1) == list(range(10, 20))
            assert pool.map(functions.Detector(20).detect, range(2)) == [20, 21]
            # Leaving the block terminates the workers.
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
            assert list(executor.map(functions.log_number, range(30, 40))) == list(range(30, 40))
    assert (dict(os.environ), propagation.extract()) == before
    support.check_file(path)
    assert support.numbers(path) == Counter([*range(8), *range(10, 22), *range(30, 40)])


def test_functions_that_are_decorated_under_another_name(start_method: str, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    context: Any = multiprocessing.get_context(start_method)
    with mpr.SharedRecording("app", sinks=path):
        assert _run(functions.log_renamed, 1, method=start_method) == 0
        with context.Pool(1) as pool:
            assert pool.map(functions.log_with_options, [2, 3]) == [2, 3]
            assert pool.map(functions.log_rebound, [4]) == [4]
            assert pool.apply(functions.log_partial) == 7
            arguments = functions.count_renamed, functions.walk_renamed
            assert pool.apply(functions.count_and_walk, arguments) == ([0, 1], 2)
    with mpr.Pool("app", 1, sinks=tmp_path / "pool.rrd", start_method=start_method) as ours:
        assert ours.map(functions.log_renamed, [5]) == [5]
    support.check_file(path)
    assert support.numbers(path) == Counter([1, 4, 7, 0, 1, 2])
    assert support.numbers(path, "/renamed/n") == Counter([2, 3])
    assert support.numbers(tmp_path / "pool.rrd") == Counter([5])
    assert functions.log_rebound.__name__ == "log_rebound"
    assert cloudpickle.loads(cloudpickle.dumps(functions.log_renamed))(6) == 6
    walking = functions.walk_renamed(1)
    assert inspect.isawaitable(walking)
    walking.close()
    with warnings.catch_warnings():
        # Frameworks call it, although it is deprecated from Python 3.14 on.
        warnings.simplefilter("ignore", DeprecationWarning)
        assert asyncio.iscoroutinefunction(functions.walk_renamed)
        assert not asyncio.iscoroutinefunction(functions.count_renamed)
    assert inspect.iscoroutinefunction(functions.walk_renamed)
    assert inspect.isgeneratorfunction(functions.count_renamed)
    assert inspect.isfunction(functions.log_partial)


def test_the_text_of_an_error_is_in_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        _run(functions.log_and_raise, 7)
    ((entity, text, level),) = support.texts(path)
    assert (entity, level) == ("/mpr/tasks/log_and_raise", "ERROR")
    assert text.startswith("Traceback")
    assert text.endswith("ValueError: task 7 failed\n")


_CHILD = "import mpr, rerun as rr; mpr.join(); rr.log('n', rr.Scalars({}))"


def test_subprocesses_join_by_their_environment(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    recording = mpr.SharedRecording("app", sinks=path)
    # A process that starts outside of the block does not join.
    refused = _python(_CHILD.format(0))
    assert refused.returncode == 1
    assert "there is no recording to join" in refused.stderr
    assert _python(_CHILD.format(1), env=recording.environ()).returncode == 0
    with recording:
        assert _python(_CHILD.format(2)).returncode == 0
        assert support.numbers_of_growing(path) == Counter([1, 2])
        # A child of a child joins, although the child itself does not.
        nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_CHILD.format(3)!r}], check=True)"
        assert _python(nested).returncode == 0
    support.check_file(path)
    assert support.numbers(path) == Counter([1, 2, 3])


def test_recordings_that_end_in_another_order_give_the_environment_back(tmp_path: Path) -> None:
    before = (dict(os.environ), propagation.extract())
    first = mpr.SharedRecording("first", sinks=tmp_path / "first.rrd")
    second = mpr.SharedRecording("second", sinks=tmp_path / "second.rrd")
    with first:
        second.__enter__()
        assert _python(_CHILD.format(1)).returncode == 0
    assert _python(_CHILD.format(2)).returncode == 0
    second.close()
    assert (dict(os.environ), propagation.extract()) == before
    assert support.numbers(tmp_path / "second.rrd") == Counter([1, 2])
    assert support.numbers(tmp_path / "first.rrd") == Counter()


def test_forked_children_and_threads(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        assert functions.fork_and_log(1) == 0
        functions.run_in_thread(functions.log_number, 2)
        functions.log_number(3)
    with mpr.Pool("app", 1, sinks=tmp_path / "pool.rrd") as pool:
        # A child of a worker logs to the recording of the pool.
        assert pool.apply(functions.fork_and_log, (4,)) == 0
        pool.apply(functions.log_here_and_in_a_child, (5, "spawn"))
    assert support.numbers(path) == Counter([1, 2, 3])
    assert support.numbers(tmp_path / "pool.rrd") == Counter([4, 5, 6, 7])
    support.check_file(path)
    support.check_file(tmp_path / "pool.rrd")


def test_rows_that_a_process_logs_while_it_ends_are_kept(start_method: str, tmp_path: Path) -> None:
    path, ending, go_on = tmp_path / "run.rrd", tmp_path / "ending", tmp_path / "go"
    with mpr.SharedRecording("app", sinks=path):
        child = multiprocessing.get_context(start_method).Process(
            target=functions.join_and_log_at_the_end, args=(1, ending, go_on)
        )
        child.start()
        support.wait_for(ending.exists)
        go_on.touch()
        child.join(60)
        assert child.exitcode == 0
    support.check_file(path)
    assert support.numbers(path) == Counter([1, 2])
    assert [text.text for text in support.texts(path)] == ["of a thread"]


_LATE = """
import atexit, rerun as rr
# Registered before mpr is there, so it runs after it.
atexit.register(lambda: [rr.log("n", rr.Scalars(2.0)) for _ in range(3)])
import mpr
mpr.join()
rr.log("n", rr.Scalars(1.0))
"""


def test_a_row_that_comes_too_late_is_reported_as_lost(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        ran = _python(_LATE)
    assert ran.returncode == 0
    assert ran.stderr.count("its rows are lost. Daemon threads and exit handlers come too late") == 1
    assert support.numbers(path) == Counter([1])
    # The same holds for a pool's worker.
    source = """
import sys, mpr
from multiprocessing import util
from tests import tasks
def work(number):
    util.Finalize(None, tasks.log_number, (2,), exitpriority=0)
    return tasks.log_number(number)
if __name__ == "__main__":
    with mpr.Pool("app", 1, sinks=sys.argv[1]) as pool:
        pool.apply(work, (1,))
"""
    ran = support.run_python(source, tmp_path / "pool.rrd")
    assert ran.stderr.count("its rows are lost") == 1, ran.stderr
    assert support.numbers(tmp_path / "pool.rrd") == Counter([1])


def test_rr_save_in_a_task_takes_rows_only_until_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        # The task runs twice in this process, and once in another one.
        for number in (10, 20):
            functions.save_then_log(number, tmp_path / f"{number}.rrd")
            functions.log_number(number + 5)
        assert _run(functions.save_then_log, 30, tmp_path / "30.rrd") == 0
        recording.stream.log("n", rr.Scalars(40.0))
    support.check_file(path)
    assert support.numbers(path) == Counter([10, 15, 20, 25, 30, 40])
    assert [support.numbers(tmp_path / f"{number}.rrd") for number in (10, 20, 30)] == [
        Counter([number]) for number in (11, 21, 31)
    ]
    assert sum("rr.save() in a task of mpr" in record.getMessage() for record in caplog.records) == 1


def test_processes_whose_files_the_parent_cannot_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same in another container: the bytes come in messages, and a process id says nothing."""

    def refuse(*_: object) -> None:
        raise PermissionError("another user's, or another container's")

    monkeypatch.setattr(intake, "OutboxReader", refuse)
    monkeypatch.setattr(aggregator, "process_lives", lambda _: False)
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        child = multiprocessing.get_context("spawn").Process(
            target=functions.join_log_and_wait, args=(1, tmp_path / "started", tmp_path / "go")
        )
        child.start()
        support.wait_for((tmp_path / "started").exists)
        assert _run(functions.log_number, 3) == 0
        assert support.numbers_of_growing(path)[3] == 1
        (tmp_path / "go").touch()
        child.join(60)
        assert child.exitcode == 0
    support.check_file(path)
    assert support.numbers(path) == Counter([1, 2, 3])


def test_threads_that_wait_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The function changes this limit in this process, so restore it.
    monkeypatch.setattr(outbox_writer, "OUTBOX_ROLL_BYTES", outbox_writer.OUTBOX_ROLL_BYTES)
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        functions.log_from_many_threads(0, path)
        assert _run(functions.log_from_many_threads, 100, path) == 0
    support.check_file(path)
    assert support.numbers(path) == Counter([*range(40), *range(100, 140)])


def test_the_ids_are_those_of_the_recording(tmp_path: Path) -> None:
    source = (
        "import mpr, rerun as rr; stream = mpr.join(); assert stream.get_recording_id() == rr.get_recording_id();"
        "assert mpr.join().get_recording_id() == rr.get_recording_id();"
        "print(rr.get_recording_id(), rr.get_application_id(), rr.is_enabled())"
    )
    with mpr.SharedRecording("app", recording_id="run-7", sinks=tmp_path / "run.rrd") as recording:
        ran = _python(source, env=recording.environ())
    assert ran.stdout.split() == ["run-7", "app", "True"], ran.stderr


def test_rows_of_a_killed_process_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        child = multiprocessing.get_context("spawn").Process(
            target=functions.join_log_and_wait, args=(1, tmp_path / "started", tmp_path / "never")
        )
        child.start()
        support.wait_for((tmp_path / "started").exists)
        child.kill()
        child.join()
        fds = psutil.Process().num_fds()
        for number in (3, 4, 5):
            _run(functions.join_and_log, number)
        # The descriptors for an ended process are closed, also those for the killed one.
        assert psutil.Process().num_fds() <= fds
    support.check_file(path)
    assert support.numbers(path) == Counter([1, 3, 4, 5])


# --- what cannot be joined ----------------------------------------------------------------------------------------


def _changed(environ: dict[str, str], **fields: Any) -> dict[str, str]:
    return {
        **environ,
        connection_info.VARIABLE: json.dumps({**json.loads(environ[connection_info.VARIABLE]), **fields}),
    }


_JOIN = "import mpr; mpr.join(timeout=2)"


def test_an_unusable_environment_is_one_clear_error(tmp_path: Path) -> None:
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        environ = recording.environ()
        folder = json.loads(environ[connection_info.VARIABLE])["folder"]
        cases = {
            "not one that mpr has made": {**environ, connection_info.VARIABLE: "nonsense"},
            "speaks protocol 77": _changed(environ, protocol=77),
            "folder of the wrong type|has not what a recording needs": _changed(environ, folder=1),
            "has not what": _changed(environ, colour="red"),
            "did not answer within 2 s": _changed(environ, secret="0" * 64),
            "is closed, or its process has ended": _changed(environ, folder=f"{folder}-gone"),
            "is in another container of this machine": _changed(environ, folder=str(tmp_path)),
        }
        for text, env in cases.items():
            ran = _python(_JOIN, env=env)
            assert ran.returncode == 1
            assert any(each in ran.stderr for each in text.split("|")), ran.stderr
            assert "Error: " in ran.stderr
        # None of these messages has the secret.
        secret = json.loads(environ[connection_info.VARIABLE])["secret"]
        assert secret not in _python(_JOIN, env=_changed(environ, folder=str(tmp_path))).stderr
        assert recording.stats().rejected_messages > 0
    ran = _python(_JOIN, env=environ)
    assert "RecordingClosedError" in ran.stderr


def test_a_recording_of_another_machine_or_container_is_not_called_closed(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        environ = recording.environ()
        gone = json.loads(environ[connection_info.VARIABLE])["folder"] + "-elsewhere"
        # Another secret, because this process has made the recording of the right one.
        elsewhere = {"folder": gone, "place": "kernel/1/2", "secret": "0" * 64}
        other = connection_info.from_text(_changed(environ, machine="a", **elsewhere)[connection_info.VARIABLE])
        with pytest.raises(mpr.JoinError, match=f"is on machine 'a', this is '{socket.gethostname()}'") as caught:
            Wrapped(tasks.log_number, other)(1)
        assert caught.value.machine == "a"
        assert pickle.loads(pickle.dumps(caught.value)).machine == "a"
        container = connection_info.from_text(_changed(environ, **elsewhere)[connection_info.VARIABLE])
        with pytest.raises(mpr.JoinError, match="is in another container of this machine") as caught:
            Wrapped(tasks.log_number, container)(1)
        assert caught.value.machine is None
        # A decorated function runs, and logs the reason once.
        source = "from tests import functions; print(functions.log_number(1), functions.log_number(2))"
        ran = _python(source, env=_changed(environ, machine="a", **elsewhere))
        assert ran.stdout == "1 2\n"
        assert ran.stderr.count("is on machine 'a'") == 1


_AS_ANOTHER_USER = """
import os, sys, mpr, rerun as rr
from mpr.producer import membership
from tests import functions
os.setuid(65534)
try:
    mpr.join(timeout=2)
except mpr.JoinError as error:
    print(error)
print(functions.log_number(1))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_recording_of_another_user_is_a_message(tmp_path: Path) -> None:
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        ran = _python(_AS_ANOTHER_USER, env=recording.environ())
    assert "belongs to user 'root' (uid 0), this process runs as" in ran.stdout, ran.stderr
    assert ran.stdout.endswith("\n1\n")
    assert "PermissionError" not in ran.stderr


@pytest.mark.skipif(os.getuid() == 0, reason="root may enter every folder")
def test_a_folder_that_may_not_be_entered_is_a_message(tmp_path: Path) -> None:
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        environ = recording.environ()
        folder = Path(json.loads(environ[connection_info.VARIABLE])["folder"])
        folder.chmod(0)
        ran = _python(_JOIN, env=environ)
        folder.chmod(0o700)
    assert "may not enter it" in ran.stderr


def test_a_folder_that_is_no_folder_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        ran = _python(_JOIN, env=_changed(recording.environ(), folder=str(tmp_path / "file" / "deeper")))
    assert "JoinError: " in ran.stderr
    assert "cannot enter it" in ran.stderr


def test_a_task_that_cannot_join_runs_all_the_same_and_says_so_once(tmp_path: Path) -> None:
    recording = mpr.SharedRecording("app", sinks=tmp_path / "run.rrd")
    environ = recording.environ()
    recording.close()
    source = (
        "import sys, rerun as rr; from tests import functions; rr.init('own'); rr.save(sys.argv[1]);"
        "print([functions.log_number(number) for number in (1, 2)])"
    )
    command = [sys.executable, "-c", source, str(tmp_path / "own.rrd")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)
    assert ran.stdout == "[1, 2]\n", ran.stderr
    assert ran.stderr.count("is closed, or its process has ended") == 1
    assert support.numbers(tmp_path / "own.rrd") == Counter([1, 2])


_PARENT = """
import sys, mpr, multiprocessing
from pathlib import Path
from tests import functions

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with mpr.SharedRecording("app", sinks=folder / "run.rrd") as recording:
        args = (5, folder / "started", folder / "enough")
        child = multiprocessing.get_context("spawn").Process(target=functions.log_until_stopped, args=args)
        child.start()
        print(child.pid, flush=True)
        child.join()
"""


def test_a_process_that_logs_does_not_hang_when_its_recording_is_killed(tmp_path: Path) -> None:
    """It goes on, with one error, and drops its rows instead of keeping them in memory."""
    with (tmp_path / "errors").open("wb") as errors:
        parent = subprocess.Popen(
            [sys.executable, "-c", _PARENT, str(tmp_path)], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    support.wait_for((tmp_path / "started").exists, 60)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    # The process logs that, and goes on.
    support.wait_for(lambda: "or its process has ended" in (tmp_path / "errors").read_text(), 60)
    (tmp_path / "enough").touch()
    support.wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 60)
    assert (tmp_path / "errors").read_text().count("from now on is kept") == 1
    parent.stdout.close()


def test_a_recording_that_closes_before_a_process_ends(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        child = multiprocessing.get_context("spawn").Process(
            target=functions.join_log_and_wait, args=(1, tmp_path / "started", tmp_path / "go")
        )
        child.start()
        support.wait_for((tmp_path / "started").exists)
    (tmp_path / "go").touch()
    child.join(60)
    # The process does its own work to the end. The test above checks what it prints.
    assert child.exitcode == 0
    support.check_file(path)
    assert support.numbers(path) == Counter([1])


# --- wrap ---------------------------------------------------------------------------------------------------------

_ENGINE = """
import pickle, sys
for line in sys.stdin:
    function, argument = pickle.loads(bytes.fromhex(line))
    print(function(argument), flush=True)
"""


class _Engine:
    """A process that does not know mpr, and runs the pickled calls that it gets."""

    def __init__(self) -> None:
        environ = {name: value for name, value in os.environ.items() if name != connection_info.VARIABLE}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ENGINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
        )

    def run(self, data: bytes) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(data.hex() + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def __enter__(self) -> _Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)


def test_a_wrapped_function_joins_the_recording_in_a_process_that_does_not_know_it(tmp_path: Path) -> None:
    path, second = tmp_path / "run.rrd", tmp_path / "second.rrd"
    with _Engine() as engine:
        recording = mpr.SharedRecording("app", sinks=path)
        wrapped = recording.wrap(tasks.log_number)
        for number, dumps in enumerate((pickle.dumps, cloudpickle.dumps)):
            assert engine.run(dumps((wrapped, number))) == str(number)
            # The rows are in the file when it returns.
            assert support.numbers_of_growing(path) == Counter(range(number + 1))
        offset = 2
        closure = recording.wrap(lambda number: functions.log_number(number + offset))
        assert engine.run(pickle.dumps((closure, 0))) == "2"
        # The same worker joins another recording; then this process does.
        with mpr.SharedRecording("other", sinks=second) as other:
            assert engine.run(pickle.dumps((other.wrap(functions.count), 2))).startswith("<generator")
            assert engine.run(pickle.dumps((other.wrap(tasks.log_from_thread), 1))) == "1"
        assert engine.run(pickle.dumps((recording.wrap(tasks.log_number), 3))) == "3"
        assert recording.wrap(functions.log_number)(4) == 4
        recording.close()
        with pytest.raises(mpr.RecordingClosedError):
            wrapped(5)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(5))
    assert support.numbers(second) == Counter([1])


def test_a_wrapped_function_passes_as_a_function(tmp_path: Path) -> None:
    def local(number: int, *, factor: float = 2.0) -> float:
        """Multiply."""
        return number * factor

    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        wrapped = recording.wrap(local)
        copies = [
            loads(dumps(wrapped)) for dumps, loads in ((pickle.dumps, pickle.loads), (cloudpickle.dumps, pickle.loads))
        ]
        for each in (wrapped, *copies):
            assert inspect.isfunction(each)
            assert each(3, factor=3.0) == 9.0
            assert (each.__name__, each.__doc__, each.__module__) == ("local", "Multiply.", __name__)
            assert each.__qualname__ == local.__qualname__
        assert inspect.signature(wrapped) == inspect.signature(local)
        assert inspect.signature(copies[0]) == inspect.signature(local)
        assert inspect.unwrap(wrapped) is local
        # It is what its function is.
        assert inspect.isgeneratorfunction(recording.wrap(functions.count))
        assert inspect.iscoroutinefunction(recording.wrap(functions.walk))
        assert not inspect.isgeneratorfunction(wrapped)
        # A copy of a copy, in both ways.
        assert cloudpickle.loads(cloudpickle.dumps(copies[1]))(1) == 2.0
        assert pickle.loads(pickle.dumps(copies[0]))(1) == 2.0
        assert "secret" not in repr(wrapped)
        # As a method.
        holder = type("Holder", (), {"method": recording.wrap(lambda self, number: number)})()
        assert holder.method(4) == 4


def test_the_methods_of_a_wrapped_class_log_in_any_process(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        kind = recording.wrap(engine_work.Counter)
        assert (kind.__name__, kind.__qualname__, kind.__doc__) == ("Counter", "Counter", engine_work.Counter.__doc__)
        assert inspect.signature(kind) == inspect.signature(engine_work.Counter)
        assert inspect.isfunction(kind.add)
        assert inspect.iscoroutinefunction(kind.later)
        made = kind(0)
        assert isinstance(made, engine_work.Counter)
        assert (made.add(1), made(2), kind.static(3), kind.of_class(4), list(made.steps(5))) == (1, 3, 3, 4, [5])
        # A class whose base class has a class of its own, and no argument.
        assert recording.wrap(engine_work.Counted)().add(7) == 13
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
            found = executor.submit(engine_work.use_counter, cloudpickle.dumps(kind), 10).result(60)
        assert found == ([21, 33, 13, 14, [15], 16], None)
        with pytest.raises(pickle.PicklingError, match="not the same object"):
            pickle.dumps(kind)
    with pytest.raises(mpr.RecordingClosedError):
        made.add(8)
    support.check_file(path)
    assert support.numbers(path) == Counter([*range(8), *range(10, 17)])


def test_an_object_that_cannot_be_wrapped_is_refused_at_once(tmp_path: Path) -> None:
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        with pytest.raises(mpr.UnpicklableTaskError, match="only what can be called"):
            recording.wrap(3)  # type: ignore[arg-type]  # the error is what is tested
        with pytest.raises(mpr.UnpicklableTaskError, match="cannot have a subclass"):
            recording.wrap(bool)
        lock = rr.RecordingStream("lock")
        with pytest.raises(mpr.UnpicklableTaskError, match="its variable 'lock'"):
            pickle.dumps(recording.wrap(lambda: lock))

"""How a process that has joined may end, and whether its rows are there: every way of ending x every route."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.aggregator import intake
from mpr.transport import connection_info
from tests import functions, support, tasks

# Larger than what is sent with a copy in any case, so that a message without a copy would show.
_AT_EXIT = """
import atexit, sys
import mpr, numpy as np, rerun as rr
kind = sys.argv[1]
mpr.join()
stream = None if kind == "shared" else rr.RecordingStream("own", recording_id="own")

def log(numbers):
    for number in numbers:
        noise = np.random.default_rng(number).integers(0, 255, (300, 300, 3), np.uint8)
        rr.log("noise", rr.Image(noise), recording=stream)
        rr.log("n", rr.Scalars(float(number)), recording=stream)

log(range(40))
# Handlers run in the reverse order: this one before the process leaves the recording, and after the one of pyzmq.
atexit.register(log, range(40, 60))
from multiprocessing import util
util.Finalize(None, log, (range(60, 80),), exitpriority=0)
"""


def _as_in_another_container(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("another container's")

    monkeypatch.setattr(intake, "OutboxReader", refuse)


def _python(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("route", ["memory", "messages"])
@pytest.mark.parametrize("kind", ["shared", "own"])
def test_rows_of_exit_handlers_arrive(route: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if route == "messages":
        _as_in_another_container(monkeypatch)
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        ran = _python(_AT_EXIT, kind)
    assert (ran.returncode, ran.stderr) == (0, "")
    found: Counter[Any] = Counter()
    for file in recording.paths:
        found += support.numbers(file)
    assert found == Counter(range(80))
    assert recording.stats().torn_processes == 0


# --- ends without exit handlers -----------------------------------------------------------------------------------

_LOG = """
import os, signal, sys, time
import mpr, rerun as rr
def log(numbers):
    for number in numbers:
        rr.log("n", rr.Scalars(float(number)))
mpr.join()
log(range(100))
"""

# What the process does after it has logged. All of this comes at once: no tick of the SDK has written anything.
_ENDS: dict[str, str] = {
    "returns": "",
    "raises": "raise SystemExit(0)",
    "os._exit": "os._exit(0)",
    "another program": "os.execv(sys.executable, [sys.executable, '-c', ''])",
    "a program that is not there": (
        "try: os.execvp('no-such-program', ['x'])\nexcept OSError: mpr.join(); log(range(100, 110))"
    ),
    "os._exit of a thread": (
        "import threading; thread = threading.Thread(target=os._exit, args=(0,)); thread.start(); thread.join()"
    ),
    "fork": "if os.fork() == 0: mpr.join(); log(range(100, 120)); os._exit(0)\nos.wait()",
}
_MORE = {"fork": 20, "a program that is not there": 10}


@pytest.mark.parametrize("route", ["memory", "messages"])
@pytest.mark.parametrize("end", _ENDS)
def test_rows_arrive_however_a_process_ends(
    end: str, route: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if route == "messages":
        _as_in_another_container(monkeypatch)
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        ran = _python(_LOG + _ENDS[end])
    assert (ran.returncode, ran.stderr) == (0, "")
    assert support.numbers(path) == Counter(range(100 + _MORE.get(end, 0)))
    assert recording.stats().torn_processes == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_rows_of_children_of_multiprocess_arrive(tmp_path: Path) -> None:
    multiprocess = pytest.importorskip("multiprocess")
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        child = multiprocess.Process(target=functions.join_and_log, args=(1,))
        child.start()
        child.join()
    assert support.numbers(path) == Counter([1])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_rows_of_a_pool_whose_workers_are_killed_arrive(tmp_path: Path) -> None:
    # Leaving the block kills the workers, at once after the last result.
    import multiprocessing

    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        with multiprocessing.get_context("fork").Pool(2, initializer=mpr.join) as pool:
            assert pool.map(tasks.log_number, range(100), chunksize=5) == list(range(100))
        assert recording.stats().processes == 2
    assert support.numbers(path) == Counter(range(100))


def test_the_rows_of_a_process_that_is_killed_are_said_to_be_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        ran = _python(_LOG + "os.kill(os.getpid(), signal.SIGKILL)")
    assert ran.returncode == -signal.SIGKILL
    reported = "ended without leaving the recording: its last rows may be missing"
    assert [reported in record.getMessage() for record in caplog.records].count(True) == 1
    assert [reported in each.text for each in support.texts(path)] == [True]
    assert recording.stats().torn_processes == 1


# --- the recording ends first -------------------------------------------------------------------------------------

_WAIT = "print('logged', flush=True); sys.stdin.readline()"


def _waiting() -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", _LOG + _WAIT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "logged\n"
    return child


@pytest.mark.parametrize("route", ["memory", "messages"])
def test_a_recording_that_closes_has_the_rows_of_processes_that_live(
    route: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if route == "messages":
        _as_in_another_container(monkeypatch)
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        children = [_waiting() for _ in range(2)]
    support.check_file(path)
    assert support.numbers(path) == Counter([*range(100), *range(100)])
    # They have answered, so the recording has not waited until its limit.
    assert "not all processes" not in caplog.text
    assert recording.stats().torn_processes == 0
    for child in children:
        _, said = child.communicate("go on\n", timeout=60)
        assert (child.returncode, said) == (0, "")


def test_a_process_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mpr.limits.JOINED_FAREWELL_SECS", 0.2)
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        child = _waiting()
        os.kill(child.pid, signal.SIGSTOP)
    os.kill(child.pid, signal.SIGCONT)
    child.communicate("go on\n", timeout=60)
    reported = f"a process (pid {child.pid}) was still logging when the recording was closed: its last rows are missing"
    assert [reported in record.getMessage() for record in caplog.records].count(True) == 1
    assert [each.text for each in support.texts(path)] == [reported]
    assert recording.stats().torn_processes == 1


# --- the parent does not answer -----------------------------------------------------------------------------------

_PARENT = """
import sys, mpr
with mpr.SharedRecording("app", sinks=sys.argv[1]) as recording:
    print(recording.environ()[sys.argv[2]], flush=True)
    sys.stdin.readline()
"""

_JOINS_LATE = """
import sys
from mpr.producer import membership, producer
producer.WELCOME_TIMEOUT_SECS, membership.JOIN_PATIENCE_SECS = map(float, sys.argv[2:])
import mpr, rerun as rr
@mpr.task
def log(number):
    rr.log("n", rr.Scalars(float(number)))
if sys.argv[1] == "lazily":
    membership.join_lazily()
    for number in range(10):
        rr.log("n", rr.Scalars(float(number)))
for number in range(10 if sys.argv[1] == "task" else 0):
    try:
        log(number)
    except mpr.JoinError as error:
        print("failed", flush=True)
        sys.stdin.readline()
        log(number)
"""


class _StoppedParent:
    """A process with a recording, which is stopped until `go_on`."""

    def __init__(self, path: Path) -> None:
        arguments = [sys.executable, "-c", _PARENT, str(path), connection_info.VARIABLE]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self._pipes = pipes
        self.process = subprocess.Popen(arguments, **pipes)
        self._environ = {**os.environ, connection_info.VARIABLE: self.process.stdout.readline().strip()}
        os.kill(self.process.pid, signal.SIGSTOP)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", _JOINS_LATE, *arguments], env=self._environ, **self._pipes)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def end(self) -> tuple[int, str]:
        _, said = self.process.communicate("end\n", timeout=60)
        return self.process.returncode, said


def test_a_process_waits_for_a_parent_that_is_stopped(tmp_path: Path) -> None:
    parent = _StoppedParent(tmp_path / "run.rrd")
    child = parent.start("task", "0.1", "60")
    assert child.stderr is not None
    assert "has not answered" in child.stderr.readline()
    parent.go_on()
    assert child.communicate(timeout=60) == ("", "")
    assert (child.returncode, parent.end()) == (0, (0, ""))
    assert support.numbers(tmp_path / "run.rrd") == Counter(range(10))


def test_a_task_that_could_not_join_fails_and_the_next_one_tries_again(tmp_path: Path) -> None:
    parent = _StoppedParent(tmp_path / "run.rrd")
    child = parent.start("task", "60", "0.1")
    assert child.stdout is not None
    assert child.stdout.readline() == "failed\n"
    parent.go_on()
    assert child.communicate("again\n", timeout=60) == ("", "")
    assert (child.returncode, parent.end()) == (0, (0, ""))
    assert support.numbers(tmp_path / "run.rrd") == Counter(range(10))


def test_rows_that_could_not_be_recorded_are_an_error_of_the_recording(tmp_path: Path) -> None:
    parent = _StoppedParent(tmp_path / "run.rrd")
    child = parent.start("lazily", "60", "0.1")
    _, said = child.communicate(timeout=60)
    # The script itself must not fail because of the recording.
    assert child.returncode == 0
    assert said.count("is lost, until it can join") == 1
    parent.go_on()
    code, said = parent.end()
    assert code == 1
    assert f"DeliveryError: process {child.pid} could not join in time: rows of it are lost" in said
    reported = f"process {child.pid} could not join in time: rows of it are lost"
    assert [each.text for each in support.texts(tmp_path / "run.rrd")] == [reported]

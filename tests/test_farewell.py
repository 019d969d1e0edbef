"""A recording that closes asks joined processes for their last rows, and names those that do not answer."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import mpr
from mpr.aggregator import farewell
from mpr.aggregator.farewell import FlushRequests, note_losses
from mpr.aggregator.intake import ProducerIntake
from mpr.transport.messages import Flush, Goodbye, Hello, Sync
from tests import support
from tests.producers import ParentEnd, ProducerEnd


class _Recording:
    """A recording with some processes that have joined."""

    def __init__(self, folder: Path) -> None:
        self.parent = ParentEnd(folder / "run.rrd")
        self.asked: list[Hello] = []
        self.intakes: dict[str, ProducerIntake] = {}
        self._ends: list[ProducerEnd] = []
        self.requests = FlushRequests(self.intakes, self._send, lambda step: step())

    def _send(self, hello: Hello, message: Any) -> None:
        assert message == Flush()
        self.asked.append(hello)

    def add(self, **options: Any) -> ProducerIntake:
        end = ProducerEnd(self.parent.path.parent, **options)
        self._ends.append(end)
        intake = self.intakes[str(len(self._ends))] = self.parent.intake(end)
        # Two rows were logged, and none was flushed.
        end.page.counters[4] = 2
        return intake

    def close(self) -> None:
        for intake in self.intakes.values():
            intake.close()
        for end in self._ends:
            end.close()
        self.parent.writer.abort()


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[_Recording]:
    made = _Recording(tmp_path)
    yield made
    made.close()


@pytest.fixture
def zombie() -> Iterator[int]:
    """The id of a process that has ended, and whose parent has not asked for its exit code."""
    process = subprocess.Popen(["true"])
    support.wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    yield process.pid
    process.wait()


def _dead() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_processes_that_have_joined_are_asked_and_workers_are_not(recording: _Recording) -> None:
    joined, worker, left = recording.add(worker=0), recording.add(worker=1), recording.add(worker=0)
    left.take(Goodbye())
    joined.take(Sync(0))
    assert recording.requests.collect(0)
    assert recording.asked == [joined.hello]
    assert worker.hello not in recording.asked


def test_a_process_that_does_not_answer_costs_no_more_than_the_limit(recording: _Recording) -> None:
    recording.add(worker=0)
    answers: list[bool] = []
    collecting = threading.Thread(target=lambda: answers.append(recording.requests.collect(0.05)), daemon=True)
    collecting.start()
    collecting.join(30)
    assert answers == [False]


@pytest.mark.parametrize("inline", [False, True])
def test_a_process_is_waited_for_if_it_may_live(inline: bool, recording: _Recording) -> None:
    # The number of a process says nothing if it is in another container.
    recording.add(worker=0, pid=_dead(), inline=inline)
    assert recording.requests.collect(0.05) is not inline


def test_a_process_that_has_ended_and_was_not_waited_for_is_dead(
    recording: _Recording, zombie: int, caplog: pytest.LogCaptureFixture
) -> None:
    intake = recording.add(worker=0, pid=zombie)
    started = time.monotonic()
    assert recording.requests.collect(60)
    assert time.monotonic() - started < 30
    note_losses(intake, recording.parent.fanout)
    assert f"a process (pid {zombie}) ended without leaving the recording: its last rows may be missing" in caplog.text


def test_lost_rows_are_said_once_each(recording: _Recording, caplog: pytest.LogCaptureFixture) -> None:
    lives, left, worker = (recording.add(worker=each) for each in (0, 0, 1))
    left.take(Goodbye())
    for intake in (lives, left, worker):
        note_losses(intake, recording.parent.fanout)
    said = f"a process (pid {os.getpid()}) was still logging when the recording was closed: its last rows are missing"
    assert [each.getMessage() for each in caplog.records] == [f"mpr: {said}"]
    assert recording.parent.fanout.accepted_chunks == 1


def test_a_process_that_is_not_there_is_no_zombie() -> None:
    assert not farewell._is_zombie(os.getpid())
    assert not farewell._is_zombie(_dead())


_ASKED = """
import os, signal, sys, threading
import mpr
from mpr.producer import farewell, membership

mpr.join()
producer = membership.extracted_producer()
if sys.argv[1] == "leaves":
    producer._watch.note_leaving()
# As at the end of `leave`.
producer._connection.close()
farewell.flush_aside(producer._writer, producer._connection, producer._watch, producer.log_counters)
for thread in threading.enumerate():
    if thread.name == "mpr-flusher":
        thread.join(30)
sys.stderr.flush()
# Not `os._exit`, which would leave the recording.
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("way", "is_logged"), [("leaves", False), ("stays", True)])
def test_a_process_that_leaves_while_it_is_asked_reports_no_loss(way: str, is_logged: bool, tmp_path: Path) -> None:
    """The thread that leaves sends the rows, and closes the sockets. It reports itself if rows are missing."""
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        ran = support.run_python(_ASKED, way, env=recording.environ())
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert ("cannot be sent at the end of the recording" in ran.stderr) is is_logged

"""The aggregator's thread, one message at a time: which process is heard, and when a dead one is given up.

The aggregator has no thread here, so each test decides what comes before what.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.aggregator import aggregator as aggregator_module
from mpr.aggregator import guard
from mpr.aggregator.aggregator import Aggregator
from mpr.aggregator.fanout import Fanout
from mpr.transport.messages import Goodbye, Hello, Ready, Welcome
from mpr.transport.packing import MessageError
from mpr.transport.sockets import Connection, Sockets
from tests import producers, support
from tests.producers import Heard, ProducerEnd


class _Parent:
    """An aggregator without its thread, with a file sink."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard = Heard()
        self.sockets = Sockets()
        self.writer = producers.new_file(path)
        fanout = Fanout([self.writer], None, producers.encode_notes, producers.NoObserver(), producers.STORE)
        self.fanout = fanout
        self.aggregator = Aggregator(self.sockets, fanout)
        self._made: list[Connection] = []

    def connect(self) -> Connection:
        self._made.append(Connection(self.sockets.up.endpoint, self.sockets.down.endpoint))
        return self._made[-1]

    def hello(self, connection: Connection, end: ProducerEnd, **changes: Any) -> Hello:
        return replace(end.hello, secret=self.sockets.secret, route=connection.route, **changes)

    def take_until(self, condition: Any) -> None:
        def step() -> bool:
            self.aggregator._take_next()
            return bool(condition())

        support.wait_for(step)

    @property
    def intakes(self) -> int:
        return len(self.aggregator._intakes)

    def close(self) -> None:
        for intake in list(self.aggregator._intakes.values()):
            intake.close()
        for each in self._made:
            each.close(hand_over=False)
        for writer in self.fanout.writers:
            writer.abort()
        self.aggregator.complete_tasks.close()
        self.sockets.close()


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[_Parent]:
    made = _Parent(tmp_path / "run.rrd")
    yield made
    made.close()


@pytest.fixture
def end(parent: _Parent) -> Iterator[ProducerEnd]:
    made = ProducerEnd(parent.sockets.folder)
    yield made
    made.close()


@pytest.fixture
def dead_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def _greet(parent: _Parent, end: ProducerEnd, **changes: Any) -> Connection:
    connection = parent.connect()
    connection.send(parent.hello(connection, end, **changes))
    before = parent.intakes
    parent.take_until(lambda: parent.intakes > before and not parent.aggregator._newcomers)
    assert isinstance(connection.receive(30), Welcome)
    return connection


# --- who is heard -------------------------------------------------------------------------------------------------


def test_a_process_without_the_secret_is_not_heard(parent: _Parent, end: ProducerEnd) -> None:
    connection = parent.connect()
    connection.send(replace(parent.hello(connection, end), secret="a guess"))
    connection.send(Ready())
    parent.take_until(lambda: parent.sockets.up.rejected_count == 2)
    assert parent.intakes == 0


def test_a_process_that_has_left_needs_the_secret_again(parent: _Parent, end: ProducerEnd) -> None:
    connection = _greet(parent, end, worker=0)
    connection.send(Goodbye())
    parent.take_until(lambda: parent.intakes == 0)
    connection.send(replace(parent.hello(connection, end), secret="a guess"))
    parent.take_until(lambda: parent.sockets.up.rejected_count == 1)
    assert parent.intakes == 0


def test_a_process_with_the_name_of_another_one_is_not_heard(parent: _Parent, end: ProducerEnd) -> None:
    first = _greet(parent, end)
    second = parent.connect()
    second.send(replace(parent.hello(first, end), worker=0))
    second.send(Goodbye())
    second.send(Ready())
    parent.take_until(lambda: parent.sockets.up.rejected_count >= 1)
    (intake,) = parent.aggregator._intakes.values()
    assert not intake.said_goodbye


def test_a_worker_has_one_producer(parent: _Parent, end: ProducerEnd) -> None:
    parent.aggregator.listen(1, parent.heard)
    _greet(parent, end)
    second = parent.connect()
    other = ProducerEnd(parent.sockets.folder)
    second.send(parent.hello(second, other))
    second.send(Ready())
    parent.take_until(lambda: parent.sockets.up.rejected_count == 1)
    assert parent.intakes == 1
    assert parent.heard.events == []
    other.close()


# --- ends ---------------------------------------------------------------------------------------------------------


def test_a_dead_worker_is_reported_after_the_results_that_are_on_the_way(parent: _Parent, end: ProducerEnd) -> None:
    parent.aggregator.listen(1, parent.heard)
    connection = _greet(parent, end)
    connection.send(end.log(1))
    connection.send(producers.result(1))
    support.wait_for(lambda: parent.sockets.up._socket.poll(0))
    # The supervisor notices the end first.
    parent.aggregator.worker_died(1, -9)
    parent.take_until(lambda: len(parent.heard.events) == 2)
    assert parent.heard.events == [("result", 1, None), ("ended", 1, -9, False, 0)]
    assert parent.intakes == 0


def test_a_dead_worker_is_reported_after_the_results_in_its_journal(parent: _Parent, end: ProducerEnd) -> None:
    parent.aggregator.listen(1, parent.heard)
    _greet(parent, end)
    end.log(1)
    end.note_result()
    end.log(2)
    parent.aggregator.worker_died(1, -9)
    parent.take_until(lambda: len(parent.heard.events) == 2)
    assert parent.heard.events == [("result", 1, None), ("ended", 1, -9, False, 1)]


def test_a_process_that_dies_before_it_is_welcomed_ends_nothing_else(
    parent: _Parent, end: ProducerEnd, dead_pid: int
) -> None:
    connection = parent.connect()
    # No process is connected under this name, so the answer cannot be sent.
    connection.send(replace(parent.hello(connection, end), route="nobody", worker=0, pid=dead_pid))
    parent.take_until(lambda: parent.aggregator.pids and parent.intakes == 0)
    assert parent.aggregator._newcomers == []
    assert parent.aggregator._take_next()


def test_the_files_of_a_process_that_has_left_are_closed(parent: _Parent, end: ProducerEnd) -> None:
    files = producers.open_memory_files()
    connection = _greet(parent, end, worker=0)
    assert producers.open_memory_files() > files
    connection.send(Goodbye())
    parent.take_until(lambda: parent.intakes == 0)
    assert producers.open_memory_files() == files


@pytest.mark.parametrize("inline", [True, False])
def test_a_process_of_another_container_is_not_called_dead(inline: bool, parent: _Parent, dead_pid: int) -> None:
    end = ProducerEnd(parent.sockets.folder, 0, inline=inline)
    _greet(parent, end, worker=0, pid=dead_pid)
    other = ProducerEnd(parent.sockets.folder, 0)
    # Each hello makes the aggregator look for dead processes.
    _greet_another(parent, other)
    # The number of a process says nothing if the process is in another container.
    assert parent.intakes == (2 if inline else 1)
    end.close()
    other.close()


def _greet_another(parent: _Parent, end: ProducerEnd) -> None:
    connection = parent.connect()
    hello = parent.hello(connection, end, worker=0)
    connection.send(hello)
    parent.take_until(lambda: hello.route in parent.aggregator._intakes)


def test_a_failed_sink_is_reported_to_the_callers_at_once(parent: _Parent, end: ProducerEnd) -> None:
    parent.aggregator.listen(1, parent.heard)
    connection = _greet(parent, end)
    connection.send(end.log(1))
    parent.take_until(lambda: parent.fanout.accepted_chunks == 1)
    # Another program cuts the file.
    os.truncate(parent.path, 20)
    connection.send(end.log(2))
    parent.take_until(lambda: parent.heard.events)
    ((kind, error),) = parent.heard.events
    assert (kind, type(error)) == ("sink failed", mpr.SinkError)


def test_the_end_takes_what_is_not_announced_and_ends_pools_and_closes_files(
    parent: _Parent, end: ProducerEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent.aggregator.listen(1, parent.heard)
    files = producers.open_memory_files()
    _greet(parent, end)
    end.log(1, 2)
    monkeypatch.setattr(aggregator_module, "_IDLE_SECS", 0)
    parent.aggregator.start()
    assert parent.aggregator.stop(30)
    assert parent.heard.events == [("recording ended",)]
    assert parent.fanout.accepted_chunks == 2
    assert producers.open_memory_files() == files


def test_a_worker_that_dies_at_the_end_is_still_reported(parent: _Parent, end: ProducerEnd) -> None:
    parent.aggregator.listen(1, parent.heard)
    _greet(parent, end)
    parent.aggregator.worker_died(1, -9)
    parent.aggregator.start()
    assert parent.aggregator.stop(30)
    assert parent.heard.events == [("ended", 1, -9, False, 0)]


@pytest.mark.parametrize("change", [{"pid": 0}, {"pid": -1}, {"pid": 2**31}, {"worker": -1}, {"route": ""}], ids=str)
def test_a_hello_with_impossible_numbers_is_refused(change: dict[str, Any], end: ProducerEnd) -> None:
    guard.check_hello(end.hello)
    with pytest.raises(MessageError, match="impossible"):
        guard.check_hello(replace(end.hello, **change))

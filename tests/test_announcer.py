"""What a process sends, and in which order: rows before their result, and nothing is left behind.

The parent's socket is real, and the test reads it. The thread of the announcer does not run.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.producer.announcer import Announcer
from mpr.producer.inbox import Inbox
from mpr.producer.log_counters import LogCounters
from mpr.producer.recording_watch import RecordingWatch
from mpr.producer.result_sender import ResultSender
from mpr.producer.task_recordings import TaskRecordings
from mpr.transport.connection_info import ConnectionInfo
from mpr.transport.messages import (
    Accepted,
    Hello,
    NewOutbox,
    Result,
    ResultInMemory,
    RowsCounted,
    SegmentReady,
    Sync,
    TaskRecordingRows,
)
from mpr.transport.outbox import Outbox
from mpr.transport.result_journal import ResultJournal, ResultJournalReader
from mpr.transport.sockets import Connection, Sockets
from mpr.transport.status_page import StatusPage, StatusPageReader
from tests import producers, support


class _Process:
    """The sending half of a producer, and the socket of its parent."""

    def __init__(self, folder: Path, *, parent_reads: bool = True) -> None:
        self.folder = folder
        self.sockets = Sockets()
        self.connection = Connection(self.sockets.up.endpoint, self.sockets.down.endpoint)
        config = ConnectionInfo(
            application_id="app",
            recording_id="id",
            folder=self.sockets.folder,
            upstream=self.sockets.up.endpoint,
            downstream=self.sockets.down.endpoint,
            secret=self.sockets.secret,
        )
        self.answers: list[Any] = []
        self.page = StatusPage(folder)
        self.counters = LogCounters(
            self.page.counters, lambda: None, TaskRecordings(lambda _data: None, lambda _rows: None)
        )
        self.watch = RecordingWatch(config, self.counters)
        self.inbox = Inbox(self.connection, lambda message: self.answers.append(message) or True, bool)  # type: ignore[func-returns-value]
        self.results = ResultSender(self.connection, ResultJournal(self.page), parent_reads=parent_reads)
        parts = self.connection, self.inbox, self.watch, self.results
        self.announcer = Announcer(*parts, Outbox(folder), self._segment, 0.05)
        hello = Hello(self.sockets.secret, 1, os.getpid(), self.connection.route, "", "")
        self.connection.send(hello)
        assert self.received() == [hello]

    def _segment(self, current: Any, end: int) -> SegmentReady:
        return SegmentReady(current.number, current.announced, end)

    def write(self, size: int) -> None:
        """Write `size` bytes into the outbox, as the SDK does."""
        fd = os.open(self.announcer.current.outbox.path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"x" * size)
        os.close(fd)

    def received(self) -> list[Any]:
        """Return the messages that have come to the parent since the last call."""
        count = self.connection.sent_count
        found = []
        while self._read < count:
            message = self.sockets.up.receive(30)
            assert isinstance(message, tuple)
            found.append(message[1])
            self._read += 1
        return found

    _read = 0

    def close(self) -> None:
        self.announcer.release()
        self.connection.close(hand_over=False)
        self.page.close()
        self.sockets.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[_Process]:
    made = _Process(tmp_path)
    yield made
    made.close()


def _result(number: int, size: int = 1, *, ended_nanos: int = 9) -> Result:
    return replace(producers.result(number, payload=b"p" * size), ended_nanos=ended_nanos)


# --- results ------------------------------------------------------------------------------------------------------


def test_results_that_waited_come_behind_their_rows_and_before_later_rows(process: _Process) -> None:
    announcer = process.announcer
    process.write(100)
    announcer.note_written()
    assert announcer.hand_over(_result(1), may_wait=True)
    process.write(50)
    announcer.note_written()
    assert announcer.hand_over(_result(2), may_wait=True)
    assert process.received() == []
    # The rows of the task that runs.
    process.write(7)
    announcer.announce()
    assert process.received() == [SegmentReady(0, 0, 150), _result(1), _result(2), SegmentReady(0, 150, 157)]
    announcer.announce()
    announcer.send_results()
    assert process.received() == []


def test_a_result_that_waits_is_in_the_journal(process: _Process, tmp_path: Path) -> None:
    assert process.announcer.hand_over(_result(1), may_wait=True)
    reader = StatusPageReader(process.page.address, tmp_path)
    ((_, _, found),) = ResultJournalReader(reader).results()
    assert found == _result(1)
    reader.close()


@pytest.mark.parametrize(
    ("size", "kind"), [(100_000, ResultInMemory), (20_000_000, Result)], ids=["in memory", "in no journal"]
)
def test_a_large_result_does_not_wait(size: int, kind: type, process: _Process) -> None:
    assert not process.announcer.hand_over(_result(1, size), may_wait=True)
    (sent,) = process.received()
    assert type(sent) is kind


def test_a_result_that_is_not_in_the_journal_does_not_wait(process: _Process) -> None:
    process.page.close()
    process.page.fd = None
    process.results._journal = ResultJournal(process.page)
    assert not process.announcer.hand_over(_result(1), may_wait=True)
    assert process.received() == [_result(1)]
    process.page._file = None


def test_no_result_waits_if_the_parent_cannot_read_the_journal(tmp_path: Path) -> None:
    process = _Process(tmp_path, parent_reads=False)
    assert not process.announcer.hand_over(_result(1), may_wait=True)
    assert process.received() == [_result(1)]
    process.close()


def test_results_wait_no_longer_than_the_first_of_them_may(process: _Process) -> None:
    assert process.announcer.hand_over(_result(1, ended_nanos=1), may_wait=True)
    assert not process.announcer.hand_over(_result(2, ended_nanos=2_000_000), may_wait=True)
    assert [each.number for each in process.received()] == [1, 2]


def test_a_result_needs_the_rows_that_were_sent_in_messages_before_it(process: _Process, tmp_path: Path) -> None:
    process.connection.send(RowsCounted(1))
    process.announcer.hand_over(_result(1), may_wait=True)
    process.connection.send_needed(TaskRecordingRows(b"rows"))
    process.announcer.hand_over(_result(2), may_wait=True)
    process.announcer.hand_over(_result(3), may_wait=True)
    reader = StatusPageReader(process.page.address, tmp_path)
    needed = [needed for _, needed, _ in ResultJournalReader(reader).results()]
    # The hello and the count of rows came before.
    assert needed == [0, 3, 0]
    assert ResultJournalReader(reader).journaled() == (3, 3)
    reader.close()


# --- rows ---------------------------------------------------------------------------------------------------------


def test_a_sync_comes_behind_all_rows(process: _Process) -> None:
    process.write(30)
    assert process.announcer.request_sync() == 1
    assert process.received() == [SegmentReady(0, 0, 30), Sync(1)]


def test_bytes_that_the_sinks_have_make_room(process: _Process) -> None:
    process.write(3 * 4096)
    process.announcer.announce()
    process.announcer.accept(Accepted(0, 2 * 4096))
    assert process.announcer.current.outbox.held_bytes() == 4096
    # Those of another outbox do not concern this one.
    process.announcer.accept(Accepted(7, 3 * 4096))
    assert process.announcer.current.outbox.held_bytes() == 4096


def test_the_parent_opens_an_outbox_before_the_process_goes_on(process: _Process) -> None:
    fresh = Outbox(process.folder)
    opening = threading.Thread(target=process.announcer.have_opened, args=(fresh,), daemon=True)
    opening.start()
    message = process.sockets.up.receive(30)
    assert isinstance(message, tuple)
    process._read += 1
    assert message[1] == NewOutbox(fresh.address)
    assert opening.is_alive()
    # A parent that lacks descriptors at first does not answer. So it is asked again.
    message = process.sockets.up.receive(30)
    assert isinstance(message, tuple)
    process._read += 1
    assert message[1] == NewOutbox(fresh.address)
    process.announcer.accept(Accepted(1, 0))
    opening.join(30)
    assert not opening.is_alive()
    fresh.close()


def test_a_process_whose_parent_dies_does_not_wait_for_its_next_outbox(process: _Process) -> None:
    process.watch.lost = mpr.RecordingClosedError("gone")
    fresh = Outbox(process.folder)
    opening = threading.Thread(target=process.announcer.have_opened, args=(fresh,), daemon=True)
    opening.start()
    opening.join(30)
    assert not opening.is_alive()
    fresh.close()


def test_the_rest_of_an_outbox_comes_before_the_next_one_and_none_stays_open(process: _Process) -> None:
    before = producers.open_memory_files()
    announcer = process.announcer
    for number in range(5):
        process.write(10)
        announcer.announce()
        process.write(20)
        announcer.switch_to(Outbox(process.folder), 100 + number, 7 + number)
        assert process.received() == [
            SegmentReady(number, 0, 10),
            SegmentReady(number, 10, 30),
            RowsCounted(7 + number),
            SegmentReady(number + 1, 0, 0),
        ]
    assert announcer.written_bytes() == 5 * 30
    # The last one stays open for another thread that uses it at this moment.
    assert producers.open_memory_files() == before + 1


def test_rows_of_a_recording_that_is_gone_are_said_to_be_lost_and_make_room(
    process: _Process, caplog: pytest.LogCaptureFixture
) -> None:
    process.watch.lost = mpr.RecordingClosedError("it is gone")
    process.counters.entered = 1
    process.write(2 * 4096)
    process.announcer.announce()
    process.write(4096)
    process.announcer.announce()
    assert process.received() == []
    assert process.announcer.current.outbox.held_bytes() == 0
    assert [each.getMessage() for each in caplog.records] == ["it is gone. Nothing that it logs from now on is kept."]


def test_what_can_pass_does_not_end_the_thread(
    process: _Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def fails_at_first() -> None:
        calls.append(len(calls))
        if len(calls) < 3:
            raise OSError("no descriptors")

    monkeypatch.setattr(process.inbox, "take_answers", fails_at_first)
    process.announcer.start()
    support.wait_for(lambda: (process.announcer.announce_soon(), len(calls) >= 4)[1])
    process.announcer.close()
    assert [each.getMessage().count("goes on trying") for each in caplog.records] == [1]
    # The record has the frames of the error, with everything in them.
    caplog.clear()


class _Socket:
    """A socket that keeps whether its messages were copied."""

    def __init__(self) -> None:
        self.copied: list[bool] = []

    def send(self, _data: object, _flags: int, copy: bool) -> None:
        self.copied.append(copy)


@pytest.mark.parametrize("copies", [True, False])
def test_a_process_that_may_send_at_its_exit_copies_each_message(copies: bool, process: _Process) -> None:
    """The exit handler of pyzmq forgets all messages that were sent without a copy."""
    connection = Connection(process.sockets.up.endpoint, process.sockets.down.endpoint, copies=copies)
    socket = _Socket()
    connection._send_up = socket.send  # type: ignore[assignment]
    for size in (10, 1_000_000):
        connection.send(TaskRecordingRows(b"x" * size))
    connection.close(hand_over=False)
    assert socket.copied == [True, copies]

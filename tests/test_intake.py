"""The parent's side of one producer: rows come before their result, once, and whatever a dead producer has left."""

from __future__ import annotations

import os
import resource
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import rerun.blueprint as rrb

import mpr
from mpr.aggregator.intake import ProducerIntake
from mpr.rrd import framing
from mpr.sdk import encoder
from mpr.transport.messages import (
    NO_END,
    Accepted,
    Goodbye,
    NewOutbox,
    Ready,
    RowsCounted,
    SegmentReady,
    Sync,
    Synced,
    TaskRecordingRows,
)
from mpr.transport.packing import MessageError
from mpr.transport.status_page import COUNTED_ROWS, FLUSHED_COUNTED_ROWS
from tests import producers, support
from tests.producers import ParentEnd, ProducerEnd


class _Pair:
    """A producer and the parent's side of it."""

    def __init__(self, folder: Path, *, worker: int = 1, inline: bool = False, has_blueprint: bool = False) -> None:
        self.parent = ParentEnd(folder / "run.rrd", has_blueprint=has_blueprint)
        self.producer = ProducerEnd(folder, worker, inline=inline)
        self.intake: ProducerIntake = self.parent.intake(self.producer)
        self._is_closed = False

    def roll(self) -> None:
        """Announce the next outbox, and go on in it."""
        fresh = self.producer.new_outbox()
        self.intake.take(NewOutbox(fresh.address))

    def numbers(self) -> Counter[int]:
        """Finish the file, and return its rows."""
        self.close(aborts=False)
        self.parent.writer.close()
        support.check_file(self.parent.path)
        return support.numbers(self.parent.path)

    def close(self, *, aborts: bool = True) -> None:
        if not self._is_closed:
            self._is_closed = True
            self.intake.close()
            self.producer.close()
            if aborts:
                self.parent.writer.abort()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[_Pair]:
    made = _Pair(tmp_path)
    yield made
    made.close()


@pytest.fixture
def inline(tmp_path: Path) -> Iterator[_Pair]:
    """A pair whose outbox the parent cannot open."""
    made = _Pair(tmp_path, inline=True)
    assert made.intake.is_inline
    yield made
    made.close()


# --- results ------------------------------------------------------------------------------------------------------


def test_a_result_counts_once_though_it_comes_from_the_journal_and_as_a_message(pair: _Pair) -> None:
    pair.producer.log(1)
    made = pair.producer.note_result()
    pair.intake.take_journaled()
    assert pair.parent.heard.results == [1]
    pair.intake.take(made)
    pair.intake.take_journaled()
    assert pair.parent.heard.events == [("result", 1, None)]
    assert pair.numbers() == Counter([1])


def test_a_number_that_no_worker_has_reached_cuts_off_the_worker_and_later_results_count(pair: _Pair) -> None:
    pair.intake.take(producers.result(1))
    pair.intake.take(producers.result(2**40))
    pair.intake.take(producers.result(2))
    first, unfit, last = pair.parent.heard.events
    assert (first, unfit, last[:2]) == (("result", 1, None), ("unfit", 1), ("result", 2))
    assert isinstance(last[2], mpr.DeliveryError)


def test_a_journaled_result_behind_a_change_of_the_outbox_comes_after_its_rows(pair: _Pair) -> None:
    pair.producer.log(1)
    pair.producer.note_result()
    pair.roll()
    pair.producer.log(2)
    pair.producer.note_result()
    chunks = []
    pair.parent.heard.result = lambda *_: chunks.append(pair.parent.fanout.accepted_chunks)  # type: ignore[method-assign]
    pair.intake.take_journaled()
    assert chunks == [1, 2]
    assert pair.numbers() == Counter([1, 2])


def test_an_outbox_is_opened_later_if_the_parent_lacks_descriptors_and_the_worker_is_not_blamed(pair: _Pair) -> None:
    pair.producer.log(1)
    pair.intake.take(pair.producer.segment())
    request = NewOutbox(pair.producer.new_outbox().address)
    free = os.dup(0)
    os.close(free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        pair.intake.take(request)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert pair.parent.answers == []
    pair.intake.take(request)
    assert pair.parent.answers == [Accepted(1, 0)]
    pair.intake.take(pair.producer.log(2))
    assert pair.parent.heard.events == []
    assert pair.numbers() == Counter([1, 2])


def test_a_worker_that_is_killed_while_it_changes_its_outbox_keeps_its_rows(tmp_path: Path) -> None:
    killed = subprocess.Popen(["true"])
    # It has ended, but is not waited for.
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    parent = ParentEnd(tmp_path / "run.rrd")
    producer = ProducerEnd(tmp_path, pid=killed.pid)
    intake = parent.intake(producer)
    producer.log(1)
    intake.take(NewOutbox(f"/proc/{killed.pid}/fd/9#mpr-outbox-{'0' * 32}"))
    killed.wait()
    intake.take(NewOutbox(f"/proc/{killed.pid}/fd/9#mpr-outbox-{'0' * 32}"))
    producer.note_result()
    intake.take_journaled()
    assert parent.heard.events == [("result", 1, None)]
    intake.close()
    producer.close()
    parent.writer.close()
    assert support.numbers(parent.path) == Counter([1])


def test_a_journaled_result_counts_only_if_the_messages_before_it_have_come(pair: _Pair) -> None:
    # The hello is the first message, and the rows of the task recording would be the second one.
    pair.producer.note_result(needed=2)
    pair.intake.take_journaled()
    assert pair.parent.heard.results == []
    assert "were handed over" in pair.intake.loss_notes()[0]
    pair.intake.take(TaskRecordingRows(producers.whole(1)))
    pair.producer.note_result(needed=3)
    pair.intake.take_journaled()
    assert pair.parent.heard.results == [1]
    pair.intake.take(RowsCounted(0))
    pair.intake.take_journaled()
    assert pair.parent.heard.results == [1, 2]


def test_nothing_is_taken_from_the_journal_if_rows_come_in_messages(tmp_path: Path) -> None:
    pair = _Pair(tmp_path)
    # The parent can read the page, but not the outbox.
    pair.intake.close()
    pair.producer.hello = type(pair.producer.hello)(
        "secret", 1, os.getpid(), "route", "/proc/0/fd/0", pair.producer.page.address
    )
    pair.intake = pair.parent.intake(pair.producer)
    assert pair.intake.is_inline
    pair.producer.log(1)
    pair.producer.note_result()
    pair.intake.take_journaled()
    assert pair.parent.heard.events == []
    pair.close()


def test_after_goodbye_nothing_is_taken_from_the_journal(pair: _Pair) -> None:
    pair.producer.log(1)
    pair.producer.note_result()
    pair.intake.take(Goodbye())
    pair.intake.take_journaled()
    assert pair.parent.heard.results == []


def test_a_failed_sink_fails_all_results_and_syncs(pair: _Pair) -> None:
    pair.parent.fanout.fail(mpr.SinkError("the disk is full"))
    pair.intake.take(producers.result(1))
    pair.intake.take(Sync(7))
    ((kind, number, failure),) = pair.parent.heard.events
    assert (kind, number, str(failure)) == ("result", 1, "the disk is full")
    assert pair.parent.answers == [Synced(7, "the disk is full", NO_END)]


def test_rows_that_were_accepted_are_reported(pair: _Pair) -> None:
    pair.intake.take(pair.producer.log(1))
    assert pair.parent.accepted_count == 1
    assert pair.intake.has_accepted(0, pair.producer.outbox.size())


# --- outboxes -----------------------------------------------------------------------------------------------------


def test_a_producer_learns_that_its_next_outbox_is_open_and_the_last_one_is_closed(pair: _Pair) -> None:
    pair.intake.take(pair.producer.log(1))
    files = producers.open_memory_files()
    pair.roll()
    assert pair.parent.answers == [Accepted(1, 0)]
    # The producer's end, and the parent's end.
    assert producers.open_memory_files() == files + 2
    pair.intake.take(pair.producer.log(2))
    assert producers.open_memory_files() == files + 1
    assert pair.numbers() == Counter([1, 2])


def test_a_producer_that_dies_while_it_changes_its_outbox_leaves_no_file_open(pair: _Pair) -> None:
    files = producers.open_memory_files()
    pair.roll()
    pair.intake.close()
    # The next outbox of the producer is new, and the parent's end of the first one, and of the page, are closed.
    assert producers.open_memory_files() == files + 1 - 3


def test_rows_in_the_next_outbox_of_a_dead_producer_are_taken(pair: _Pair) -> None:
    pair.producer.log(1)
    pair.roll()
    pair.producer.log(2)
    pair.intake.salvage()
    assert pair.numbers() == Counter([1, 2])


def test_memory_that_was_read_is_released(pair: _Pair) -> None:
    pair.intake.take(pair.producer.log(*range(20)))
    assert pair.producer.outbox.size() > 2 * 4096
    assert pair.producer.outbox.held_bytes() <= 4096


def test_the_rows_of_a_task_that_has_no_result_are_counted(pair: _Pair) -> None:
    pair.intake.take(pair.producer.log(1, 2))
    assert pair.intake.rows_since_result() == 2
    pair.intake.take(producers.result(1))
    assert pair.intake.rows_since_result() == 0
    pair.intake.take(pair.producer.log(3))
    assert pair.intake.rows_since_result() == 1
    pair.roll()
    pair.intake.take(pair.producer.log(4))
    # One of them is in the outbox before, whose rows cannot be counted alone.
    assert pair.intake.rows_since_result() is None


def test_the_end_of_a_stream_is_taken_when_all_of_it_is_there(pair: _Pair) -> None:
    data = producers.whole(1)
    end = framing.frames_of(data)[-1].end
    pair.intake.take(pair.producer.write(data[:end]))
    pair.intake.take(pair.producer.write(data[end:]))
    pair.intake.take(RowsCounted(1))
    pair.intake.take(Goodbye())
    assert (1, 1, 0) == (pair.parent.totals.counted, pair.parent.totals.accepted, pair.parent.totals.lost)
    assert pair.parent.heard.events == []
    assert pair.numbers() == Counter([1])


def test_bytes_behind_the_end_of_a_stream_are_in_no_file(pair: _Pair) -> None:
    pair.intake.take(pair.producer.write(producers.whole(1)))
    pair.intake.take(pair.producer.write(producers.chunk(2)))
    assert pair.numbers() == Counter([1])


def test_released_memory_is_no_end_of_a_stream(pair: _Pair) -> None:
    pair.producer.log(*range(20))
    pair.producer.outbox.release(4096, 8192)
    pair.intake.take(pair.producer.segment())
    pair.intake.take(producers.result(1))
    unfit, (kind, number, failure) = pair.parent.heard.events
    assert (unfit, kind, number) == (("unfit", 1), "result", 1)
    assert "has not all bytes" in str(failure)


def test_a_producer_that_was_cut_off_gets_room(pair: _Pair) -> None:
    pair.producer.log(*range(20))
    pair.producer.write(b"\xff" * 8192)
    pair.intake.take(pair.producer.segment())
    assert pair.parent.heard.events == [("unfit", 1)]
    assert pair.producer.outbox.held_bytes() <= 4096
    assert pair.parent.writer._is_distrusted


def test_a_blueprint_of_a_worker_does_not_replace_that_of_the_user(tmp_path: Path) -> None:
    pair = _Pair(tmp_path, has_blueprint=True)
    kinds: list[int] = []
    accept = pair.parent.writer.accept

    def note(segment: producers.Segment, *, published: bool) -> None:
        kinds.extend(frame.kind for frame in segment.frames)
        accept(segment, published=published)

    pair.parent.writer.accept = note  # type: ignore[method-assign]
    data = encoder.encoded_blueprint("mpr", rrb.Blueprint(rrb.TextLogView()))
    assert framing.BLUEPRINT_ACTIVATION in [frame.kind for frame in framing.frames_of(data)]
    pair.intake.take(pair.producer.write(data))
    assert framing.ARROW_MSG in kinds
    assert framing.BLUEPRINT_ACTIVATION not in kinds
    pair.close()


# --- bytes in messages --------------------------------------------------------------------------------------------


def _part(data: bytes, start: int, end: int) -> SegmentReady:
    return SegmentReady(0, start, end, data[start:end])


def test_a_stream_may_come_in_messages_of_any_size_and_partly_twice(inline: _Pair) -> None:
    data = producers.whole(0)[: framing.HEADER_SIZE] + producers.chunk(1) + producers.chunk(2)
    middle = framing.HEADER_SIZE + len(producers.chunk(1)) // 2
    inline.intake.take(_part(data, 0, middle))
    inline.intake.take(_part(data, middle - 30, middle + 10))
    inline.intake.take(_part(data, 0, middle))
    inline.intake.take(_part(data, framing.HEADER_SIZE, len(data)))
    assert inline.parent.answers[-1] == Accepted(0, len(data))
    assert inline.parent.heard.events == []
    assert inline.numbers() == Counter([1, 2])


def test_bytes_that_are_missing_between_messages_cut_off_the_producer_which_gets_room(inline: _Pair) -> None:
    data = producers.whole(0)[: framing.HEADER_SIZE] + producers.chunk(1) + producers.chunk(2)
    middle = len(data) - len(producers.chunk(2))
    inline.intake.take(_part(data, 0, middle - 7))
    inline.intake.take(_part(data, middle, len(data)))
    assert inline.parent.heard.events == [("unfit", 1)]
    assert inline.parent.answers[-1] == Accepted(0, len(data))


def test_rows_of_a_task_recording_that_cannot_be_read_fail_the_result(pair: _Pair) -> None:
    pair.intake.take(TaskRecordingRows(producers.whole(1)[:-3]))
    pair.intake.take(producers.result(1))
    unfit, (kind, number, failure) = pair.parent.heard.events
    assert (unfit, kind, number) == (("unfit", 1), "result", 1)
    assert isinstance(failure, mpr.DeliveryError)
    # The producer waits for room for these bytes.
    assert isinstance(pair.parent.answers[-1], Accepted)


# --- the account --------------------------------------------------------------------------------------------------


def test_rows_that_a_dead_worker_had_flushed_and_that_are_not_there_are_lost(pair: _Pair) -> None:
    pair.producer.log(1)
    pair.producer.page.counters[COUNTED_ROWS] = pair.producer.page.counters[FLUSHED_COUNTED_ROWS] = 3
    pair.intake.salvage()
    assert (3, 1, 2) == (pair.parent.totals.counted, pair.parent.totals.accepted, pair.parent.totals.lost)
    assert pair.parent.heard.events == [("unfit", 1)]


def test_rows_that_are_missing_at_goodbye_are_lost(pair: _Pair) -> None:
    pair.intake.take(pair.producer.write(producers.whole(1, 2)))
    pair.intake.take(RowsCounted(5))
    assert pair.parent.totals.lost == 0
    pair.intake.take(Goodbye())
    assert (5, 2, 3) == (pair.parent.totals.counted, pair.parent.totals.accepted, pair.parent.totals.lost)
    assert pair.parent.heard.events == [("unfit", 1)]


@pytest.mark.parametrize("has_page", [True, False])
def test_a_process_that_has_not_left_may_lack_rows(has_page: bool, tmp_path: Path) -> None:
    pair = _Pair(tmp_path, worker=0, inline=not has_page)
    pair.producer.page.counters[4] = 7  # ROWS: seven rows were logged, and none was flushed.
    assert pair.intake.may_lack_rows()
    if has_page:
        pair.producer.page.flushed(7)
    else:
        pair.intake.take(Sync(0))
    assert not pair.intake.may_lack_rows()
    pair.close()


def test_a_message_in_the_wrong_state_cuts_off_its_producer(pair: _Pair) -> None:
    pair.intake.take(Ready())
    pair.intake.take(Ready())
    pair.intake.take(MessageError("no message"))
    assert pair.parent.heard.events == [("ready", 1), ("unfit", 1)]

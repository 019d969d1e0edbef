"""The mark says to which task the rows of a dead worker belong, whatever the moment of its death."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpr.aggregator.row_owner import RowOwner
from mpr.transport import task_mark
from mpr.transport.messages import Hello, TaskBegan, TaskEnded
from mpr.transport.packing import MessageError
from mpr.transport.status_page import StatusPage, StatusPageReader
from mpr.transport.task_mark import TaskMark, TaskMarker, read_mark
from tests.producers import Heard

_FIRST, _SECOND = TaskBegan(1, 2, 3, 400), TaskBegan(1, 3, 1, 500)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[StatusPage]:
    made = StatusPage(tmp_path)
    yield made
    made.close()


@pytest.fixture
def reader(page: StatusPage, tmp_path: Path) -> Iterator[StatusPageReader]:
    made = StatusPageReader(page.address, tmp_path)
    yield made
    made.close()


def test_a_mark_says_which_task_ran_and_how_it_ended(page: StatusPage, reader: StatusPageReader) -> None:
    assert read_mark(reader) is None
    marker = TaskMarker(page)
    marker.begin(0, _FIRST)
    assert read_mark(reader) == TaskMark(0, _FIRST, None)
    marker.end(TaskEnded(1.5, "ValueError: bad"))
    assert read_mark(reader) == TaskMark(0, _FIRST, TaskEnded(1.5, "ValueError: bad"))
    marker.begin(7, _SECOND)
    assert read_mark(reader) == TaskMark(7, _SECOND, None)
    marker.end(TaskEnded(0.25, None))
    assert read_mark(reader) == TaskMark(7, _SECOND, TaskEnded(0.25, None))


def test_a_long_error_is_cut(page: StatusPage, reader: StatusPageReader) -> None:
    marker = TaskMarker(page)
    marker.begin(0, _FIRST)
    marker.end(TaskEnded(1.5, "ü" * 5000))
    mark = read_mark(reader)
    assert mark is not None
    assert mark.ended is not None
    assert mark.ended.error is not None
    assert mark.ended.error.startswith("ü" * 1000)


class _DiedError(Exception):
    pass


class _Killing:
    """A format of which only the first field is written, because the worker is killed then."""

    size = 0

    def pack_into(self, page: Any, offset: int, *values: Any) -> None:
        struct.pack_into("<Q", page, offset, values[0])
        raise _DiedError


def test_a_mark_of_which_a_part_was_written_does_not_count(
    page: StatusPage, reader: StatusPageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = TaskMarker(page)
    marker.begin(0, _FIRST)
    with monkeypatch.context() as patch, pytest.raises(_DiedError):
        patch.setattr(task_mark, "_BEGAN", _Killing())
        marker.begin(1, TaskBegan(2, 0, 1, 600))
    assert read_mark(reader) is None


# --- whose rows they are ------------------------------------------------------------------------------------------


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def owner(heard: Heard) -> RowOwner:
    return RowOwner(Hello("secret", 1, 1, "route", "", ""), heard)


def _task(owner: RowOwner) -> int | None:
    return None if owner.task is None else owner.task.index


def test_the_mark_counts_from_its_outbox_on(
    owner: RowOwner, heard: Heard, page: StatusPage, reader: StatusPageReader
) -> None:
    TaskMarker(page).begin(2, _SECOND)
    owner.begin(_FIRST)
    owner.use_mark(reader, 1)
    assert _task(owner) == 2
    owner.outbox_begins(2)
    assert _task(owner) == 3
    assert heard.events == [("task", 2), ("task", 3)]


def test_a_task_whose_message_has_come_is_not_begun_twice(
    owner: RowOwner, heard: Heard, page: StatusPage, reader: StatusPageReader
) -> None:
    marker = TaskMarker(page)
    marker.begin(1, _FIRST)
    owner.begin(_FIRST)
    task = owner.task
    owner.use_mark(reader, 1)
    assert owner.task is task
    assert heard.events == [("task", 2)]
    marker.end(TaskEnded(2.0, "bad"))
    owner.use_mark(reader, 1)
    assert task is not None
    assert (task.is_over, task.seconds, task.error) == (True, 2.0, "bad")


def test_rows_behind_the_end_of_a_task_belong_to_no_task(owner: RowOwner) -> None:
    owner.begin(_FIRST)
    owner.outbox_begins(1)
    assert _task(owner) == 2
    owner.end(TaskEnded(1.0, None))
    # The rest of the same outbox is the task's.
    assert _task(owner) == 2
    owner.outbox_begins(2)
    assert owner.task is None


def test_a_time_that_the_sdk_does_not_take_is_refused(owner: RowOwner) -> None:
    with pytest.raises(MessageError):
        owner.begin(TaskBegan(1, 2, 3, 2**63))
    assert owner.task is None

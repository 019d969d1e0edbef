"""The parent reads on the status page what a worker has written, also if the worker is dead."""

from __future__ import annotations

import contextlib
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpr.limits import WORK_ITEMS_MAX
from mpr.transport import messages
from mpr.transport.messages import Result, ResultInMemory, SegmentReady
from mpr.transport.result_journal import _AREAS_START, ResultJournal, ResultJournalReader
from mpr.transport.status_page import StatusPage, StatusPageReader

Ends = tuple[StatusPage, StatusPageReader]


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    status_page = StatusPage(tmp_path)
    reader = StatusPageReader(status_page.address, tmp_path)
    yield status_page, reader
    reader.close()
    status_page.close()


def _result(number: int, *sizes: int) -> Result:
    payload = [bytes([(number + index) % 256]) * size for index, size in enumerate(sizes)]
    # A worker is not sent its work items in the order of their numbers.
    return Result(1000 - number, 0, 1, messages.RETURNED, True, 5, payload, number=number, ended_nanos=9)


def _behind(result: Result) -> SegmentReady:
    return SegmentReady(result.number // 7, 0, 10 * result.number)


def _plain(result: Result) -> tuple[int, list[bytes]]:
    return result.number, [bytes(part) for part in result.payload]


_SMALL = st.lists(st.integers(0, 500), max_size=4)
_LARGE = st.lists(st.integers(5_000, 60_000), min_size=1, max_size=3)


@given(st.lists(_SMALL | _LARGE, min_size=1, max_size=40), st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_result_arrives_and_the_last_ones_stay(
    tmp_path: Path, payloads: list[list[int]], data: st.DataObject
) -> None:
    status_page = StatusPage(tmp_path)
    page_reader = StatusPageReader(status_page.address, tmp_path)
    # Hypothesis may end an example within `draw`.
    with contextlib.closing(status_page), contextlib.closing(page_reader):
        journal, reader = ResultJournal(status_page), ResultJournalReader(page_reader)
        sent: list[tuple[Result, Result | ResultInMemory]] = []
        journaled: list[tuple[int, list[bytes]]] = []
        for number, sizes in enumerate(payloads, 1):
            result = _result(number, *sizes)
            message, is_journaled = journal.write(result, _behind(result), 3 * number, parent_reads=True)
            sent.append((result, message))
            # A large result goes on the status page, or as a message if there is no room.
            in_memory = isinstance(message, ResultInMemory)
            assert in_memory or message == result
            assert is_journaled == (in_memory or sum(sizes) < 3900)
            if is_journaled:
                journaled.append(_plain(result))
                assert (number, 3 * number) == reader.journaled()
            while sent and data.draw(st.booleans()):
                original, message = sent.pop(0)
                assert _plain(reader.take(message) if isinstance(message, ResultInMemory) else message) == _plain(
                    original
                )
        assert all(behind == _behind(each) for behind, _, each in reader.results())
        found = [_plain(each) for _, _, each in reader.results()]
        # Results that the parent has taken may be overwritten. Of all others the last ones are there.
        untaken = {original.number for original, _ in sent}
        assert [each for each in found if each[0] in untaken] == [
            each for each in journaled[-(WORK_ITEMS_MAX + 1) :] if each[0] in untaken
        ]
        for original, message in sent:
            assert _plain(reader.take(message) if isinstance(message, ResultInMemory) else message) == _plain(original)


def test_a_result_that_is_too_large_for_the_journal_goes_as_a_message(ends: Ends) -> None:
    result = _result(1, 20_000_000)
    assert ResultJournal(ends[0]).write(result, _behind(result), 1, parent_reads=True) == (result, False)
    assert (0, 0) == ResultJournalReader(ends[1]).journaled()
    assert list(ResultJournalReader(ends[1]).results()) == []


@contextlib.contextmanager
def _no_file_may_grow_beyond(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("beyond", [50_000, -1])
def test_a_large_result_that_cannot_be_written_whole_goes_as_a_message(beyond: int, ends: Ends) -> None:
    """A task may limit the size of files. A write beyond the limit is cut, or an error if nothing of it fits."""
    result = _result(1, 100_000)
    with _no_file_may_grow_beyond(_AREAS_START + beyond):
        assert ResultJournal(ends[0]).write(result, _behind(result), 1, parent_reads=True) == (result, False)
    assert (0, 0) == ResultJournalReader(ends[1]).journaled()
    assert list(ResultJournalReader(ends[1]).results()) == []


def test_if_the_parent_reads_no_journal_large_results_go_as_messages(ends: Ends) -> None:
    result = _result(1, 100_000)
    assert ResultJournal(ends[0]).write(result, _behind(result), 1, parent_reads=False) == (result, False)


def test_the_status_page_shows_which_task_runs(ends: Ends) -> None:
    status_page, reader = ends
    assert reader.at().sequence == 0
    assert status_page.begin_work_item(3, 7)
    assert (reader.at().sequence, reader.at().task, reader.at().running) == (3, 7, False)
    status_page.begin(7, 12345)
    assert (reader.at().sequence, reader.at().task, reader.at().running, reader.at().since_ns) == (3, 7, True, 12345)
    status_page.end(7)
    assert (reader.at().task, reader.at().running) == (8, False)


def test_a_revoked_work_item_is_not_begun_and_a_later_one_is(ends: Ends) -> None:
    status_page, reader = ends
    assert status_page.begin_work_item(1, 0)
    assert reader.revoke(4).sequence == 1
    assert [status_page.begin_work_item(sequence, 0) for sequence in (2, 3, 4, 5)] == [False, False, False, True]


# No journal has so many bytes, and no memory is taken for them.
_TOO_MUCH = [struct.pack("<Q", size) for size in (8 * 1024 * 1024 + 1, 2**62)]


@pytest.mark.parametrize(("area", "sizes"), [(3, b""), (255, b""), (0, b"123"), (0, _TOO_MUCH[0]), (0, _TOO_MUCH[1])])
def test_a_message_that_is_no_place_in_the_journal_is_refused(area: int, sizes: bytes, ends: Ends) -> None:
    with pytest.raises((ValueError, OSError)):
        ResultJournalReader(ends[1]).take(ResultInMemory(_result(1), area, sizes))

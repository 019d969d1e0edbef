"""Results, compared with a model: their order, which error counts, when callbacks run."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpr.pool.results import AsyncResult, MapResult, ResultIterator, SingleResult

# --- iterators ----------------------------------------------------------------------------------------------------


class _WorkItem:
    """One work item of an iterator: the items `start` to `start + count`, or an error for all of them."""

    def __init__(self, start: int, count: int, fails: bool) -> None:
        self.start = start
        self.count = count
        self.error = ValueError(start) if fails else None
        self.items: list[Any] = [self.error] * count if fails else list(range(start, start + count))

    def report(self, results: ResultIterator[Any]) -> None:
        results.on_outcome(self.start, self.count, None if self.error else self.items, self.error)


@st.composite
def _runs(draw: st.DrawFn) -> tuple[list[_WorkItem], list[_WorkItem | None], Exception | None]:
    """Draw work items, the order of their outcomes (None: the end of the input), and the error of the input."""
    work_items: list[_WorkItem] = []
    start = 0
    for count in draw(st.lists(st.integers(1, 4), max_size=6)):
        work_items.append(_WorkItem(start, count, draw(st.booleans())))
        start += count
    order: list[_WorkItem | None] = draw(st.permutations([*work_items, None]))
    return work_items, order, draw(st.none() | st.just(KeyError("input")))


def _take(results: ResultIterator[Any]) -> Any:
    """Return the next value or error; `TimeoutError` if there is none yet."""
    try:
        return results.next(timeout=0)
    except Exception as error:
        return error


def _is_end(found: Any) -> bool:
    return isinstance(found, StopIteration)


@given(_runs(), st.booleans(), st.data())
@settings(deadline=None)
def test_an_iterator_gives_each_item_once_in_its_order(
    run: tuple[list[_WorkItem], list[_WorkItem | None], Exception | None], ordered: bool, data: st.DataObject
) -> None:
    work_items, order, error = run
    length = sum(work_item.count for work_item in work_items)
    taken: list[None] = []
    results: ResultIterator[Any] = ResultIterator(ordered, lambda: taken.append(None))
    found: list[Any] = []
    arrived: list[Any] = []
    in_order = [item for work_item in work_items for item in work_item.items] + ([error] if error else [])
    for delivery in order:
        if delivery is None:
            results.finish(length, error)
        else:
            delivery.report(results)
            arrived += delivery.items
        # A reader takes some values in between. It gets values that are there at once.
        for _ in range(data.draw(st.integers(0, 5))):
            got = _take(results)
            if isinstance(got, multiprocessing.TimeoutError) or _is_end(got):
                break
            found.append(got)
    while not _is_end(got := _take(results)):
        assert not isinstance(got, multiprocessing.TimeoutError)
        found.append(got)
    # The error of the input comes last, whenever it was raised.
    arrived += [error] if error else []
    assert (in_order if ordered else arrived) == found
    assert len(found) == len(taken)
    # An iterator that has ended stays at its end.
    assert _is_end(_take(results))


@given(_runs())
@settings(deadline=None)
def test_an_ordered_iterator_gives_an_item_as_soon_as_those_before_it_are_there(
    run: tuple[list[_WorkItem], list[_WorkItem | None], Exception | None],
) -> None:
    work_items, order, _ = run
    results: ResultIterator[Any] = ResultIterator(True, lambda: None)
    delivered: set[int] = set()
    count = 0
    for delivery in order:
        if delivery is None:
            continue
        delivery.report(results)
        delivered.add(delivery.start)
        available = 0
        for work_item in work_items:
            if work_item.start not in delivered:
                break
            available += work_item.count
        while not isinstance(_take(results), multiprocessing.TimeoutError):
            count += 1
        assert available == count


def test_an_iterator_without_items_ends_at_once() -> None:
    results: ResultIterator[int] = ResultIterator(True, lambda: None)
    results.finish(0)
    assert list(results) == []


@pytest.mark.parametrize("ordered", [True, False])
def test_an_error_of_the_input_comes_behind_the_items_before_it(ordered: bool) -> None:
    results: ResultIterator[int] = ResultIterator(ordered, lambda: None)
    results.on_outcome(0, 2, [10, 11], None)
    results.finish(2, KeyError("input"))
    assert [10, 11] == [next(results), next(results)]
    with pytest.raises(KeyError, match="input"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_an_iterator_goes_on_behind_an_error() -> None:
    results: ResultIterator[int] = ResultIterator(True, lambda: None)
    results.on_outcome(0, 1, None, ValueError("first"))
    results.on_outcome(1, 1, [11], None)
    results.finish(2)
    with pytest.raises(ValueError, match="first"):
        next(results)
    assert [11] == list(results)


def test_an_iterator_waits_for_a_value_from_another_thread() -> None:
    results: ResultIterator[int] = ResultIterator(True, lambda: None)
    found: list[int] = []
    taker = threading.Thread(target=lambda: found.extend(results))
    taker.start()
    for start in range(5):
        results.on_outcome(start, 1, [start], None)
    results.finish(5)
    taker.join(30)
    assert [0, 1, 2, 3, 4] == found


# --- one result ---------------------------------------------------------------------------------------------------


def _pending(callback: Any = None, error_callback: Any = None) -> list[tuple[AsyncResult[Any], Callable[..., None]]]:
    """Return the result of a call and that of a map, each with a function that delivers a value or an error."""
    single: SingleResult[Any] = SingleResult(callback, error_callback)
    of_map: MapResult[Any] = MapResult(1, callback, error_callback)

    def deliver_single(values: Any, error: BaseException | None) -> None:
        # A call returns what its task returned, and a map a list.
        single.on_outcome(0, 1, [values] if error is None else None, error)

    def deliver_map(values: Any, error: BaseException | None) -> None:
        of_map.on_outcome(0, 1, values, error)

    return [(single, deliver_single), (of_map, deliver_map)]


def test_a_pending_result_is_neither_ready_nor_successful() -> None:
    for result, _ in _pending():
        assert not result.ready()
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        with pytest.raises(multiprocessing.TimeoutError):
            result.get(timeout=0)
        result.wait(timeout=0)
        assert not result.ready()


def test_a_delivered_result_is_ready_and_successful() -> None:
    for result, deliver in _pending():
        deliver([5], None)
        result.wait()
        assert (True, True, [5]) == (result.ready(), result.successful(), result.get(timeout=0))


def test_an_error_is_raised_by_every_get() -> None:
    for result, deliver in _pending():
        error = KeyError("task")
        deliver(None, error)
        assert (True, False) == (result.ready(), result.successful())
        for _ in range(2):
            with pytest.raises(KeyError) as caught:
                result.get()
            assert error is caught.value


@pytest.mark.parametrize("error", [None, KeyError("task")])
def test_one_callback_runs_once_and_before_get_returns(error: Exception | None) -> None:
    calls: list[tuple[str, Any, bool]] = []
    waiting: list[AsyncResult[Any]] = []

    def note(name: str) -> Callable[[Any], None]:
        return lambda value: calls.append((name, value, waiting[0].ready()))

    for result, deliver in _pending(note("callback"), note("error_callback")):
        waiting[:] = [result]
        calls.clear()
        deliver(None if error else [5], error)
        # The result is not ready while the callback runs, so no `get` has returned.
        assert [("error_callback", error, False) if error else ("callback", [5], False)] == calls
        assert result.ready()


def test_a_callback_that_raises_leaves_the_result_ready() -> None:
    def fail(value: Any) -> None:
        raise RuntimeError("callback")

    for result, deliver in _pending(fail):
        with pytest.raises(RuntimeError, match="callback"):
            deliver([5], None)
        assert [5] == result.get(timeout=0)


def test_get_waits_for_a_value_from_another_thread() -> None:
    for result, deliver in _pending():
        found: list[Any] = []
        taker = threading.Thread(target=lambda result=result, found=found: found.append(result.get()))
        taker.start()
        deliver([5], None)
        taker.join(30)
        assert [[5]] == found


# --- maps ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=6), st.data())
@settings(deadline=None)
def test_a_map_has_its_values_in_order_or_the_first_error(
    work_items: list[tuple[int, bool]], data: st.DataObject
) -> None:
    length = sum(count for count, _ in work_items)
    starts = [sum(count for count, _ in work_items[:index]) for index in range(len(work_items))]
    result: MapResult[int] = MapResult(length, None, None)
    first: Exception | None = None
    for index in data.draw(st.permutations(range(len(work_items)))):
        # Only the last work item makes the result ready, even if one has failed before.
        assert not result.ready()
        start, (count, fails) = starts[index], work_items[index]
        error = ValueError(index) if fails else None
        first = first or error
        result.on_outcome(start, count, None if fails else list(range(start, start + count)), error)
    assert result.ready()
    if first is None:
        assert list(range(length)) == result.get(timeout=0)
    else:
        with pytest.raises(ValueError) as caught:  # noqa: PT011  # it is the very object
            result.get(timeout=0)
        assert first is caught.value


def test_a_map_of_nothing_is_ready_with_an_empty_list() -> None:
    calls: list[Any] = []
    result: MapResult[int] = MapResult(0, calls.append, None)
    assert (True, []) == (result.ready(), result.get(timeout=0))
    assert [[]] == calls

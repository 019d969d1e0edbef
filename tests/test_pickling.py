"""Tasks, arguments, results and exceptions that can be pickled, and the error if one cannot."""

from __future__ import annotations

import functools
import multiprocessing
import pickle
import threading
import traceback
from collections.abc import Callable
from multiprocessing.pool import MaybeEncodingError, RemoteTraceback
from typing import Any

import cloudpickle
import numpy as np
import pytest

from mpr.errors import SinkError, TaskError, TaskLoadError, UnpicklableTaskError, WorkerDiedError
from mpr.processes import by_value, pickle_errors, pickling, task_pickling
from mpr.processes.pickling import Portable

_LOCK = threading.Lock()


class Counter:
    """A class with a method, in a module that can be imported."""

    def __init__(self, start: int) -> None:
        self.start = start

    def plus(self, number: int) -> int:
        return self.start + number


class Holder:
    """A class with an attribute that cannot travel."""

    def __init__(self) -> None:
        self.name = "holder"
        self.lock = threading.Lock()

    def method(self) -> str:
        return self.name


class Node:
    """An object that refers to itself."""

    def __init__(self) -> None:
        self.children: list[Node] = []
        self.parent: Node | None = None
        self.lock: Any = None


def double(number: int) -> int:
    return 2 * number


def _adder(start: int) -> Callable[[int], int]:
    return lambda number: start + number


# --- functions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        pytest.param(double, 10, id="function"),
        pytest.param(lambda number: number + 1, 6, id="lambda"),
        pytest.param(_adder(3), 8, id="closure"),
        pytest.param(functools.partial(pow, 2), 32, id="partial"),
        pytest.param(functools.partial(_adder(1)), 6, id="partial of a closure"),
        pytest.param(Counter(4).plus, 9, id="bound method"),
        pytest.param(float, 5.0, id="class"),
    ],
)
def test_a_callable_of_any_kind_travels(function: Callable[[int], Any], expected: Any) -> None:
    _, data = task_pickling.dump_function(function)
    assert expected == task_pickling.load_function(data)(5)


def test_a_closure_over_an_array_travels() -> None:
    table = np.arange(100_000)
    _, data = task_pickling.dump_function(lambda index: int(table[index]))
    assert 99_999 == task_pickling.load_function(data)(99_999)


def test_equal_functions_have_one_digest_and_others_another() -> None:
    assert task_pickling.dump_function(double) == task_pickling.dump_function(double)
    assert task_pickling.dump_function(_adder(1))[0] != task_pickling.dump_function(_adder(2))[0]


@pytest.mark.parametrize("value", [5, None, "double"])
def test_an_object_that_cannot_be_called_is_refused(value: Any) -> None:
    with pytest.raises(UnpicklableTaskError, match=f"must be callable, got {value!r}"):
        task_pickling.dump_function(value)


def test_a_function_that_cannot_be_loaded_says_why() -> None:
    with pytest.raises(TaskLoadError, match=r"No module named 'not_there'.*must be importable"):
        task_pickling.load_function(b"cnot_there\ntask\n.")


def test_a_function_that_is_sent_by_its_name_says_so() -> None:
    with pytest.raises(TaskLoadError, match=r"'not_there'.*It was sent by its name.*not in a notebook"):
        task_pickling.load_function(b"cos\nnot_there\n.")


def test_what_is_no_function_in_the_worker_is_refused_there() -> None:
    with pytest.raises(TaskLoadError, match="it became 7"):
        task_pickling.load_function(pickle.dumps(7))


@functools.lru_cache(maxsize=7, typed=True)
def _cached(number: int) -> int:
    return number + 1


def test_a_function_with_a_cache_goes_by_its_name_if_it_can_be_imported() -> None:
    assert by_value.dumps(_cached, pickling.PICKLE_PROTOCOL) == cloudpickle.dumps(_cached, pickling.PICKLE_PROTOCOL)


def test_a_function_with_a_cache_goes_by_value_if_it_cannot_be_imported() -> None:
    @functools.lru_cache(maxsize=7, typed=True)
    def cached(number: int) -> int:
        """Add one."""
        return number + 1

    cached.owner = "me"  # type: ignore[attr-defined]  # as libraries do
    there: Any = task_pickling.load_function(task_pickling.dump_function(cached)[1])
    assert there is not cached
    assert [there(1), there(1), there.__doc__, there.owner] == [2, 2, "Add one.", "me"]
    assert there.cache_info() == (1, 1, 7, 1)
    assert there.cache_parameters() == {"maxsize": 7, "typed": True}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (double, "double"),
        (Counter(1).plus, "Counter.plus"),
        (functools.partial(double), "partial"),
        (_adder(1), "_adder.<locals>.<lambda>"),
    ],
)
def test_every_callable_has_a_name_for_messages(value: Any, expected: str) -> None:
    assert expected == task_pickling.task_name(value)


# --- what is to blame ---------------------------------------------------------------------------------------------

_A_LOCK = "is a _thread.lock"


def _with_lock() -> Callable[[], Any]:
    lock = threading.Lock()
    return lambda: lock


def _with_lock_in_list() -> Callable[[], Any]:
    things = [1, threading.Lock()]
    return lambda: things


def _in_a_circle() -> Node:
    top, below = Node(), Node()
    top.children.append(below)
    below.parent = top
    top.lock = threading.Lock()
    return below


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(_with_lock, f"its variable 'lock' {_A_LOCK}", id="closure"),
        pytest.param(lambda: lambda: _LOCK, f"its global '_LOCK' {_A_LOCK}", id="global"),
        pytest.param(
            lambda: lambda: [_LOCK.locked() for _ in range(3)], f"its global '_LOCK' {_A_LOCK}", id="global further in"
        ),
        pytest.param(Holder, f"its attribute 'lock' {_A_LOCK}", id="attribute"),
        pytest.param(lambda: [1, threading.Lock()], f"item 1 {_A_LOCK}", id="list"),
        pytest.param(lambda: {"key": threading.Lock()}, f"the value of 'key' {_A_LOCK}", id="dict"),
        pytest.param(
            _with_lock_in_list,
            f"its variable 'things' is a list, where item 1 {_A_LOCK}",
            id="list in closure",
        ),
        pytest.param(
            lambda: Holder().method,
            f"its object is a {__name__}.Holder, where its attribute 'lock' {_A_LOCK}",
            id="bound method",
        ),
        pytest.param(lambda: functools.partial(double, threading.Lock()), f"its argument 0 {_A_LOCK}", id="partial"),
        pytest.param(
            lambda: functools.partial(double, number=threading.Lock()),
            f"its argument 'number' {_A_LOCK}",
            id="partial by name",
        ),
        pytest.param(
            lambda: functools.partial(_with_lock()),
            f"its function is a function, where its variable 'lock' {_A_LOCK}",
            id="partial of a closure",
        ),
        pytest.param(lambda: lambda lock=_LOCK: lock, f"its default 0 {_A_LOCK}", id="default"),
        pytest.param(lambda: lambda *, lock=_LOCK: lock, f"its default 'lock' {_A_LOCK}", id="named default"),
        pytest.param(
            _in_a_circle,
            f"its attribute 'parent' is a {__name__}.Node, where its attribute 'lock' {_A_LOCK}",
            id="circle",
        ),
    ],
)
def test_the_part_that_cannot_travel_is_named(make: Callable[[], Any], expected: str) -> None:
    value = make()
    assert expected == pickle_errors.find_culprit(value)
    with pytest.raises(UnpicklableTaskError) as caught:
        task_pickling.dump_arguments("detect[3]", value)
    assert f"an argument of task 'detect[3]' cannot be sent to a worker: {expected} (" in str(caught.value)
    assert isinstance(caught.value.__cause__, Exception)


def test_a_list_that_holds_itself_and_a_lock_is_to_blame_for_the_lock() -> None:
    things: list[Any] = []
    things += [things, threading.Lock()]
    assert f"item 1 {_A_LOCK}" == pickle_errors.find_culprit(things)


def test_nothing_is_to_blame_if_all_parts_can_travel() -> None:
    assert pickle_errors.find_culprit([1, "two", Counter(3)]) is None


class Touchy:
    """An object that raises at every access to an attribute."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("do not touch")


def test_an_exception_that_an_object_raises_while_it_is_pickled_gets_a_note() -> None:
    with pytest.raises(RuntimeError, match="do not touch") as caught:
        task_pickling.dump_arguments("f", Touchy())
    assert ["an argument of task 'f' cannot be sent to a worker"] == caught.value.__notes__


def test_a_task_function_that_cannot_travel_is_named() -> None:
    with pytest.raises(UnpicklableTaskError) as caught:
        task_pickling.dump_function(_with_lock())
    assert "the task function '_with_lock.<locals>.<lambda>' cannot be sent" in str(caught.value)
    assert f"its variable 'lock' {_A_LOCK}" in str(caught.value)


# --- values -------------------------------------------------------------------------------------------------------


def test_large_buffers_travel_apart_and_uncopied() -> None:
    image = np.arange(1_000_000, dtype=np.uint8).reshape(1000, 1000)
    payload = pickling.dumps({"image": image})
    assert 2 == len(payload)
    assert len(payload[0]) < 1000
    assert np.shares_memory(image, np.frombuffer(payload[1], dtype=np.uint8))
    back = pickling.loads([bytes(part) for part in payload])
    assert np.array_equal(image, back["image"])


def test_an_array_next_to_a_lambda_travels_as_well() -> None:
    payload = pickling.dumps((np.arange(1000), lambda number: number + 1))
    array, function = pickling.loads([bytes(part) for part in payload])
    assert np.array_equal(np.arange(1000), array)
    assert 3 == function(2)


def test_a_result_that_cannot_travel_fails_alone_as_in_a_multiprocessing_pool() -> None:
    payload, together = task_pickling.dump_results([1, threading.Lock(), np.arange(100_000)])
    assert not together
    parts = task_pickling.parts_of_results([bytes(part) for part in payload], 3)
    assert [False, True, False] == [has_raised for has_raised, _ in parts]
    assert 1 == pickling.loads(parts[0][1])
    assert np.array_equal(np.arange(100_000), pickling.loads(parts[2][1]))
    error = task_pickling.load_exception(parts[1][1])
    assert isinstance(error, UnpicklableTaskError)
    assert isinstance(error, MaybeEncodingError)
    assert "lock" in str(error)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([1, None, "x", 2.5, {"a": [1, (2, b"3")]}, {4}], True),
        ([{"a": double}], True),
        ([{"a": double}, 2], False),
        ([np.float64(1), 2], False),
    ],
)
def test_only_plain_results_are_pickled_together(results: list[Any], expected: bool) -> None:
    payload, together = task_pickling.dump_results(results)
    assert expected == together
    if together:
        assert results == pickling.loads(payload)


def test_results_of_another_number_are_refused() -> None:
    payload, _ = task_pickling.dump_results([double, double])
    with pytest.raises(ValueError, match="2 results and not 3"):
        task_pickling.parts_of_results(payload, 3)


def test_a_portable_value_travels_by_either_pickler() -> None:
    for function in (double, lambda number: 2 * number):
        assert 10 == pickle.loads(pickle.dumps(Portable(function))).value(5)


def test_a_lock_of_multiprocessing_can_be_an_argument_of_the_initializer() -> None:
    lock = multiprocessing.get_context("spawn").Lock()
    task_pickling.check_portable("the initializer", Portable((print, (lock,))))


def test_a_lock_of_a_thread_cannot_be_an_argument_of_the_initializer() -> None:
    with pytest.raises(UnpicklableTaskError, match=r"the initializer cannot be sent to a worker: item 1 is a .*lock"):
        task_pickling.check_portable("the initializer", Portable((print, (threading.Lock(),))))


# --- exceptions ---------------------------------------------------------------------------------------------------


class TwoArgumentsError(Exception):
    """An error whose pickle has one argument too few, which is a frequent mistake."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class WithLockError(Exception):
    """An error with an attribute that cannot travel."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class MuteError(WithLockError):
    """An error that cannot travel and has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class MuteButPicklableError(Exception):
    """An error that can travel and has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class ChangelingError(Exception):
    """An error whose pickle is another exception."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ValueError, ("another",)


def _raised(error: BaseException) -> BaseException:
    """`error` with a traceback, as a task's exceptions have one."""
    try:
        raise error
    except BaseException as caught:
        return caught


def _sent(error: BaseException) -> BaseException:
    payload = task_pickling.dump_exception(_raised(error))
    return task_pickling.load_exception([bytes(part) for part in payload])


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad", 5),
        KeyError("key"),
        OSError(28, "No space left on device", "run.rrd"),
        SystemExit(3),
        KeyboardInterrupt(),
        SinkError("the disk is full"),
        WorkerDiedError("detect[3]", 1, 4711, -9),
        ExceptionGroup("two", [ValueError("one"), KeyError("other")]),
    ],
)
def test_an_exception_arrives_as_it_is_with_its_traceback_as_the_cause(error: BaseException) -> None:
    back = _sent(error)
    assert type(error) is type(back)
    # Arguments are compared by their text, because the members of a group are other objects.
    assert (repr(error.args), str(error)) == (repr(back.args), str(back))
    assert isinstance(back.__cause__, RemoteTraceback)
    assert "in _raised" in str(back.__cause__)


def test_an_exception_of_a_class_within_a_function_arrives_as_it_is() -> None:
    class LocalError(Exception):
        pass

    back = _sent(LocalError("text"))
    assert (LocalError, ("text",)) == (type(back), back.args)


def test_an_exception_with_a_note_keeps_it() -> None:
    error = ValueError("bad")
    error.add_note("seen in the third picture")
    assert ["seen in the third picture"] == _sent(error).__notes__


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TwoArgumentsError("this", "that"), "this and that"),
        (WithLockError("locked"), "locked"),
        (MuteError("x"), "(its text cannot be made)"),
        (ChangelingError("mine"), "mine"),
    ],
)
def test_an_exception_that_cannot_travel_becomes_a_task_error(error: Exception, text: str) -> None:
    back = _sent(error)
    assert TaskError is type(back)
    assert f"{__name__}.{type(error).__qualname__}: {text} (" in str(back)
    assert isinstance(back.__cause__, RemoteTraceback)
    shown = "".join(traceback.format_exception(back))
    assert "in _raised" in shown
    assert type(error).__name__ in shown


def test_an_exception_without_a_text_arrives_if_it_can_travel() -> None:
    assert MuteButPicklableError is type(_sent(MuteButPicklableError("x")))


def test_an_exception_that_cannot_be_loaded_here_is_a_task_error() -> None:
    for payload in ([b"cnot_there\nError\n."], [b"no pickle"], []):
        assert TaskError is type(task_pickling.load_exception(payload))


def test_a_function_that_travels_by_value_keeps_its_file() -> None:
    """A traceback needs the file to show lines. Cloudpickle from 3.1.3 on leaves it out."""

    def outer() -> Any:
        return lambda: None

    for data in (task_pickling.dump_function(outer)[1], task_pickling.dump_by_value(outer)):
        there = task_pickling.load_function(data)
        assert [there.__code__.co_filename, there().__code__.co_filename] == [__file__, __file__]

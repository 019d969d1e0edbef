"""Exceptions of tasks that raise when they are looked at: each concerns its own task, and the pool goes on."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import mpr
from tests import support, tasks

_PID = os.getpid()


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):  # noqa: N818  # as a user would name it
    """An exception on which no attribute can be set, not even a cause."""


@dataclasses.dataclass(frozen=True)
class FrozenWithField(Exception):  # noqa: N818  # as a user would name it
    number: int = 1


class RefusesAttributes(Exception):  # noqa: N818  # as a user would name it
    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(name)


class RefusesPickling(Exception):  # noqa: N818  # as a user would name it
    def __reduce__(self) -> NoReturn:
        raise RuntimeError("no pickle")


def _refuse_unpickling(parent: int | None) -> Exception:
    if parent in (None, os.getpid()):
        raise RuntimeError("no object")
    return RefusesParent(parent)


class RefusesUnpickling(Exception):  # noqa: N818  # as a user would name it
    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse_unpickling, (None,)


class RefusesParent(Exception):  # noqa: N818  # as a user would name it
    """An exception that one process cannot unpickle, and all others can."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse_unpickling, self.args


class ExitsParent(Exception):  # noqa: N818  # as a user would name it
    """An exception that ends the parent when the parent unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _exit_parent, self.args


def _exit_parent(parent: int) -> Exception:
    if os.getpid() == parent:
        raise SystemExit(1)
    return ExitsParent(parent)


class RefusesRepr(Exception):  # noqa: N818  # as a user would name it
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class ExitsWhenShown(Exception):  # noqa: N818  # as a user would name it
    def __repr__(self) -> str:
        raise SystemExit(1)

    __str__ = __repr__


class RefusesBool(Exception):  # noqa: N818  # as a user would name it
    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


class RefusesClass(Exception):  # noqa: N818  # as a user would name it
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")

    @__class__.setter
    def __class__(self, value: object) -> None: ...


_KINDS: list[type[Exception]] = [
    Frozen,
    FrozenWithField,
    RefusesAttributes,
    RefusesPickling,
    RefusesUnpickling,
    RefusesParent,
    ExitsParent,
    RefusesRepr,
    ExitsWhenShown,
    RefusesBool,
    RefusesClass,
]


def _make(kind: type[Exception], parent: int) -> Exception:
    return kind(parent) if kind in (RefusesParent, ExitsParent) else kind()


def _raise(kind: type[Exception], parent: int) -> NoReturn:
    raise _make(kind, parent)


def _raise_at_one(argument: tuple[type[Exception], int, int]) -> int:
    kind, parent, number = argument
    tasks.log_number(number)
    if number == 1:
        _raise(kind, parent)
    return number


def _error_of(call: Callable[[], object]) -> BaseException:
    try:
        returned = call()
    except BaseException as error:  # it is looked at
        return error
    raise AssertionError(f"it returned {returned!r}")


def _is_or_names(error: BaseException | None, kind: type[Exception]) -> bool:
    return type(error) is kind or (type(error) is mpr.TaskError and kind.__name__ in str(error))


@pytest.mark.parametrize("kind", _KINDS)
def test_a_hostile_exception_fails_only_its_own_task(kind: type[Exception], tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    arguments = [(kind, _PID, number) for number in range(4)]
    with mpr.Pool("app", 2, sinks=path) as pool:
        before = pool.apply_async(tasks.log_number, (10,))
        whole = pool.map_async(_raise_at_one, arguments, chunksize=2)
        future = pool.submit(_raise, kind, _PID)
        after = pool.submit(tasks.log_number, 11)
        assert before.get(60) == 10
        assert after.result(60) == 11
        assert _is_or_names(_error_of(lambda: whole.get(60)), kind)
        assert _is_or_names(future.exception(60), kind)
        # The other tasks of the chunk have their results.
        results = pool.imap(_raise_at_one, arguments, chunksize=4)
        assert next(results) == 0
        assert _is_or_names(_error_of(lambda: next(results)), kind)
        assert list(results) == [2, 3]
        assert pool.map(tasks.log_number, range(12, 20), chunksize=1) == list(range(12, 20))
    support.check_file(path)
    assert support.numbers(path) == Counter({**dict.fromkeys(range(4), 2), **dict.fromkeys(range(10, 20), 1)})


@pytest.mark.parametrize("kind", _KINDS)
def test_a_callback_that_raises_a_hostile_exception_fails_no_task(kind: type[Exception], tmp_path: Path) -> None:
    called = threading.Event()

    def call_back(_: object) -> None:
        called.set()
        raise _make(kind, _PID)

    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        result = pool.apply_async(tasks.square, (3,), callback=call_back)
        future = pool.submit(tasks.square, 4)
        future.add_done_callback(call_back)
        assert (result.get(60), future.result(60)) == (9, 16)
        assert called.is_set()
        failing = pool.apply_async(_raise, (kind, _PID), error_callback=call_back)
        assert _is_or_names(_error_of(lambda: failing.get(60)), kind)
        assert pool.map(tasks.square, range(5)) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("kind", [Frozen, RefusesParent, ExitsWhenShown, RefusesBool])
def test_an_initializer_that_raises_a_hostile_exception_ends_its_pool(kind: type[Exception], tmp_path: Path) -> None:
    pool = mpr.Pool("app", 1, _raise, (kind, _PID), sinks=tmp_path / "run.rrd")
    error = _error_of(lambda: pool.apply(tasks.square, (1,)))
    assert isinstance(error, mpr.InitializerError)
    assert kind.__name__ in str(error)
    pool.close()
    pool.join()


def test_a_future_that_the_user_has_settled_fails_no_other_task(tmp_path: Path) -> None:
    go_on = tmp_path / "go_on"
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        first = pool.submit(tasks.wait_for_file, go_on)
        waiting = [pool.submit(tasks.square, number) for number in range(40)]
        waiting[39].set_result(-1)
        go_on.touch()
        first.result(60)
        assert [each.result(60) for each in waiting] == [*(number * number for number in range(39)), -1]

"""Exceptions of tasks that raise when they are looked at: each concerns its own task, and the pool goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
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


class UnusualSyntaxError(SyntaxError):
    """An exception that `traceback` cannot format, because its text is no text."""

    def __init__(self) -> None:
        super().__init__("bad", ("file.py", 1, 1, 7))


class RefusesComparison(Exception):  # noqa: N818  # as a user would name it
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no equality")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __len__(self) -> int:
        raise RuntimeError("no length")


class ExitsByNotes(Exception):  # noqa: N818  # as a user would name it
    @property
    def __notes__(self) -> Any:
        raise SystemExit(1)


class RefusesCause(Exception):  # noqa: N818  # as a user would name it
    @property
    def __cause__(self) -> Any:
        raise RuntimeError("no cause")

    @property
    def __traceback__(self) -> Any:
        raise RuntimeError("no traceback")


class _RefusesName(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__qualname__", "__module__"):
            raise RuntimeError("no name")
        return super().__getattribute__(name)


class RefusesName(Exception, metaclass=_RefusesName):  # noqa: N818  # as a user would name it
    pass


class HasNoText(Exception):  # noqa: N818  # as a user would name it
    def __str__(self) -> Any:
        return 7  # noqa: PLE0307  # on purpose


class Interrupts(BaseException):
    """An exception that looks like Ctrl-C when it is shown."""

    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


class CannotBeEncoded(Exception):  # noqa: N818  # as a user would name it
    """An exception with the name of a file that has no encoding in UTF-8."""

    def __init__(self) -> None:
        super().__init__("caf\udce9")


class HasManyCauses(Exception):  # noqa: N818  # as a user would name it
    """An exception with more causes than Python's stack has places."""

    def __init__(self) -> None:
        error: BaseException = self
        for _ in range(3000):
            error.__cause__ = error = ValueError()


class NeedsTwoArguments(Exception):  # noqa: N818  # as a user would name it
    """An exception that can be pickled and not unpickled, which is frequent."""

    def __init__(self, code: int = 1, *, reason: str = "x") -> None:
        super().__init__(f"{code} {reason}", reason)


_KINDS: list[type[BaseException]] = [
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
    UnusualSyntaxError,
    RefusesComparison,
    ExitsByNotes,
    RefusesCause,
    RefusesName,
    HasNoText,
    Interrupts,
    CannotBeEncoded,
    HasManyCauses,
    NeedsTwoArguments,
]


def _make(kind: type[BaseException], parent: int) -> BaseException:
    return kind(parent) if kind in (RefusesParent, ExitsParent) else kind()


def _raise(name: str, parent: int) -> NoReturn:
    # By the name, because not every kind can be pickled.
    raise _make(globals()[name], parent)


def _raise_at_one(argument: tuple[str, int, int]) -> int:
    name, parent, number = argument
    tasks.log_number(number)
    if number == 1:
        _raise(name, parent)
    return number


def _error_of(call: Callable[[], object]) -> BaseException:
    try:
        returned = call()
    except BaseException as error:  # it is looked at
        return error
    raise AssertionError(f"it returned {returned!r}")


def _is_or_names(error: BaseException | None, kind: type[BaseException]) -> bool:
    name = type.__dict__["__qualname__"].__get__(kind)
    if kind in (Frozen, FrozenWithField, RefusesAttributes):
        return type(error) is kind
    return type(error) is kind or (type(error) is mpr.TaskError and name in str(error))


@pytest.mark.parametrize("kind", _KINDS)
def test_a_hostile_exception_fails_only_its_own_task(kind: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    arguments = [(kind.__name__, _PID, number) for number in range(4)]
    with mpr.Pool("app", 2, sinks=path) as pool:
        before = pool.apply_async(tasks.log_number, (10,))
        whole = pool.map_async(_raise_at_one, arguments, chunksize=2)
        future = pool.submit(_raise, kind.__name__, _PID)
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


def _raise_with_fields() -> NoReturn:
    error = FrozenWithField(7)
    object.__setattr__(error, "more", [1])
    raise error


def test_an_exception_on_which_no_attribute_can_be_set_keeps_its_attributes(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        error = _error_of(lambda: pool.apply(_raise_with_fields))
    assert type(error) is FrozenWithField
    assert (error.number, error.args, vars(error)) == (7, (7,), {"number": 7, "more": [1]})


@mpr.task
def _raise_in_task(name: str) -> NoReturn:
    tasks.log_number(1)
    _raise(name, -1)


@mpr.task
def _raise_in_steps(name: str) -> Iterator[int]:
    yield tasks.log_number(2)
    _raise(name, -1)


@mpr.task
async def _raise_in_coroutine(name: str) -> NoReturn:
    tasks.log_number(3)
    await asyncio.sleep(0)
    _raise(name, -1)


def _drive(coroutine: Coroutine[Any, Any, None]) -> None:
    while True:
        coroutine.send(None)


# `SystemExit` in the main thread always passes, because it may come from a signal's handler.
@pytest.mark.parametrize("kind", [each for each in _KINDS if each is not ExitsByNotes])
def test_a_task_outside_of_a_pool_raises_its_own_exception(kind: type[BaseException], tmp_path: Path) -> None:
    name, path = kind.__name__, tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        assert type(_error_of(lambda: _raise_in_task(name))) is kind
        assert type(_error_of(lambda: list(_raise_in_steps(name)))) is kind
        # Not by an event loop, because `asyncio` itself looks at the exception.
        assert type(_error_of(lambda: _drive(_raise_in_coroutine(name)))) is kind
    support.check_file(path)
    assert support.numbers(path) == Counter([1, 2, 3])


@pytest.mark.parametrize("kind", [Frozen, ExitsWhenShown, RefusesName, CannotBeEncoded])
def test_a_sink_that_keeps_tasks_apart_gets_the_rows_of_a_hostile_exception(
    kind: type[BaseException], tmp_path: Path
) -> None:
    arguments = [(kind.__name__, _PID, number) for number in range(4)]
    with mpr.Pool("app", 1, sinks=mpr.DirectorySink(path=tmp_path)) as pool:
        results = pool.imap(_raise_at_one, arguments, chunksize=4)
        assert next(results) == 0
        assert _is_or_names(_error_of(lambda: next(results)), kind)
        assert list(results) == [2, 3]
    found = sum((support.numbers(path) for path in tmp_path.rglob("*.rrd")), Counter[int]())
    assert found == Counter(range(4))


@pytest.mark.parametrize("kind", _KINDS)
def test_a_callback_that_raises_a_hostile_exception_fails_no_task(kind: type[BaseException], tmp_path: Path) -> None:
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
        failing = pool.apply_async(_raise, (kind.__name__, _PID), error_callback=call_back)
        assert _is_or_names(_error_of(lambda: failing.get(60)), kind)
        assert pool.map(tasks.square, range(5)) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize(
    "kind",
    [
        *[Frozen, RefusesParent, ExitsWhenShown, RefusesBool],
        *(pytest.param(each, marks=pytest.mark.slow) for each in _KINDS[12:]),
    ],
)
def test_an_initializer_that_raises_a_hostile_exception_ends_its_pool(
    kind: type[BaseException], tmp_path: Path
) -> None:
    pool = mpr.Pool("app", 1, _raise, (kind.__name__, _PID), sinks=tmp_path / "run.rrd")
    error = _error_of(lambda: pool.apply(tasks.square, (1,)))
    assert isinstance(error, mpr.InitializerError)
    assert "the initializer raised in worker" in str(error)
    assert _is_or_names(error.__cause__, kind)
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

"""Arguments, results, items and callbacks of a user that raise when they are looked at: each harms only its own task.

Covers: each kind of hostile object at each place at which a pool takes or gives one.
Does not cover: exceptions that tasks raise (`test_hostile_exceptions.py`).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import rerun as rr

import mpr
from mpr.processes import task_pickling
from tests import support, tasks

_PID = os.getpid()


# --- objects ------------------------------------------------------------------------------------------------------


def _refuse(*_: object) -> NoReturn:
    raise RuntimeError("not to be looked at")


def _exit(*_: object) -> NoReturn:
    raise SystemExit(1)


class Base:
    """An object of the tests. `parent` is the id of the process that has made it."""

    def __init__(self, parent: int) -> None:
        self.parent = parent


class RefusesToBeLookedAt(Base):
    """An object that can be pickled, and raises in all other methods that a program calls without thinking."""

    __repr__ = __str__ = __format__ = __bool__ = __len__ = __eq__ = __ne__ = __lt__ = __hash__ = _refuse
    __iter__ = __contains__ = __getitem__ = __call__ = __int__ = __index__ = __length_hint__ = _refuse


class ExitsWhenLookedAt(Base):
    __repr__ = __str__ = __format__ = __bool__ = __len__ = __eq__ = __ne__ = __lt__ = __hash__ = _exit
    __iter__ = __contains__ = __getitem__ = __call__ = __int__ = __index__ = __length_hint__ = _exit


class HasNoClass(Base):
    """An object whose `__class__` raises, which `isinstance` asks for."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")

    @__class__.setter
    def __class__(self, value: object) -> None: ...

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.parent,)


class RefusesPickling(RefusesToBeLookedAt):
    __reduce__ = _refuse


class ExitsWhenPickled(RefusesToBeLookedAt):
    __reduce__ = _exit


class RefusesUnpickling(RefusesToBeLookedAt):
    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ()


class RefusesParent(RefusesToBeLookedAt):
    """An object that the process of the pool cannot unpickle, and the workers can."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_outside, (type(self), self.parent)


class ExitsParent(RefusesParent):
    """An object that ends the process of the pool when it is unpickled there."""


class RefusesWorkers(RefusesToBeLookedAt):
    """An object that only the process of the pool can unpickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_inside, (type(self), self.parent)


def _make_outside(kind: type[Base], parent: int) -> Base:
    if os.getpid() == parent:
        _exit() if kind is ExitsParent else _refuse()
    return kind(parent)


def _make_inside(kind: type[Base], parent: int) -> Base:
    return kind(parent) if os.getpid() == parent else _refuse()


class RefusesState(RefusesToBeLookedAt):
    def __setstate__(self, state: object) -> NoReturn:
        _refuse()


class RefusesDeletion(Base):
    def __del__(self) -> None:
        _refuse()


class Deep:
    """Makes a list that is nested more deeply than Python's stack."""

    def __new__(cls, _parent: int) -> Any:
        made: list[Any] = []
        for _ in range(20_000):
            made = [made]
        return made


class ReturnedError(Exception):
    """An exception that a task returns, and that can be pickled but not unpickled. This is a frequent mistake."""

    def __init__(self, parent: int, *, url: str = "http://x") -> None:
        super().__init__(f"{parent} at {url}", url)


_KINDS: list[type] = [
    RefusesToBeLookedAt,
    ExitsWhenLookedAt,
    HasNoClass,
    RefusesPickling,
    ExitsWhenPickled,
    RefusesUnpickling,
    RefusesParent,
    ExitsParent,
    RefusesWorkers,
    RefusesState,
    RefusesDeletion,
    Deep,
    ReturnedError,
]
# Under pytest, workers do not import `__main__`, so cloudpickle pickles everything. It asks for the `__class__`.
_CANNOT_BE_PICKLED = {RefusesPickling, ExitsWhenPickled, Deep, HasNoClass}
_CANNOT_REACH_WORKERS = {*_CANNOT_BE_PICKLED, RefusesUnpickling, RefusesWorkers, RefusesState, ReturnedError}
_CANNOT_REACH_PARENT = {
    *_CANNOT_BE_PICKLED,
    RefusesUnpickling,
    RefusesParent,
    ExitsParent,
    RefusesState,
    ReturnedError,
}

every_kind = pytest.mark.parametrize("kind", _KINDS)
# `__del__` cannot raise an exception. Python only reports it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def _error_of(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:  # it is looked at
        return error
    raise AssertionError("it raised nothing")


def _check_pool(pool: mpr.Pool) -> None:
    """The pool still works, and so does each of its workers."""
    assert pool.map(tasks.log_number, range(100, 110), chunksize=1) == list(range(100, 110))


# --- as results ---------------------------------------------------------------------------------------------------


def _give(item: tuple[str, int, int]) -> object:
    name, parent, number = item
    tasks.log_number(number)
    return globals()[name](parent) if number % 4 == 1 else {"number": number}


def _give_exits(name: str, parent: int) -> object:
    return globals()[name](parent)


def _is_result(found: object, kind: type) -> bool:
    """Whether `found` is the hostile result itself, or the error that names it."""
    if kind in _CANNOT_BE_PICKLED:
        return type(found) is (SystemExit if kind is ExitsWhenPickled else task_pickling.UnpicklableResultError)
    if kind in _CANNOT_REACH_PARENT:
        return type(found) is mpr.TaskError and "cannot be unpickled here" in str(found) and "_give" in str(found)
    return type(found) is kind


def _outcomes(results: Iterator[object], count: int) -> list[object]:
    found: list[object] = []
    for _ in range(count):
        try:
            found.append(next(results))
        except BaseException as error:  # it is looked at
            found.append(error)
    return found


@every_kind
def test_a_hostile_result_is_the_result_of_its_own_task_only(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    items = [(kind.__name__, _PID, number) for number in range(8)]
    with mpr.Pool("app", 2, sinks=path) as pool:
        found = _outcomes(pool.imap(_give, items, chunksize=4), 8)
        assert [index for index, each in enumerate(found) if _is_result(each, kind)] == [1, 5]
        assert [found[index] for index in (0, 2, 3, 4, 6, 7)] == [{"number": index} for index in (0, 2, 3, 4, 6, 7)]
        found = _outcomes(pool.imap_unordered(_give, items, chunksize=4), 8)
        assert sum(_is_result(each, kind) for each in found) == 2
        assert sum(type(each) is dict for each in found) == 6
        whole = pool.map_async(_give, items, chunksize=4)
        single = pool.apply_async(_give_exits, (kind.__name__, _PID))
        future = pool.submit(_give_exits, kind.__name__, _PID)
        outcomes = [_outcome_of(whole.get), _outcome_of(single.get), _outcome_of(future.result)]
        if kind in _CANNOT_REACH_PARENT:
            assert all(_is_result(each, kind) for each in outcomes)
        else:
            assert _is_result(outcomes[0][1], kind)
            assert all(_is_result(each, kind) for each in outcomes[1:])
        _check_pool(pool)
    support.check_file(path)
    assert support.numbers(path) == Counter({**dict.fromkeys(range(8), 3), **dict.fromkeys(range(100, 110), 1)})


def _outcome_of(call: Callable[..., Any]) -> Any:
    try:
        return call(timeout=60)
    except BaseException as error:  # it is looked at
        return error


# --- as arguments -------------------------------------------------------------------------------------------------


def _take(item: object) -> int:
    """Log 1 and return 1 if `item` is hostile, otherwise log and return the number that it is."""
    return tasks.log_number(item if type(item) is int else 1)


def _take_two(first: object, *, second: object) -> int:
    return _take(second)


@every_kind
def test_a_hostile_argument_harms_only_its_own_work_item(kind: type, tmp_path: Path) -> None:
    hostile = kind(_PID)
    items = [0, hostile, 2, 3, 4, 5, 6, 7]
    arrives = kind not in _CANNOT_REACH_WORKERS
    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd") as pool:
        for call in (pool.imap, pool.imap_unordered):
            for chunksize in (1, 2):
                found = _outcomes(call(_take, items, chunksize=chunksize), 8)
                lost = [] if arrives else [1]
                if not arrives and chunksize == 2 and kind not in _CANNOT_BE_PICKLED:
                    # The worker cannot take a chunk apart that it cannot unpickle.
                    lost = [0, 1]
                good = [index for index in range(8) if index not in lost]
                assert sorted(each for each in found if type(each) is int) == good
                assert [_names_argument(each, kind) for each in found if type(each) is not int] == [True] * len(lost)
        for start in (
            lambda: pool.map_async(_take, [hostile]).get,
            lambda: pool.apply_async(_take, (hostile,)).get,
            lambda: pool.apply_async(_take_two, (1,), {"second": hostile}).get,
            lambda: pool.submit(_take, hostile).result,
            lambda: lambda timeout: next(pool.executor.map(_take, [hostile], timeout=timeout)),
        ):
            outcome = _outcome_of(lambda timeout, start=start: start()(timeout))
            if isinstance(outcome, list):
                outcome = outcome[0]
            assert _names_argument(outcome, kind) if not arrives else outcome == 1
        _check_pool(pool)


def _names_argument(error: object, kind: type) -> bool:
    if kind is ExitsWhenPickled:
        return type(error) is SystemExit
    if kind in (RefusesPickling, HasNoClass):
        # The error of a `__reduce__` is raised as it is, as `multiprocessing.Pool` does.
        return type(error) is RuntimeError
    if kind is Deep:
        return type(error) is mpr.UnpicklableTaskError and "an argument of task" in str(error)
    return type(error) is mpr.TaskLoadError and "a worker cannot load the arguments of a task" in str(error)


def test_an_executor_s_map_loses_only_the_call_that_cannot_be_pickled(tmp_path: Path) -> None:
    items = [0, threading.Lock(), 2, 3]
    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd") as pool:
        for buffersize in (None, 1):
            results = pool.executor.map(_take, items, chunksize=2, buffersize=buffersize)
            assert next(results) == 0
            assert type(_error_of(lambda results=results: next(results))) is mpr.UnpicklableTaskError
        _check_pool(pool)


# --- in initializers ----------------------------------------------------------------------------------------------


@every_kind
def test_a_hostile_argument_of_the_initializer(kind: type, tmp_path: Path) -> None:
    sinks = tmp_path / "run.rrd"
    if kind in _CANNOT_BE_PICKLED - {HasNoClass}:
        error = _error_of(lambda: mpr.Pool("app", 1, _take, (kind(_PID),), sinks=sinks))
        assert type(error) in (RuntimeError, SystemExit, mpr.UnpicklableTaskError)
        return
    pool = mpr.Pool("app", 1, _take, (kind(_PID),), sinks=sinks)
    # `HasNoClass` arrives, because the pickler of multiprocessing does not ask for the `__class__`.
    if kind in _CANNOT_REACH_WORKERS - {HasNoClass}:
        error = _error_of(lambda: pool.apply(tasks.square, (1,)))
        assert type(error) is mpr.InitializerError
        assert "cannot load the initializer, its arguments or worker_exit" in str(error)
        pool.terminate()
    else:
        _check_pool(pool)
        pool.close()
    pool.join()


# --- the input of a call ------------------------------------------------------------------------------------------


def _six_and(error: BaseException) -> Iterator[int]:
    yield from range(6)
    raise error


class _HasNoLength:
    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def __iter__(self) -> Iterator[int]:
        return iter(range(6))

    def __len__(self) -> int:
        raise self._error

    __length_hint__ = __len__


@pytest.mark.parametrize("chunksize", [1, 4])
@pytest.mark.parametrize("error", [ValueError("no more"), SystemExit(1), KeyboardInterrupt()])
def test_an_error_of_the_input_comes_after_all_results(error: BaseException, chunksize: int, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    # The items of a chunk that is not complete are dropped, as in `multiprocessing`.
    complete = 6 // chunksize * chunksize
    with mpr.Pool("app", 2, sinks=path) as pool:
        for call in (pool.imap, pool.imap_unordered):
            results = call(tasks.log_number, _six_and(error), chunksize=chunksize)
            found = _outcomes(results, complete + 1)
            assert sorted(found[:complete]) == list(range(complete))
            assert found[complete] is error
            assert type(_error_of(lambda results=results: next(results))) is StopIteration
        _check_pool(pool)
    assert support.numbers(path) == Counter({**dict.fromkeys(range(complete), 2), **dict.fromkeys(range(100, 110), 1)})


def test_an_error_of_the_input_waits_for_results_that_come_later(tmp_path: Path) -> None:
    go_on = tmp_path / "go_on"
    raised = threading.Event()

    def paths() -> Iterator[Path]:
        yield from [go_on, go_on]
        raised.set()
        raise ValueError("no more")

    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd") as pool:
        results = pool.imap_unordered(tasks.wait_for_file, paths())
        assert raised.wait(60)
        # No task has ended, because there is no file yet. So there is no result, and no error either.
        with pytest.raises(multiprocessing.TimeoutError):
            results.next(timeout=0.3)
        go_on.touch()
        assert [type(each) for each in _outcomes(results, 3)] == [type(None), type(None), ValueError]


def test_an_error_of_the_input_of_an_executor_comes_after_all_results(tmp_path: Path) -> None:
    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd") as pool:
        results = pool.executor.map(tasks.square, _six_and(ValueError("no more")), buffersize=2)
        found = _outcomes(results, 7)
        assert found[:6] == [number * number for number in range(6)]
        assert type(found[6]) is ValueError


@pytest.mark.parametrize("error", [ValueError, OverflowError])
def test_an_input_need_not_have_a_length(error: type[BaseException], tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        assert list(pool.imap(tasks.square, _HasNoLength(error))) == [0, 1, 4, 9, 16, 25]


# --- functions ----------------------------------------------------------------------------------------------------


class HasNoName:
    """A callable that raises when it is asked for an attribute that it does not have."""

    def __call__(self, number: int) -> int:
        return tasks.log_number(number)

    def __getattr__(self, name: str) -> Any:
        raise SystemExit(1) if os.getpid() != _PID else RuntimeError(name)


def test_a_function_need_not_have_a_name(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        assert pool.map(HasNoName(), range(4)) == list(range(4))
        _check_pool(pool)
    assert support.numbers(path) == Counter([*range(4), *range(100, 110)])


# --- callbacks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), ReturnedError(1)])
def test_all_callbacks_of_a_future_are_called(error: BaseException, tmp_path: Path) -> None:
    called = []

    def call(_: object) -> None:
        called.append(threading.current_thread().name)
        raise error

    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        go_on = tmp_path / "go_on"
        future = pool.submit(tasks.wait_for_file, go_on)
        for _ in range(3):
            future.add_done_callback(call)
        go_on.touch()
        future.result(60)
        _check_pool(pool)
    assert called == ["mpr-callbacks"] * 3


# --- the log ------------------------------------------------------------------------------------------------------


class _Raises(logging.Handler):
    """A handler and a filter that raises."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error
        self.count = 0

    def filter(self, record: logging.LogRecord) -> NoReturn:
        self.count += 1
        raise self.error

    handle = filter


def _raise_value_error(_: object) -> NoReturn:
    raise ValueError("in a callback")


@pytest.mark.parametrize("place", ["filter", "handler", "handler of the root", "record factory"])
@pytest.mark.parametrize("error", [ValueError("no log"), SystemExit(1)])
def test_a_log_that_raises_ends_no_thread(
    place: str, error: BaseException, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, hostile = tmp_path / "run.rrd", _Raises(error)
    logger, root, make_record = logging.getLogger("mpr"), logging.getLogger(), logging.getLogRecordFactory()
    level = logger.level
    logger.setLevel(logging.DEBUG)
    if place == "filter":
        logger.addFilter(hostile)
    elif place == "record factory":
        logging.setLogRecordFactory(lambda *_args, **_kwargs: hostile.filter(None))  # type: ignore[arg-type]
    else:
        (logger if place == "handler" else root).addHandler(hostile)
    try:
        with mpr.Pool("app", 2, sinks=path) as pool:
            # The aggregator's thread logs that the callback has raised, and that a worker has died.
            assert pool.apply_async(tasks.square, (3,), callback=_raise_value_error).get(60) == 9
            with pytest.raises(mpr.WorkerDiedError):
                pool.apply(tasks.log_and_die, (5,))
            _check_pool(pool)
    finally:
        logging.setLogRecordFactory(make_record)
        logger.setLevel(level)
        logger.removeFilter(hostile)
        logger.removeHandler(hostile)
        root.removeHandler(hostile)
    assert hostile.count >= 2
    support.check_file(path)
    assert support.numbers(path) == Counter([5, *range(100, 110)])
    # What could not be logged is printed.
    printed = capfd.readouterr().err
    assert "a callback for task square raised" in printed
    assert "a handler or filter of logging has raised" in printed


def _install_hostile_log(name: str) -> None:
    logging.getLogger(name).addFilter(_Raises(ValueError("no log")))
    logging.getLogger(name).setLevel(logging.DEBUG)


class _NoText:
    __str__ = __repr__ = _refuse


def _log_hostile(number: int) -> int:
    # Without capture, nothing would make a text of this argument, so it must not harm the task.
    logging.getLogger("app").debug("%s", _NoText())
    logging.getLogger("app").handle(logging.makeLogRecord({"name": None, "levelno": 50}))
    return tasks.log_number(number)


def test_logging_in_a_worker_harms_neither_its_tasks_nor_mpr(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, _install_hostile_log, ("mpr",), sinks=path) as pool:
        assert pool.map(_log_hostile, range(8)) == list(range(8))
        # mpr itself logs a warning in the worker, because of this call.
        pool.apply(_save, (tmp_path / "other.rrd",))
        _check_pool(pool)
    assert support.numbers(path) == Counter([*range(8), *range(100, 110)])


def _save(path: Path) -> None:
    rr.save(path)


class Text(str):
    """A text of a user's class that raises when it is looked at."""

    __bool__ = __len__ = __eq__ = __hash__ = _refuse

    def __radd__(self, other: str) -> Text:
        return self

    def split(self, *_: Any) -> Any:
        return ["x", self]


def _print_hostile(number: int) -> int:
    sys.stdout.write(Text(f"line {number}"))
    return tasks.log_number(number)


def test_a_printed_text_of_a_user_s_class_harms_no_task(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, capture_output=True) as pool:
        assert pool.map(_print_hostile, range(4)) == list(range(4))
    assert sorted(each.text for each in support.texts(path) if "stdout" in each.entity) == [
        f"line {number}" for number in range(4)
    ]


# --- forked children ----------------------------------------------------------------------------------------------


class _ExitWithHostileCode(SystemExit):
    @property
    def code(self) -> Any:
        raise RuntimeError("no code")

    @code.setter
    def code(self, value: object) -> None: ...


def _fork_and_raise(number: int) -> tuple[int, int]:
    child = os.fork()
    if child == 0:
        raise _ExitWithHostileCode
    return tasks.log_number(number), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_ends_also_if_its_exception_is_hostile(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        assert pool.map(_fork_and_raise, range(3)) == [(number, 1) for number in range(3)]
    assert support.numbers(path) == Counter(range(3))


# --- the end of the interpreter -----------------------------------------------------------------------------------

# The codec search path is dropped after the globals of all modules. Until then it keeps `__main__` alive, and what is
# in it. Some libraries do so, too.
_KEPT_ALIVE = """
import codecs, sys, types
from pathlib import Path
import mpr
import rerun as rr

codecs.register(lambda _, main=sys.modules["__main__"]: None)

@mpr.task
def generate():
    yield 1
    yield 2

@types.coroutine
def wait():
    yield

@mpr.task
async def walk():
    await wait()

@mpr.task
async def stream():
    yield 1
    yield 2

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    closed = mpr.Pool("app", 1, sinks=folder / "closed.rrd")
    iterator = closed.imap(abs, range(4))
    results = closed.executor.map(abs, range(4))
    assert (next(iterator), next(results)) == (0, 0)
    closed.close()
    closed.join()
    running = mpr.Pool("app", 1, sinks=folder / "running.rrd")
    future = running.submit(abs, -3)
    assert future.result() == 3
    sink = mpr.BinaryStreamSink()
    recording = mpr.SharedRecording("app", sinks=[sink, folder / "recording.rrd"])
    recording.stream.log("n", rr.Scalars(1.0))
    reader, parts = iter(sink), iter(sink.parts())
    next(reader)
    generator, coroutine, numbers = generate(), walk(), stream()
    next(generator)
    coroutine.send(None)
    try:
        numbers.__anext__().send(None)
    except StopIteration:
        pass
"""


def test_nothing_is_said_at_the_exit_if_something_keeps_the_main_module_alive(tmp_path: Path) -> None:
    ran = support.run_python(_KEPT_ALIVE, tmp_path, env={"PYTHONWARNINGS": "ignore"})
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    support.check_file(tmp_path / "closed.rrd")
    support.check_file(tmp_path / "recording.rrd")
    assert support.numbers(tmp_path / "recording.rrd") == Counter([1])


# --- times --------------------------------------------------------------------------------------------------------


class _Timeline(str):
    """The name of a timeline that cannot be compared after the task has set its time."""

    __slots__ = ()
    refuses = False

    def __hash__(self) -> int:
        return _refuse() if _Timeline.refuses else super().__hash__()

    __eq__ = str.__eq__


@mpr.task
def _set_hostile_time() -> None:
    rr.set_time(_Timeline("t"), sequence=1)
    rr.log("n", rr.Scalars(1.0))
    _Timeline.refuses = True


@mpr.task(entity_path_prefix="next")
def _log_with_prefix() -> None:
    rr.log("n", rr.Scalars(2.0))


def test_a_task_whose_times_cannot_be_put_back_is_over_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        with pytest.raises(RuntimeError, match="not to be looked at"):
            _set_hostile_time()
        _Timeline.refuses = False
        # A part of the first task would have no prefix.
        _log_with_prefix()
    support.check_file(path)
    assert (support.numbers(path), support.numbers(path, "/next/n")) == (Counter([1]), Counter([2]))

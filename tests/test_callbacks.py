"""Code of a user in the process of a pool may also wait and fork: callbacks, unpickling, the input of an `imap`."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

import mpr
from tests import support, tasks

# Python warns of `fork` in a process with threads since 3.12. These tests show that it works all the same.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

_PID = os.getpid()
_TIMEOUT_SECS = 60


def _register_callback(pool: mpr.Pool, call: Callable[[Any], object]) -> None:
    pool.apply_async(tasks.log_number, (0,), callback=call)


def _register_error_callback(pool: mpr.Pool, call: Callable[[Any], object]) -> None:
    pool.apply_async(int, ("no number",), error_callback=call)


def _register_map(pool: mpr.Pool, call: Callable[[Any], object]) -> None:
    pool.map_async(tasks.square, range(3), callback=call)


def _register_future(pool: mpr.Pool, call: Callable[[Any], object]) -> None:
    pool.submit(tasks.square, 1).add_done_callback(call)


every_way = pytest.mark.parametrize(
    "register", [_register_callback, _register_error_callback, _register_map, _register_future]
)


@every_way
def test_a_callback_may_log_and_wait_for_results(register: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    found: list[Any] = []
    called = threading.Event()

    def call(_: object) -> None:
        found.append(pool.submit(tasks.log_number, 1).result(_TIMEOUT_SECS))
        found.append(pool.map(tasks.log_number, [2, 3]))
        found.append(list(pool.imap(tasks.log_number, [4, 5])))
        found.append(list(pool.executor.map(tasks.log_number, [6], timeout=_TIMEOUT_SECS)))
        pool.recording.stream.log("n", rr.Scalars(7.0))
        found.append(pool.recording.wrap(tasks.log_number)(8))
        with mpr.Pool("other", 1, sinks=tmp_path / "other.rrd") as other:
            found.append(other.map(tasks.log_number, [9]))
        found.append(support.numbers(tmp_path / "other.rrd"))
        called.set()

    with mpr.Pool("app", 2, sinks=path) as pool:
        register(pool, call)
        assert called.wait(_TIMEOUT_SECS)
    assert found == [1, [2, 3], [4, 5], [6], 8, [9], Counter([9])]
    support.check_file(path)
    assert support.numbers(path) - Counter([0]) == Counter(range(1, 9))


@every_way
def test_a_pool_ends_only_after_its_callbacks(register: Any, tmp_path: Path) -> None:
    begun, closed, found = threading.Event(), threading.Event(), []

    def call(_: object) -> None:
        begun.set()
        assert closed.wait(_TIMEOUT_SECS)
        pool.recording.stream.log("n", rr.Scalars(1.0))
        found.append(1)

    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        register(pool, call)
        assert begun.wait(_TIMEOUT_SECS)
        pool.close()
        closed.set()
    assert found == [1]
    assert support.numbers(tmp_path / "run.rrd")[1] == 1


def test_callbacks_of_a_pool_run_one_after_another(tmp_path: Path) -> None:
    running, counts, done = [0], list[int](), threading.Event()

    def call(_: object) -> None:
        running[0] += 1
        # Another callback would begin meanwhile, if it could.
        pool.apply(tasks.square, (1,))
        counts.append(running[0])
        running[0] -= 1
        if len(counts) == 8:
            done.set()

    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd") as pool:
        for _ in range(4):
            _register_callback(pool, call)
            _register_future(pool, call)
        assert done.wait(_TIMEOUT_SECS)
    assert counts == [1] * 8


# --- waits that would never end -----------------------------------------------------------------------------------

_pools: list[mpr.Pool] = []


def _wait_for_result() -> None:
    _pools[0].apply(tasks.square, (1,))


def _wait_for_future() -> None:
    _pools[0].submit(tasks.square, 1).result()


def _wait_for_item() -> None:
    next(_pools[0].imap(tasks.square, [1]))


def _log_first() -> None:
    _pools[0].recording.stream.log("n", rr.Scalars(1.0))


def _fork_and_return() -> None:
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0


def _fork_and_exit() -> None:
    child = os.fork()
    if child == 0:
        raise SystemExit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5


class _Acts:
    """A result that calls `act` when the process of the tests unpickles it."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    def __reduce__(self) -> Any:
        return _act, (self.act, _PID)


def _act(act: Callable[[], None], parent: int) -> _Acts:
    if os.getpid() == parent:
        act()
    return _Acts(act)


def _give(act: Callable[[], None], parent: int) -> Any:
    global _PID
    _PID = parent
    return _Acts(act)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[mpr.Pool]:
    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd") as made:
        _pools[:] = [made]
        yield made
        # The pool goes on.
        assert made.map_async(tasks.square, range(5)).get(_TIMEOUT_SECS) == [0, 1, 4, 9, 16]
        _pools.clear()


@pytest.mark.parametrize("act", [_wait_for_result, _wait_for_future, _wait_for_item, _log_first])
def test_unpickling_that_would_wait_for_itself_is_refused(act: Any, pool: mpr.Pool) -> None:
    with pytest.raises(mpr.TaskError, match=r"cannot be unpickled here.*use another thread"):
        pool.apply_async(_give, (act, _PID)).get(_TIMEOUT_SECS)


# --- forks --------------------------------------------------------------------------------------------------------

every_fork = pytest.mark.parametrize("fork", [_fork_and_return, _fork_and_exit])


@every_fork
@every_way
def test_a_process_that_a_callback_forks_ends_with_the_callback(fork: Any, register: Any, pool: mpr.Pool) -> None:
    called = threading.Event()

    def call(_: object) -> None:
        fork()
        called.set()

    register(pool, call)
    assert called.wait(_TIMEOUT_SECS)


@every_fork
def test_a_process_that_unpickling_forks_ends_with_it(fork: Any, pool: mpr.Pool) -> None:
    assert type(pool.apply_async(_give, (fork, _PID)).get(_TIMEOUT_SECS)) is _Acts
    assert [type(each) for each in pool.map_async(_give_each, [(fork, _PID)] * 4).get(_TIMEOUT_SECS)] == [_Acts] * 4


def _give_each(pair: tuple[Any, int]) -> Any:
    return _give(*pair)


@every_fork
def test_a_process_that_an_input_forks_ends_with_it(fork: Any, pool: mpr.Pool) -> None:
    def items() -> Iterator[int]:
        for number in range(3):
            fork()
            yield number

    assert list(pool.imap(tasks.square, items())) == [0, 1, 4]


class _Forks:
    """An object that forks when it is pickled in a worker."""

    def __reduce__(self) -> Any:
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
        return int, (7,)


def _give_forks(_: int) -> _Forks:
    return _Forks()


def test_a_process_that_pickling_in_a_worker_forks_sends_no_result(pool: mpr.Pool) -> None:
    assert pool.apply_async(_give_forks, (0,)).get(_TIMEOUT_SECS) == 7
    assert pool.map_async(_give_forks, range(4), chunksize=2).get(_TIMEOUT_SECS) == [7] * 4

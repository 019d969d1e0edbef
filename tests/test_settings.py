"""A setting of the SDK that a task changes holds in this task, and nowhere else."""

from __future__ import annotations

import argparse
import contextlib
import decimal
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rerun as rr
import rerun_bindings
from rerun import set_strict_mode as imported_by_name
from rerun.recording_stream import recording_stream_generator_ctx

import mpr
from tests import support, tasks


class _Nested:
    """Logs once more while it is logged, so that the strict mode of the outer call stays."""

    def as_component_batches(self) -> Any:
        rr.log("nested", rr.Scalars(1.0), strict=True)
        return rr.Scalars(2.0).as_component_batches()


def _set_up_by_script() -> None:
    parser = argparse.ArgumentParser()
    rr.script_add_args(parser)
    rr.script_setup(parser.parse_args(["--headless"]), "script")


def _enter_a_stream() -> None:
    rr.RecordingStream("entered").__enter__()


def _set_from_a_thread() -> None:
    thread = threading.Thread(target=rr.set_strict_mode, args=(True,))
    thread.start()
    thread.join()


# What a task may do, and what is changed afterwards, within the task.
_CHANGES: dict[str, tuple[Callable[[], object], dict[str, bool]]] = {
    "set_strict_mode": (lambda: rr.set_strict_mode(True), {"strict": True}),
    "set_strict_mode, by its name": (lambda: imported_by_name(mode=True), {"strict": True}),
    "init": (lambda: rr.init("other", strict=True), {"strict": True}),
    "script_setup": (_set_up_by_script, {"strict": True}),
    "log_time": (lambda: rr.set_log_time_enabled(False), {"log_time": False}),
    "log_time of the stream": (
        lambda: _current().set_log_time_enabled(False),
        {"log_time": False},
    ),
    "log_tick": (lambda: rr.set_log_tick_enabled(True), {"log_tick": True}),
    "all": (
        lambda: (rr.set_strict_mode(True), rr.set_log_tick_enabled(True), rr.set_log_time_enabled(False)),
        {"strict": True, "log_time": False, "log_tick": True},
    ),
}
# Changes that a pool undoes only: of threads, which a worker has for itself.
_OF_THREADS = {
    "strict of a call": (lambda: rr.log("outer", _Nested(), strict=True), {"strict": True}),
    "strict, from a thread": (_set_from_a_thread, {"strict": True}),
}
_DEFAULTS = {"strict": False, "log_time": True, "log_tick": False}


def _current() -> rr.RecordingStream:
    stream = rr.get_data_recording()
    assert stream is not None
    return stream


def _log(entity: str) -> bool:
    """Log a row, whose timelines show two of the settings, and return the third."""
    rr.log(f"seen/{entity}", rr.Scalars(1.0))
    return rr.strict_mode()


def _change_and_log(change: str, entity: str) -> bool:
    {**_CHANGES, **_OF_THREADS}[change][0]()
    return _log(entity)


def _timelines(path: Path, entity: str) -> dict[str, bool]:
    """Say which of the SDK's own timelines the rows at `entity` have."""
    found = set()
    for chunk in support.chunks(path):
        if str(chunk.entity_path) == f"/seen/{entity}":
            schema = chunk.to_record_batch().schema
            found.add(tuple(name in schema.names for name in ("log_time", "log_tick")))
    ((log_time, log_tick),) = found
    return {"log_time": log_time, "log_tick": log_tick}


def _check(path: Path, strict: dict[str, bool], changed: dict[str, dict[str, bool]]) -> None:
    """Check what was seen at each entity of `strict`: the defaults, but for those in `changed`."""
    support.check_file(path)
    for entity, mode in strict.items():
        assert {**_DEFAULTS, **changed.get(entity, {})} == {"strict": mode, **_timelines(path, entity)}, entity


@pytest.fixture(autouse=True)
def lenient() -> Iterator[None]:
    """Let the tests begin with the SDK's own default, because the suite is strict."""
    rr.set_strict_mode(False)
    yield
    rr.set_strict_mode(True)


@pytest.mark.parametrize("change", {**_CHANGES, **_OF_THREADS})
@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_the_next_task_of_a_worker_has_the_settings_of_a_new_worker(change: str, method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=method) as pool:
        strict = {"before": pool.apply(_log, ("before",))}
        strict["during"] = pool.apply(_change_and_log, (change, "during"))
        strict["after"] = pool.apply(_log, ("after",))
        strict["again"] = pool.apply(_change_and_log, (change, "again"))
        # Without an entry of the SDK in between.
        assert pool.apply(rr.strict_mode) is False
    changed = {**_CHANGES, **_OF_THREADS}[change][1]
    _check(path, strict, {"during": changed, "again": changed})


def test_tasks_of_one_work_item_have_settings_of_their_own(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        modes = pool.starmap(_set_if, [(number % 3 == 1,) for number in range(9)], chunksize=9)
    assert [number % 3 == 1 for number in range(9)] == modes


def _set_if(strict: bool) -> bool:
    if strict:
        rr.set_strict_mode(True)
    return rr.strict_mode()


@pytest.mark.parametrize("change", _CHANGES)
def test_settings_of_an_initializer_hold_for_all_tasks(change: str, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, _CHANGES_BY_NAME[change], sinks=path) as pool:
        strict = {"one": pool.apply(_log, ("one",))}
        pool.apply(_change_back)
        strict["two"] = pool.apply(_log, ("two",))
    _check(path, strict, dict.fromkeys(strict, _CHANGES[change][1]))


class _Change:
    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self) -> None:
        _CHANGES[self._name][0]()


_CHANGES_BY_NAME = {name: _Change(name) for name in _CHANGES}


def _change_back() -> None:
    rr.set_strict_mode(False)
    rr.set_log_time_enabled(True)
    rr.set_log_tick_enabled(False)


@mpr.task
def _decorated(change: str, entity: str) -> bool:
    return _change_and_log(change, entity)


@mpr.task
def _generated(change: str, entity: str) -> Iterator[bool]:
    yield _change_and_log(change, entity)
    yield _log(f"{entity}/2")


def _run_tasks(change: str, function: Any, results: Any) -> None:
    """Run tasks in a process that has joined, and other code between them."""
    mpr.join()
    strict = {"before": _log("before"), "during": function(change, "during"), "after": _log("after")}
    steps = _generated(change, "steps")
    strict["steps"] = next(steps)
    strict["between"] = _log("between")
    strict["steps/2"] = next(steps)
    with contextlib.suppress(StopIteration):
        next(steps)
    strict["end"] = _log("end")
    results.put(strict)


@pytest.mark.parametrize("kind", ["decorated", "wrapped"])
@pytest.mark.parametrize("change", _CHANGES)
def test_the_caller_of_a_task_keeps_its_settings(change: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    context = get_context("forkserver")
    with mpr.SharedRecording("app", sinks=path) as recording:
        function: Any = _decorated if kind == "decorated" else recording.wrap(_change_and_log)
        results = context.Queue()
        process = context.Process(target=_run_tasks, args=(change, function, results))
        process.start()
        strict = results.get(timeout=60)
        process.join(60)
        results.close()
        results.join_thread()
    changed = _CHANGES[change][1]
    _check(path, strict, dict.fromkeys(("during", "steps", "steps/2"), changed))


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_tasks_in_two_threads_leave_the_setting_of_their_process(first_to_end: int, tmp_path: Path) -> None:
    entered = [threading.Event(), threading.Event()]
    go_on = [threading.Event(), threading.Event()]

    @mpr.task
    def hold(number: int) -> None:
        rr.set_strict_mode(True)
        entered[number].set()
        assert go_on[number].wait(60)

    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd"):
        threads = [threading.Thread(target=hold, args=(number,)) for number in range(2)]
        for number, thread in enumerate(threads):
            thread.start()
            assert entered[number].wait(60)
        for number in (first_to_end, 1 - first_to_end):
            assert rr.strict_mode() is True
            go_on[number].set()
            threads[number].join(60)
        assert rr.strict_mode() is False


@recording_stream_generator_ctx
def _log_in_steps() -> Iterator[None]:
    rr.log("n", rr.Scalars(1.0))
    yield
    rr.log("n", rr.Scalars(2.0))


def _exhaust() -> None:
    for _ in _log_in_steps():
        pass


def test_a_stream_that_a_task_has_entered_and_not_left_takes_no_rows_of_the_next_task(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        pool.apply(_enter_a_stream)
        pool.apply(_exhaust)
    assert {1: 1, 2: 1} == support.numbers(path)


def _change_the_process() -> None:
    os.environ["OF_A_TASK"] = "1"
    os.chdir("/")
    os.umask(0o077)
    sys.path.insert(0, "/of_a_task")
    warnings.filterwarnings("error", message="of a task")
    logging.getLogger("of_a_task").setLevel(7)
    decimal.getcontext().prec = 5
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    np.random.seed(1)


def _process_settings() -> list[Any]:
    umask = os.umask(0)
    os.umask(umask)
    filters = [each for each in warnings.filters if "of a task" in str(each[1])]
    return [
        os.environ.get("OF_A_TASK"), os.getcwd(), umask, sys.path[0], len(filters),
        logging.getLogger("of_a_task").level, decimal.getcontext().prec, signal.getsignal(signal.SIGUSR1),
        np.random.rand(),
    ]  # fmt: skip


def test_what_a_task_changes_in_python_stays_as_in_multiprocessing(start_method: Any, tmp_path: Path) -> None:
    found = []
    with get_context("spawn").Pool(1) as pool:
        pool.apply(_change_the_process)
        found.append(pool.apply(_process_settings))
        pool.close()
        pool.join()
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", start_method=start_method) as ours:
        ours.apply(_change_the_process)
        found.append(ours.apply(_process_settings))
    assert found[0] == found[1]
    assert found[0][:4] == ["1", "/", 0o077, "/of_a_task"]


def _let_the_sdk_clean_up(number: int, then_log: bool) -> None:
    """Make the call with which `rr.init` begins."""
    rerun_bindings.flush_and_cleanup_orphaned_recordings()
    if then_log:
        rr.log("n", rr.Scalars(float(number)))


def test_after_a_clean_up_of_the_sdk_the_shared_recording_is_current(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        pool.apply(_let_the_sdk_clean_up, (1, True))
        pool.apply(_let_the_sdk_clean_up, (2, False))
        pool.apply(tasks.log_number, (3,))
    assert {1: 1, 3: 1} == support.numbers(path)


@pytest.mark.parametrize("preload", [True, False])
def test_workers_have_the_strict_mode_of_the_pools_environment(
    preload: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("0", "1", "0"):
        monkeypatch.setenv("RERUN_STRICT", value)
        with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", preload=preload) as pool:
            assert (value == "1") is pool.apply(rr.strict_mode)


@pytest.mark.parametrize(("value", "has_tick"), [("1", True), (" ON ", True), ("no", False), ("", False), ("?", False)])
def test_a_timeline_is_set_back_to_the_value_of_the_environment(
    value: str, has_tick: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERUN_LOG_TICK", value)
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        pool.apply(_log, ("before",))
        pool.apply(rr.set_log_tick_enabled, (not has_tick,))
        pool.apply(_log, ("after",))
    assert has_tick == _timelines(path, "before")["log_tick"] == _timelines(path, "after")["log_tick"]


@mpr.task
def _not_strict() -> None:
    rr.set_strict_mode(False)


def _strict_around() -> tuple[bool, bool]:
    before = rr.strict_mode()
    rr.set_strict_mode(True)
    _not_strict()
    return before, rr.strict_mode()


def test_a_decorated_function_gives_a_task_its_own_setting_back(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        assert [pool.apply(_strict_around) for _ in range(2)] == [(False, True)] * 2

"""Calls of mpr that type checkers judge. Nothing runs this file: `make lint` has mypy and pyright read it.

In `right_calls`, each result must have the type that is written down. Below it, each line with `type: ignore` must have
an error for both checkers, because each of them reports a comment that hides no error.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=error

from __future__ import annotations

import concurrent.futures
from pathlib import Path
from typing import assert_type

import rerun.blueprint as rrb

import mpr


def double(number: int) -> str:
    return str(2 * number)


def add(left: int, right: float) -> float:
    return left + right


class Adder:
    def __init__(self, left: int) -> None:
        self.left = left


@mpr.task(name="square")
def square(number: int) -> int:
    return number * number


def right_calls(pool: mpr.Pool, recording: mpr.SharedRecording) -> None:
    assert_type(pool.map(double, [1, 2]), list[str])
    assert_type(pool.map(square, range(3)), list[int])
    assert_type(pool.map_async(double, [1]).get(timeout=1.0), list[str])
    assert_type(pool.starmap(add, [(1, 2.0)]), list[float])
    assert_type(pool.apply(add, (1, 2.0)), float)
    assert_type(pool.apply_async(add, (1, 2.0)).get(), float)
    assert_type(next(pool.imap(double, [1])), str)
    assert_type(pool.imap_unordered(double, [1]).next(timeout=1.0), str)
    assert_type(list(pool.imap(double, [1])), list[str])
    assert_type(pool.submit(add, 1, right=2.0).result(), float)
    executor: concurrent.futures.Executor = pool.executor
    assert_type(executor.submit(double, 1).result(), str)
    assert_type(pool.map(double, [1], timeout=1.0), list[str])
    assert_type(pool.map(double, [1], return_exceptions=True), list[str | BaseException])
    assert_type(pool.starmap_async(add, [(1, 2.0)], return_exceptions=True).get(), list[float | BaseException])
    assert_type(square(2), int)
    assert_type(recording.wrap(add)(1, 2.0), float)
    assert_type(recording.wrap(Adder), type[Adder])
    assert_type(pool.recording.recording_id, str)
    with mpr.Pool("app", processes=2, task_timeout=1, telemetry=["tasks"]) as entered:
        assert_type(entered, mpr.Pool)
    mpr.Pool("app", sinks="run.rrd", blueprint=rrb.Spatial3DView())
    mpr.Pool("app", sinks=mpr.FileSink("run.rrd"), blueprint=rrb.Blueprint(rrb.Grid()))
    mpr.Pool("app", sinks=["run.rrd", Path("run.rrd"), mpr.DirectorySink("runs/"), mpr.GrpcServerSink()])
    mpr.SharedRecording("app", sinks=(mpr.GrpcSink("rerun+http://127.0.0.1:9876/proxy"), mpr.BinaryStreamSink()))


async def right_waits() -> None:
    async with mpr.Pool("app") as pool:
        assert_type(pool, mpr.Pool)
        assert_type(await pool.submit(add, 1, 2.0), float)
        assert_type(await pool.map_async(double, [1]), list[str])


def wrong_calls(pool: mpr.Pool, recording: mpr.SharedRecording) -> None:
    mpr.Pool()  # type: ignore[call-arg]
    mpr.Pool(7)  # type: ignore[arg-type]
    mpr.Pool("app", "4")  # type: ignore[arg-type]
    mpr.Pool("app", initializer=7)  # type: ignore[arg-type]
    mpr.Pool("app", start_method="thread")  # type: ignore[arg-type]
    mpr.Pool("app", route="north")  # type: ignore[arg-type]
    mpr.Pool("app", recording="app.rrd")  # type: ignore[arg-type]
    mpr.Pool("app", sinks=7)  # type: ignore[arg-type]
    mpr.Pool("app", sinks=[mpr.FileSink])  # type: ignore[list-item]
    mpr.Pool("app", blueprint=7)  # type: ignore[arg-type]
    mpr.Pool("app", blueprint="layout.rbl")  # type: ignore[arg-type]
    mpr.Pool("app", workers=4)  # type: ignore[call-arg]
    pool.map(double, 7)  # type: ignore[call-overload]
    pool.map(7, [1])  # type: ignore[call-overload]
    pool.map(double, ["a"])  # type: ignore[arg-type]
    pool.map(double, [1], chunksize="1")  # type: ignore[call-overload]
    pool.map(square, ["a"])  # type: ignore[arg-type]
    pool.map_async(double, ["a"])  # type: ignore[arg-type]
    pool.starmap(add, [1, 2])  # type: ignore[list-item]
    pool.apply(add, 1)  # type: ignore[arg-type]
    pool.imap(double, ["a"])  # type: ignore[arg-type]
    pool.imap_unordered(double, ["a"])  # type: ignore[arg-type]
    pool.submit(double)  # type: ignore[call-arg]
    pool.submit(double, "a")  # type: ignore[arg-type]
    pool.submit(add, 1, 2.0, 3)  # type: ignore[call-arg]
    pool.submit(add, 1, middle=2.0)  # type: ignore[call-arg]
    pool.executor.submit(double, "a")  # type: ignore[arg-type]
    square("a")  # type: ignore[arg-type]
    mpr.SharedRecording("app", sinks=[7])  # type: ignore[list-item]
    mpr.SharedRecording("app", blueprint=rrb.Spatial3DView)  # type: ignore[arg-type]
    recording.wrap(add)(1)  # type: ignore[call-arg]
    recording.wrap(7)  # type: ignore[call-overload]
    mpr.FileSink(7)  # type: ignore[arg-type]
    mpr.FileSink("run.rrd", False)  # type: ignore[call-arg]
    mpr.FileSink()  # type: ignore[call-arg]
    mpr.GrpcSink(url=7)  # type: ignore[arg-type]


@mpr.task(label="square")  # type: ignore[call-overload, untyped-decorator]
def unknown_option(number: int) -> int:
    return number

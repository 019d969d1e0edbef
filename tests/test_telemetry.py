"""The telemetry of a pool in the file, and that it costs nothing without it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rerun as rr

import mpr
from mpr.pool import options
from tests import support, tasks


def _entities(path: Path) -> set[str]:
    return {str(chunk.entity_path) for chunk in support.chunks(path)}


def _ours(path: Path) -> set[str]:
    return {entity for entity in _entities(path) if entity.startswith("/mpr")}


def _column(path: Path, entity: str, column: str) -> list[Any]:
    """Return the values of a column with one value a row, in the order of their times."""
    rows: list[tuple[Any, Any]] = []
    for chunk in support.chunks(path):
        batch = chunk.to_record_batch()
        if str(chunk.entity_path) == entity and column in batch.schema.names:
            times = batch.column("log_time").cast("int64").to_pylist() if "log_time" in batch.schema.names else [0]
            rows += zip(times, (value[0] for value in batch.column(column).to_pylist()), strict=True)
    return [value for _, value in sorted(rows, key=lambda row: row[0])]


def _state_timelines(path: Path) -> dict[str, list[str]]:
    state_timelines = [entity for entity in _ours(path) if entity.startswith("/mpr/workers/")]
    return {
        state_timeline.rpartition("/")[2]: _column(path, state_timeline, "StateChange:state")
        for state_timeline in state_timelines
    }


def _scalars(path: Path, *, growing: bool = False) -> dict[str, list[list[float]]]:
    """Return all rows of the pool's charts, by their entities."""
    found: dict[str, list[list[float]]] = {}
    with support.whole_frames_of(path) if growing else contextlib.nullcontext(path) as whole:
        for chunk in support.chunks(whole):
            batch = chunk.to_record_batch()
            if str(chunk.entity_path).startswith("/mpr/") and "Scalars:scalars" in batch.schema.names:
                found.setdefault(str(chunk.entity_path), []).extend(batch.column("Scalars:scalars").to_pylist())
    return found


def test_workers_have_state_timelines_and_tasks_have_spans(tmp_path: Path, start_method: Any) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        assert list(range(20)) == pool.map(tasks.log_number, range(20), chunksize=3)
    support.check_file(path)
    state_timelines = _state_timelines(path)
    assert {"1", "2"} == set(state_timelines)
    assert {"starting"} == {states[0] for states in state_timelines.values()}
    # The last worker is ended; an empty state leaves nothing in the state timeline.
    assert {""} == {states[-1] for states in state_timelines.values()}
    known = {"starting", "idle", "", "log_number", *(f"log_number[{index}]" for index in range(20))}
    assert set().union(*state_timelines.values()) <= known
    spans = "/mpr/tasks/log_number"
    assert 20 == sum(_column(path, spans, "count"))
    # Each task has logged one row.
    assert 20 == sum(_column(path, spans, "rows"))
    assert 0 < sum(_column(path, spans, "data_bytes"))
    assert {1} == set(_column(path, spans, "attempt"))
    assert set(_column(path, spans, "worker")) <= {1, 2}
    # The rows of the tasks are all there.
    assert Counter(range(20)) == support.numbers(path)


def test_each_long_task_has_a_span_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        pool.map(tasks.sleep, [0.06] * 4, chunksize=2)
        pool.submit(tasks.sleep, 0.06).result()
    spans = "/mpr/tasks/sleep"
    names = [f"sleep[{index}]" for index in range(4)]
    assert sorted([*names, "sleep #4"]) == sorted(_column(path, spans, "task"))
    # The index of a single call is its number in the pool.
    assert [0, 1, 2, 3, 4] == sorted(_column(path, spans, "index"))
    assert all(seconds >= 0.06 for seconds in _column(path, spans, "seconds"))
    assert {*names, "sleep #4"} <= {state for states in _state_timelines(path).values() for state in states}
    numbers = {
        value
        for chunk in support.chunks(path)
        if str(chunk.entity_path) == spans
        for value in chunk.to_record_batch().column("mpr_task").to_pylist()
    }
    assert {0, 1, 2, 3, 4} == numbers


def test_the_state_timeline_of_a_killed_worker_names_its_task_and_the_signal(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        with pytest.raises(mpr.WorkerDiedError):
            pool.map(tasks.log_and_die, [7])
        assert 3 == pool.apply(tasks.square, (3,)) - 6
    support.check_file(path)
    state_timelines = _state_timelines(path)
    assert ["log_and_die[0]", "lost (SIGKILL)"] == state_timelines["1"][-2:]
    # The next worker has a state timeline of its own, so that the loss stays visible.
    assert "starting" == state_timelines["2"][0]
    assert not any(state.startswith("lost") for state in state_timelines["2"])
    (error,) = [text for text in support.texts(path) if text.entity == "/mpr/tasks/log_and_die"]
    assert "SIGKILL" in error.text
    (lost,) = [each for each in pool.insights().workers if each.worker == 1]
    assert "lost (SIGKILL)" == lost.ended


def test_workers_that_are_replaced_after_their_work_share_a_state_timeline(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, maxtasksperchild=1) as pool:
        pool.map(tasks.square, range(4), chunksize=1)
    assert {"1"} == set(_state_timelines(path))
    assert {1, 2, 3, 4} <= set(_column(path, "/mpr/workers/1", "worker"))


def test_errors_are_there_with_their_tracebacks(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        results = [pool.apply_async(tasks.raise_if_odd, (number,)) for number in range(4)]
        for result in results:
            result.wait()
    found = [text for text in support.texts(path) if text.entity == "/mpr/tasks/raise_if_odd"]
    assert 2 == len(found)
    assert {"ERROR"} == {text.level for text in found}
    # The traceback has the line of the task, which the worker has sent along.
    assert all("in raise_if_odd" in text.text for text in found)


def test_charts_have_a_number_for_each_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.rrd"
    monkeypatch.setattr("mpr.telemetry.sampler.TELEMETRY_EVERY_SECS", 0.02)
    go_on = tmp_path / "go on"
    with mpr.Pool("app", 3, sinks=path) as pool:
        # A file gets its name with the first row of the user.
        pool.apply(tasks.log_number, (0,))
        for number in range(6):
            pool.apply_async(tasks.log_then_wait, (number, tmp_path / f"started {number}", go_on))
        # Three tasks wait while three others run.
        support.wait_for(lambda: [3.0, 3.0] in _scalars(path, growing=True).get("/mpr/queue/1", ()))
        go_on.touch()
    charts = {f"/mpr/{name}/1" for name in ("cpu", "memory", "threads", "files", "throughput", "queue")}
    assert charts | {"/mpr/delivery/rows", "/mpr/delivery/bytes"} <= _ours(path)
    values = _scalars(path)
    assert {3} == {len(row) for row in values["/mpr/memory/1"]}
    assert any(all(megabytes > 1 for megabytes in row) for row in values["/mpr/memory/1"])
    assert any(all(files > 3 for files in row) for row in values["/mpr/files/1"])
    (chunk,) = [
        each
        for each in support.chunks(path)
        if "SeriesLines:names" in each.to_record_batch().schema.names and str(each.entity_path) == "/mpr/cpu/1"
    ][-1:]
    assert [[f"worker {number}" for number in (1, 2, 3)]] == chunk.to_record_batch().column(
        "SeriesLines:names"
    ).to_pylist()


def test_without_telemetry_nothing_is_under_mpr(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, telemetry=False) as pool:
        pool.map(tasks.log_number, range(8))
        with pytest.raises(mpr.ConfigError, match="telemetry=False"):
            pool.insights()
    assert set() == _ours(path)
    assert [] == rr.chunk.RrdReader(path).blueprints()


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        ("workers", {"/mpr/workers/1"}),
        (["tasks"], {"/mpr/tasks/log_number"}),
        ({"tasks", "workers"}, {"/mpr/workers/1", "/mpr/tasks/log_number"}),
        (["resources"], set()),
    ],
)
def test_a_chosen_part_of_it(tmp_path: Path, chosen: Any, wanted: set[str]) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, telemetry=chosen) as pool:
        pool.map(tasks.log_number, range(8))
    support.check_file(path)
    # Values that are measured every second may be there or not; the number of rows always stands beside the telemetry.
    assert {"/mpr/rows", *wanted} == {entity for entity in _ours(path) if entity not in _MEASURED}


_MEASURED = {f"/mpr/{name}/1" for name in ("cpu", "memory", "threads", "files")}


@pytest.mark.parametrize("bad", ["cpu", ["tasks", "cpu"], 1, None])
def test_an_unknown_part_is_refused(bad: Any) -> None:
    with pytest.raises(mpr.ConfigError, match="'workers', 'tasks', 'resources', 'pool'"):
        options.check_telemetry(bad)


def test_a_folder_of_episodes_has_nothing_but_episodes(tmp_path: Path) -> None:
    with mpr.Pool("app", 2, sinks=[f"{tmp_path}/episodes/", tmp_path / "run.rrd"]) as pool:
        pool.map(tasks.log_number, range(6))
    files = sorted((tmp_path / "episodes").iterdir())
    assert 6 == len(files)
    assert set() == set().union(*map(_ours, files))
    assert "/mpr/workers/1" in _ours(tmp_path / "run.rrd")


def test_a_recording_that_tasks_make_has_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        pool.map(tasks.log_to_unsaved_recording, range(2))
        paths = pool.recording.paths
    assert {path} < set(paths)
    assert set() == set().union(*(_ours(each) for each in paths if each != path))


def test_the_own_active_recording_gets_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "own.rrd"
    script = """
import sys, mpr, rerun as rr
from tests import tasks
if __name__ == "__main__":
    rr.init("app")
    rr.save(sys.argv[1])
    with mpr.Pool("app", 1) as pool:
        pool.map(tasks.log_number, range(3))
"""
    done = support.run_python(script, path)
    assert 0 == done.returncode, done.stderr
    assert Counter(range(3)) == support.numbers(path)
    assert set() == _ours(path)


def test_a_run_without_a_row_that_fails_leaves_an_older_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    path.write_bytes(b"older")
    with pytest.raises(RuntimeError), mpr.Pool("app", 1, sinks=path) as pool:
        pool.map(tasks.sleep, [0.01])
        raise RuntimeError("the user's own")
    assert b"older" == path.read_bytes()


def test_two_pools_in_one_recording(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        for _ in range(2):
            with mpr.Pool("app", 1, recording=recording) as pool:
                pool.map(tasks.log_number, range(3))
    support.check_file(path)
    assert {"1", "2"} == set(_state_timelines(path))
    assert {"/mpr/insights/1", "/mpr/insights/2"} <= _ours(path)
    assert 6 == sum(_column(path, "/mpr/tasks/log_number", "count"))


def test_a_pool_in_a_task_counts_no_rows_of_its_own_for_the_task(tmp_path: Path) -> None:
    with mpr.Pool("outer", 1, sinks=tmp_path / "outer.rrd") as pool:
        assert [0, 1] == pool.apply(_run_a_pool, (tmp_path / "inner.rrd",))
        (worker,) = pool.insights().workers
    assert 0 == worker.rows
    assert set() == {entity for entity in _entities(tmp_path / "outer.rrd") if not entity.startswith(("/mpr", "/__"))}


def _run_a_pool(path: Path) -> list[int]:
    with mpr.Pool("inner", 1, sinks=path) as pool:
        return pool.map(tasks.log_number, range(2))


# --- insights -----------------------------------------------------------------------------------------------------


def test_insights_are_a_table_a_dict_and_rows(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, tasks.sleep, (0.05,), sinks=path) as pool:
        pool.map(tasks.log_number, range(6), chunksize=1)
        pool.starmap(tasks.add, [(1, 2)])
        pool.apply(tasks.sleep, kwds={"secs": 0.2})
    insights = pool.insights()
    assert 8 == sum(each.tasks for each in insights.workers)
    assert 6 == sum(each.rows for each in insights.workers)
    for each in insights.workers:
        shares = [each.share(name) for name in ("start_up", "init", "waiting", "working", "flushing")]
        assert pytest.approx(1) == sum(shares)
        assert each.init_secs >= 0.05
        assert each.start_up_secs > 0
    slow = insights.slowest[0]
    assert ("sleep #7", "secs=0.2", 1) == (slow.task, slow.arguments, slow.attempt)
    assert slow.seconds >= 0.2
    assert insights.slowest == tuple(sorted(insights.slowest, key=lambda each: -each.seconds))
    assert {"1, 2"} <= {each.arguments for each in insights.slowest}
    text = str(insights)
    assert "start-up" in text
    assert "sleep #7" in text
    assert insights.to_dict() == json.loads(json.dumps(insights.to_dict()))
    (document,) = _column(path, "/mpr/insights/1", "TextDocument:text")
    assert f"```\n{text}\n```" == document
    columns = next(
        chunk.to_record_batch() for chunk in support.chunks(path) if str(chunk.entity_path) == "/mpr/insights/1/workers"
    )
    assert [[each.working_secs for each in insights.workers]] == columns.column("working_secs").to_pylist()


def test_arguments_are_described_shortly_and_cost_no_task(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        pool.map(_length, ["x" * 100_000, _Unspeakable(), b"y" * 2_000_000], chunksize=1)
    described = {each.task: each.arguments for each in pool.insights().slowest}
    assert all(len(text) <= 200 for text in described.values())
    assert (
        "xxx...xxx" in described["_length[0]"].replace("xxxx", "x").replace("xx", "xxx")
        or "..." in described["_length[0]"]
    )
    assert "_Unspeakable" in described["_length[1]"]
    assert "(2.0 MB)" == described["_length[2]"]


class _Deadly:
    """Ends the process that loads it."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


def test_describing_arguments_runs_none_of_their_code(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        with pytest.raises(mpr.WorkerDiedError):
            pool.apply(_length, (_Deadly(),))
        assert pool.map(_length, [Path("some/where"), np.arange(3)], chunksize=1) == [0, 3]
    described = {each.task: each.arguments for each in pool.insights().slowest}
    assert "Path('some', 'where')" in described["_length[0]"]
    assert "numpy" in described["_length[1]"]


class _Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 0


def test_a_terminated_pool_says_ended(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    pool = mpr.Pool("app", 1, sinks=path)
    pool.map(tasks.log_number, range(3))
    pool.terminate()
    support.check_file(path)
    assert {"ended"} == {each.ended for each in pool.insights().workers}
    assert signal.SIGKILL.name not in str(_state_timelines(path))

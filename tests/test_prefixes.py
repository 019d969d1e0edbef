"""The fields of `entity_path_prefix`: no two tasks of a recording log under the same path by accident."""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.aggregator.numbers import RecordingNumbers
from mpr.producer.task_indices import TaskIndices
from mpr.transport.messages import Hello, IndicesWanted
from tests import support, tasks

# Python warns of `fork` in a process with threads since 3.12. These tests show that it works all the same.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@mpr.task(entity_path_prefix="cam/{index}")
def log_by_index(number: int) -> int:
    tasks.log_number(number)
    found = mpr.current_task()
    assert found is not None
    return found.index


@mpr.task(entity_path_prefix="worker/{worker}")
def log_by_worker(number: int) -> int | None:
    tasks.log_number(number)
    found = mpr.current_task()
    assert found is not None
    return found.worker


@dataclass
class Camera:
    id: str
    lenses: tuple[int, ...] = (7, 8)

    @mpr.task(entity_path_prefix="method/{self.id}")
    def log(self, number: int) -> int:
        return tasks.log_number(number)


@mpr.task(entity_path_prefix="cam/{cam_id}/{camera.id}/{camera.lenses[1]}/{width:03d}")
def log_by_arguments(number: int, cam_id: int, /, camera: Camera, *, width: int = 5) -> int:
    return tasks.log_number(number)


@mpr.task(entity_path_prefix="any/{extra}/{name}")
def log_any(number: int, *more: int, name: str = "argument", **options: Any) -> int:
    return tasks.log_number(number)


@mpr.task(entity_path_prefix="steps/{upto}")
def walk(upto: int) -> Iterator[int]:
    for number in range(upto):
        yield tasks.log_number(number)


@mpr.task(entity_path_prefix="later/{number}")
async def later(number: int) -> int:
    return tasks.log_number(number)


@mpr.task(entity_path_prefix="values/{upto}")
async def values(upto: int) -> AsyncIterator[int]:
    for number in range(upto):
        yield tasks.log_number(number)


def _rows(path: Path) -> Counter[tuple[str, int]]:
    """Count the numbers by their entities."""
    support.check_file(path)
    found = (cell for cell in support.cells(path).elements() if cell.component == "Scalars:scalars")
    return Counter((cell.entity, int(float(cell.value.strip("[]")))) for cell in found)


def test_processes_do_not_share_an_index(start_method: str, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    context: Any = multiprocessing.get_context(start_method)
    with mpr.SharedRecording("app", sinks=path):
        for number in range(3):
            process = context.Process(target=log_by_index, args=(number,))
            process.start()
            process.join(60)
        assert log_by_index(3) == 3
        with context.Pool(2) as pool:
            found = pool.map(log_by_index, range(4, 44), chunksize=1)
        assert log_by_index(44) not in found
    # A process that calls one task gets the next index.
    rows = _rows(path)
    assert {(f"/cam/{number}/n", number) for number in range(4)} <= set(rows)
    assert sorted(number for _, number in rows) == list(range(45))
    assert len({entity for entity, _ in rows}) == 45
    assert sorted(found) == sorted({*found} - {0, 1, 2, 3})
    # The indices stay small: a process reserves as many as it has used, at most.
    assert max(found) < 2 * 45


def test_processes_do_not_share_a_number(start_method: str, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    context: Any = multiprocessing.get_context(start_method)
    with mpr.SharedRecording("app", sinks=path) as recording:
        for number in range(2):
            process = context.Process(target=log_by_worker, args=(number,))
            process.start()
            process.join(60)
        with mpr.Pool("app", 1, recording=recording, start_method=start_method) as pool:
            worker = pool.apply(log_by_worker, (2,))
        assert log_by_worker(3) == 0
    assert worker not in (None, 0, 1, 2)
    assert _rows(path) == Counter(
        [("/worker/1/n", 0), ("/worker/2/n", 1), (f"/worker/{worker}/n", 2), ("/worker/0/n", 3)]
    )


def test_the_indices_of_engines_and_threads(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    executor = concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    with executor, mpr.SharedRecording("app", sinks=path) as recording:
        wrapped = recording.wrap(log_by_index)
        found = list(executor.map(wrapped, range(20)))
        found += executor.submit(_call_in_threads, wrapped).result(60)
    assert len(set(found)) == 20 + 40
    assert len({entity for entity, _ in _rows(path)}) == 60


def _call_in_threads(wrapped: Any) -> list[int]:
    found: list[int] = []

    def call() -> None:
        found.extend(wrapped(number) for number in range(5))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def _call_another_task(number: int) -> int:
    return log_by_index(number)


def test_tasks_that_a_pools_task_calls_do_not_share_an_index(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        found = pool.map(_call_another_task, range(10), chunksize=1)
    assert len(set(found)) == 10
    assert len(_rows(path)) == 10


def test_submitted_tasks_count_up(tmp_path: Path) -> None:
    folder, path = tmp_path / "episodes", tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=[mpr.DirectorySink(path=folder, name="{index:d}.rrd"), path]) as pool:
        futures = [pool.submit(log_by_index, number) for number in range(3)]
        assert [future.result(60) for future in futures] == [0, 1, 2]
        assert pool.apply(log_by_index, (3,)) == 3
        assert pool.executor.submit(log_by_index, 4).result(60) == 4
        # The index of a map is the position of the item.
        assert pool.map(tasks.square, range(2)) == [0, 1]
        assert pool.map(log_by_worker, [6]) in ([1], [2])
    assert {each.name: support.numbers(each, f"/cam/{each.stem}/n") for each in folder.glob("?.rrd")} == {
        f"{number}.rrd": Counter([number]) for number in range(5)
    } | {"0.rrd": Counter([0])}
    assert {(f"/cam/{number}/n", number) for number in range(5)} <= set(_rows(path))


async def _run_all() -> None:
    await later(4)
    assert [number async for number in values(2)] == [0, 1]


def test_arguments_are_fields(tmp_path: Path) -> None:
    import asyncio

    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        log_by_arguments(1, 3, Camera("left"))
        log_by_arguments(2, 3, camera=Camera("a/b c"), width=12)
        Camera("method").log(3)
        log_any(4, 5, 6, extra="more", name="ignored")
        assert list(walk(2)) == [0, 1]
        asyncio.run(_run_all())
        functools.partial(log_by_arguments, 5, 9)(camera=Camera("partial"))
    assert _rows(path) == Counter(
        [
            ("/cam/3/left/8/005/n", 1),
            (r"/cam/3/a\/b\ c/8/012/n", 2),
            ("/method/method/n", 3),
            ("/any/more/log_any/n", 4),
            ("/steps/2/n", 0),
            ("/steps/2/n", 1),
            ("/later/4/n", 4),
            ("/values/2/n", 0),
            ("/values/2/n", 1),
            ("/cam/9/partial/8/005/n", 5),
        ]
    )
    with mpr.Pool("app", 1, sinks=tmp_path / "pool.rrd") as pool:
        pool.starmap(log_by_arguments, [(1, 4, Camera("pool"))])
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            assert threads.submit(pool.apply, log_any, (2,), {"extra": 1}).result(60) == 2
    assert _rows(tmp_path / "pool.rrd") == Counter([("/cam/4/pool/8/005/n", 1), ("/any/1/log_any/n", 2)])


def test_a_field_without_a_value_is_an_error_that_names_it(tmp_path: Path) -> None:
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd"):
        with pytest.raises(mpr.ConfigError, match=r"log_by_arguments: AttributeError: .* has no attribute 'id'"):
            log_by_arguments(1, 2, 3)  # type: ignore[arg-type]  # the error is what is tested
        with pytest.raises(mpr.ConfigError, match="log_any: KeyError: 'extra'"):
            log_any(1)
        # A wrong call is the same error as without mpr.
        with pytest.raises(TypeError, match="missing a required argument: 'camera'"):
            log_by_arguments(1, 2)  # type: ignore[call-arg]  # the error is what is tested


def test_a_function_without_a_signature() -> None:
    mpr.task(entity_path_prefix="a/{index}")(min)
    with pytest.raises(mpr.ConfigError, match=r"names \{x\}, and there are: \{task\}"):
        mpr.task(entity_path_prefix="a/{x}")(min)


def test_without_a_recording_each_task_has_an_index_of_its_own() -> None:
    assert mpr.current_task() is None
    first, second = log_by_index(1), log_by_index(2)
    assert second == first + 1
    assert log_by_worker(1) is None


def test_a_process_asks_for_more_and_more_indices() -> None:
    asked: list[int] = []
    numbers = RecordingNumbers()

    def ask(question: IndicesWanted, have_come: Any) -> None:
        asked.append(question.count)
        indices.take(numbers.answer(question.count))
        assert have_come()

    indices = TaskIndices(ask, lambda: False, lambda: 1)
    assert [indices.next() for _ in range(200)] == list(range(200))
    assert asked == [1, 2, 4, 8, 16, 32, 64, 64, 64]


@pytest.mark.parametrize("count", [0, 1025, 2**40])
def test_a_damaged_request_for_indices_cuts_off_its_producer(count: int, tmp_path: Path) -> None:
    intake = support.intake_of(Hello("secret", 0, 1, "route", ""), tmp_path)
    intake.take(IndicesWanted(count))
    assert intake.may_lack_rows()


def test_rerun_is_not_needed_to_check_a_prefix() -> None:
    source = "import sys, mpr; mpr.task(entity_path_prefix='{a}')(lambda a: a); print('rerun' in sys.modules)"
    assert support.run_python(source).stdout == "False\n"

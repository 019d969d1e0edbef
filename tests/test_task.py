"""`@mpr.task`: the kinds of functions that it takes, and what each task has for itself."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import rerun as rr

import mpr
from mpr.producer import async_delivery
from tests import functions, support, tasks


def _times(path: Path, entity: str) -> list[dict[str, Any]]:
    return [dict(cell.times) for cell in support.cells(path).elements() if cell.entity == entity]


def test_a_decorated_function_is_still_what_it_was() -> None:
    assert functions.log_number.__name__ == "log_number"
    assert str(inspect.signature(functions.log_number)) == "(number: 'int') -> 'int'"
    assert functions.Detector.detect.__doc__ == "Log the number, and the offset on top."
    assert inspect.isgeneratorfunction(functions.count)
    assert inspect.iscoroutinefunction(functions.walk)
    assert not inspect.isgeneratorfunction(functions.log_number)
    for function in (functions.log_number, functions.count, functions.walk, functions.Detector(1).detect):
        assert pickle.loads(pickle.dumps(function)).__qualname__ == function.__qualname__
    offset = 3
    closure = mpr.task(lambda number: number + offset)
    assert cloudpickle.loads(cloudpickle.dumps(closure))(4) == 7


def test_decorating_needs_neither_the_sdk_nor_zeromq() -> None:
    source = (
        "import sys, mpr; mpr.task(lambda: None); print([m for m in ('zmq', 'rerun', 'numpy') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"


def test_functions_methods_and_static_methods_in_a_pool(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        assert pool.map(functions.log_number, range(5)) == list(range(5))
        assert pool.map(functions.Detector(10).detect, range(5)) == list(range(10, 15))
        assert pool.map(functions.Detector.plain, range(20, 25)) == list(range(20, 25))
        with pytest.raises(ValueError, match="task 30 failed"):
            pool.apply(functions.log_and_raise, (30,))
        pool.apply(functions.walk_all)
        pool.map(functions.set_a_time, range(4), chunksize=4)
        pool.map(functions.log_without_time, range(4), chunksize=4)
    support.check_file(path)
    assert support.numbers(path) == Counter([*range(5), *range(10, 15), *range(20, 25), 30])
    assert _times(path, "/bare") == [{}] * 4
    _check_walks(path)
    # Rows of threads and coroutines that tasks have started have no time and no prefix.
    assert _times(path, "/undecorated") == [{}] * 3
    assert _times(path, "/from_thread") == [{}] * 3


def _check_walks(path: Path) -> None:
    """Each of three coroutines that were interleaved has its own rows, times and prefix."""
    found = [cell for cell in support.cells(path).elements() if cell.entity.startswith("/walk/")]
    assert len({cell.entity for cell in found}) == 3
    assert sorted((dict(cell.times)["walk"], dict(cell.times)["step"], cell.value) for cell in found) == sorted(
        (start, step, f"[{float(start + step)}]") for start in (0, 10, 20) for step in range(4)
    )


def test_interleaved_generators_and_coroutines_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        ours = recording.stream
        with ours:
            rr.set_time("callers", sequence=1)
            for left, right in zip(functions.count(3), functions.count(3), strict=True):
                assert left == right
                rr.log("between", rr.Scalars(float(left)))
            functions.walk_all()
        # A generator that is closed early has its rows in the file when `close` returns.
        early = functions.count(5)
        assert [next(early), next(early)] == [0, 1]
        early.close()
        assert len(_times_of_growing(path, "/steps/counter/n")) == 3 + 3 + 2

        async def read() -> list[int]:
            first, second = functions.stream_numbers(100, 3), functions.stream_numbers(200, 3)
            found = []
            async for number in first:
                found += [number, await anext(second)]
            return found

        assert asyncio.run(read()) == [100, 200, 101, 201, 102, 202]
    support.check_file(path)
    assert _times(path, "/between") == [{"callers": 1}] * 3
    assert Counter(time["step"] for time in _times(path, "/steps/counter/n")) == Counter({0: 3, 1: 3, 2: 2})
    assert all(time.keys() == {"step"} for time in _times(path, "/steps/counter/n"))
    assert Counter(time["stream"] for time in _times(path, "/n")) == Counter({100: 3, 200: 3})
    # Threads that are no task log to the recording of the caller, and here the caller has none.
    assert not _times(path, "/from_thread")


@mpr.task
def _set_times_of_two_recordings(recording_id: str) -> Iterator[None]:
    rr.set_time("shared", sequence=1)
    other = rr.RecordingStream("other app", recording_id=recording_id, send_properties=False)
    other.set_time("other", sequence=2)
    yield
    rr.log("n", rr.Scalars(1.0))
    other.reset_time()
    yield
    rr.log("n", rr.Scalars(2.0))


def test_a_recording_of_another_application_with_the_same_recording_id_has_times_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", recording_id="id", sinks=path):
        list(_set_times_of_two_recordings("id"))
    assert _times(path, "/n") == [{"shared": 1}] * 2


def _times_of_growing(path: Path, entity: str) -> list[dict[str, Any]]:
    return [dict(cell.times) for cell in support.cells_of_growing(path).elements() if cell.entity == entity]


def test_a_generator_takes_what_is_sent_and_thrown() -> None:
    @mpr.task
    def echo() -> Any:
        got: list[Any] = []
        while True:
            try:
                got.append((yield list(got)))
            except KeyError as error:
                got.append(error.args[0])
            if got[-1] == "end":
                return got

    running = echo()
    assert next(running) == []
    assert running.send(1) == [1]
    assert running.throw(KeyError("thrown")) == [1, "thrown"]
    with pytest.raises(StopIteration) as ended:
        running.send("end")
    assert ended.value.value == [1, "thrown", "end"]
    with pytest.raises(ZeroDivisionError):
        next(failing())


@mpr.task
def failing() -> Any:
    yield 1 // 0


def test_an_async_generator_takes_what_is_sent_and_thrown() -> None:
    closed = []

    @mpr.task
    async def echo() -> Any:
        got: list[Any] = []
        try:
            while True:
                try:
                    got.append((yield list(got)))
                except KeyError as error:
                    got.append(error.args[0])
                await asyncio.sleep(0)
        finally:
            closed.append(True)

    async def main() -> None:
        running = echo()
        assert await anext(running) == []
        assert await running.asend(1) == [1]
        assert await running.athrow(KeyError("thrown")) == [1, "thrown"]
        await running.aclose()

    asyncio.run(main())
    assert closed == [True]


@pytest.fixture
def user_recording(tmp_path: Path) -> Any:
    """A recording of the user's own, which is current; its file is written when the test calls `disconnect`."""
    before = rr.get_global_data_recording()
    stream = rr.RecordingStream("own")
    stream.save(tmp_path / "own.rrd")
    rr.set_global_data_recording(stream)
    yield stream
    rr.set_global_data_recording(before)


def test_with_nothing_to_join_the_callers_recording_and_its_times_stay(user_recording: Any, tmp_path: Path) -> None:
    rr.set_time("frame", sequence=7)
    rr.set_time("other", duration=1.0)
    functions.set_a_time(1)
    functions.log_without_time(2)
    assert list(functions.count(2)) == [0, 1]
    functions.walk_all()
    rr.log("after", rr.Scalars(1.0))
    with pytest.raises(ValueError, match="task 3 failed"):
        functions.log_and_raise(3)
    user_recording.disconnect()
    path = tmp_path / "own.rrd"
    assert _times(path, "/mine") == [{"only_mine": 1}]
    assert _times(path, "/bare") == [{}]
    assert [time.keys() for time in _times(path, "/after")] == [{"frame", "other"}]
    assert [text.entity for text in support.texts(path)] == ["/mpr/tasks/log_and_raise"]
    _check_walks(path)


def test_a_thread_and_its_caller_have_times_of_their_own(user_recording: Any, tmp_path: Path) -> None:
    rr.set_time("frame", sequence=7)
    thread = threading.Thread(target=functions.set_a_time, args=(1,))
    thread.start()
    thread.join()
    rr.log("after", rr.Scalars(1.0))
    user_recording.disconnect()
    assert _times(tmp_path / "own.rrd", "/mine") == [{"only_mine": 1}]
    assert _times(tmp_path / "own.rrd", "/after") == [{"frame": 7}]


def test_the_current_task_and_its_timeline(tmp_path: Path) -> None:
    assert mpr.current_task() is None
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        first, second = functions.log_and_return_the_task(1), functions.log_and_return_the_task(2)
    assert first is not None
    assert second is not None
    assert (first.name, first.worker, first.attempt, first.index) == ("named", 0, 1, 0)
    assert second.index == 1
    assert mpr.current_task() is None
    assert sorted(time["call"] for time in _times(path, "/n")) == [first.index, second.index]


def _return_the_task(_: int) -> mpr.CurrentTask | None:
    return mpr.current_task()


def test_the_current_task_of_a_pool(tmp_path: Path) -> None:
    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd") as pool:
        for chunksize in (1, 3):
            found = pool.map(_return_the_task, range(7), chunksize=chunksize)
            assert [(each.index, each.name, each.attempt) for each in found if each] == [
                (index, "_return_the_task", 1) for index in range(7)
            ]
            assert {each.worker for each in found if each} <= {1, 2}
        named = pool.map(functions.log_and_return_the_task, range(3))
        assert [(each.index, each.name) for each in named if each] == [(index, "named") for index in range(3)]
        assert pool.apply(functions.thread_knows_the_task) == [None, "thread_knows_the_task"]
    assert sorted(time["call"] for time in _times(tmp_path / "run.rrd", "/n")) == [0, 1, 2]


def test_a_task_within_a_task_is_a_part_of_it(tmp_path: Path) -> None:
    @mpr.task(entity_path_prefix="outer")
    def outer() -> mpr.CurrentTask | None:
        rr.set_time("step", sequence=5)
        functions.log_without_time(1)
        return functions.log_and_return_the_task(2)

    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        task = outer()
    assert task is not None
    assert task.name.endswith("outer")
    assert _times(path, "/outer/bare") == [{"step": 5}]


def test_a_prefix_is_before_all_that_a_task_logs(tmp_path: Path) -> None:
    source = tmp_path / "source.rrd"
    with mpr.SharedRecording("app", sinks=source) as recording:
        recording.stream.log("sent", rr.Scalars(1.0))

    @mpr.task(entity_path_prefix="/run/{index}/")
    def everything() -> None:
        tasks.log_everything(3)
        rr.send_chunks(list(rr.chunk.RrdReader(source).stream()))
        rr.log_file_from_contents("note.md", b"# note", entity_path_prefix="files")
        own = rr.RecordingStream("own")
        own.save(tmp_path / "own.rrd")
        own.log("mine", rr.Scalars(1.0))
        own.disconnect()

    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path):
        everything()
    support.check_file(path)
    entities = {cell.entity for cell in support.cells(path)}
    assert {entity.split("/")[1] for entity in entities} == {"run"}
    assert {"/run/0/task/3/image", "/run/0/task/3/columns", "/run/0/sent"} <= entities
    assert any(entity.startswith("/run/0/files/") for entity in entities)
    properties = {cell.entity for cell in support.cells(path, properties=True)} - entities
    assert "/__properties/task_3" in properties
    assert {cell.entity for cell in support.cells(tmp_path / "own.rrd")} == {"/mine"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": ""}, "name of a task must be a str"),
        ({"timeline": 3}, "timeline of a task must be a str"),
        ({"entity_path_prefix": "a/{tsk}"}, "names {tsk}, and there are: {task}, {name}"),
        ({"entity_path_prefix": "a/{tsk.x:{name}}"}, "{pid}, and the arguments {number}"),
        ({"entity_path_prefix": "a/{number:{width}}"}, "names {width}"),
        ({"entity_path_prefix": "a/{}"}, "names {}"),
        ({"entity_path_prefix": "a/{"}, "no format string"),
    ],
)
def test_options_that_cannot_be_used_are_refused_at_once(options: Any, text: str) -> None:
    with pytest.raises(mpr.ConfigError, match=text):
        mpr.task(**options)(tasks.log_number)
    with pytest.raises(mpr.ConfigError, match="is for functions"):
        mpr.task(3)  # type: ignore[call-overload]  # the error is what is tested


def test_rerun_off_is_off(tmp_path: Path) -> None:
    source = """
import sys, multiprocessing, mpr
from tests import functions
if __name__ == "__main__":
    with mpr.SharedRecording("app", sinks=sys.argv[1]) as recording:
        print(functions.log_number(1), list(functions.count(2)))
        functions.walk_all()
        child = multiprocessing.get_context("spawn").Process(target=functions.log_number, args=(2,))
        child.start()
        child.join()
        print(child.exitcode, recording.wrap(functions.log_number)(3))
    with mpr.Pool("app", 1, sinks=sys.argv[1]) as pool:
        print(pool.map(functions.log_number, range(3)))
"""
    ran = support.run_python(source, tmp_path / "run.rrd", env={"RERUN": "off"})
    assert ran.stdout == "1 [0, 1]\n0 3\n[0, 1, 2]\n", ran.stderr
    assert not (tmp_path / "run.rrd").exists()


_TYPES = """
from collections.abc import AsyncIterator, Iterator
import mpr

@mpr.task
def plain(number: int, *, text: str = "") -> float:
    return number + len(text)

@mpr.task(name="other")
def steps(upto: int) -> Iterator[int]:
    yield from range(upto)

@mpr.task
async def later(number: int) -> str:
    return str(number)

class Detector:
    @mpr.task
    def detect(self, number: int) -> list[int]:
        return [number]

reveal_type(plain(1, text="a"))
reveal_type(steps(2))
reveal_type(Detector().detect(3))
reveal_type(mpr.current_task())
def use(recording: mpr.SharedRecording) -> None:
    reveal_type(recording.wrap(plain)(1))
async def main() -> None:
    reveal_type(await later(1))
plain("not a number")
steps()
Detector().detect("not a number")
"""


def test_a_type_checker_knows_what_a_decorated_function_takes_and_returns(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(_TYPES)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path), "typed.py"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, cwd=tmp_path)
    lines = ran.stdout.splitlines()
    revealed = [line.split('is "')[1].rstrip('"') for line in lines if "Revealed type" in line]
    expected = ["float", "Iterator[int]", "list[int]", "CurrentTask | None", "float", "str"]
    assert len(revealed) == len(expected), ran.stdout + ran.stderr
    assert [
        each.replace("builtins.", "").replace("typing.", "").replace("mpr.tasks.current.", "") for each in revealed
    ] == expected
    errors = [line for line in lines if ": error:" in line]
    assert len(errors) == 3, errors
    assert "incompatible type" in errors[0]


_STOPPED = """
import asyncio, os, signal, sys
import psutil, rerun as rr
import mpr

@mpr.task
async def log(number):
    rr.log("n", rr.Scalars(float(number)))
    logged.set()

@mpr.task
async def numbers(upto):
    for number in range(10, upto):
        rr.log("n", rr.Scalars(float(number)))
        yield number

async def go_on():
    # The parent has stopped at the rows of `log`, which waits for them; only this coroutine gets it going again.
    await logged.wait()
    parent = psutil.Process(os.getppid())
    while parent.status() != psutil.STATUS_STOPPED:
        await asyncio.sleep(0.001)
    parent.send_signal(signal.SIGCONT)

async def main():
    global logged
    logged = asyncio.Event()
    await asyncio.gather(log(1), go_on())
    async with asyncio.TaskGroup() as group:
        for number in range(2, 10):
            group.create_task(log(number))
    async for number in numbers(20):
        if number == 12:
            break
    print("done")

asyncio.run(main())
"""

_PARENT = """
import subprocess, sys
import mpr
if __name__ == "__main__":
    with mpr.SharedRecording("app", sinks=sys.argv[1]):
        subprocess.run([sys.executable, "-c", sys.argv[2]], check=True, timeout=50)
"""


def test_other_coroutines_run_while_one_waits_for_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    ran = support.run_python(_PARENT, path, _STOPPED, env={"MPR_FAILPOINTS": "parent.segment:1:stop"})
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr
    support.check_file(path)
    assert support.numbers(path) == Counter(range(1, 13))


def test_a_coroutine_that_is_cancelled_or_times_out_has_its_rows_in(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"

    @mpr.task
    async def wait(number: int) -> None:
        tasks.log_number(number)
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(wait(1))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert support.numbers_of_growing(path) == Counter([1])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait(2), 0.01)
        assert support.numbers_of_growing(path) == Counter([1, 2])
        # A coroutine may be closed when no loop runs any more.
        driven = wait(3)
        driven.send(None)
        driven.close()
        assert support.numbers_of_growing(path) == Counter([1, 2, 3])

    with mpr.SharedRecording("app", sinks=path):
        asyncio.run(main())
    support.check_file(path)
    # This is no error of the task.
    assert support.texts(path) == []


def test_a_generator_that_is_closed_while_its_thread_delivers_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The garbage collector may close a generator at any moment."""
    monkeypatch.setattr(async_delivery, "_CLOSED_SECS", 0.2)
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        closed = functions.count(5)
        next(closed)
        with recording._runtime.parent.producer()._writer._rolling:
            closed.close()
        assert "are on their way, but not in after 0.2 s" in caplog.text
    support.check_file(path)
    assert len(_times(path, "/steps/counter/n")) == 1

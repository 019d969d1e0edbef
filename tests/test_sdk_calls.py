"""The calls of the SDK's page "other classes and functions", each from a worker; `docs/sdk-calls.md` has the list."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import re
import socket
import subprocess
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rerun as rr
import rerun_bindings
from rerun.recording_stream import recording_stream_generator_ctx

import mpr
from mpr.sdk import programs
from tests import support, tasks

_Run = Callable[..., Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.rrd"


@pytest.fixture
def run(path: Path) -> _Run:
    """Return a function that runs another one in the only worker of a pool, and then checks the next task."""

    def call(function: Callable[..., Any], *args: Any) -> Any:
        with mpr.Pool("app", 1, sinks=path, recording_id="run-7") as pool:
            result = pool.apply(function, args)
            pool.apply(tasks.log_number, (1000,))
        support.check_file(path)
        assert support.numbers(path)[1000] == 1
        return result

    return call


def _numbers_without_check(path: Path) -> Counter[int]:
    return support.numbers(path) - Counter([1000])


def _with_logging_handler() -> None:
    logger = logging.getLogger("somewhere")
    handler = rr.LoggingHandler("logs")
    logger.addHandler(handler)
    logger.warning("through the SDK's handler")
    logger.removeHandler(handler)


def test_logging_handler(run: _Run, path: Path) -> None:
    run(_with_logging_handler)
    assert ("/logs/test_sdk_calls", "through the SDK's handler", "WARN") in support.texts(path)


def _into_memory(of_the_worker: bool) -> tuple[int, bytes]:
    tasks.log_number(1)
    stream = None if of_the_worker else rr.RecordingStream("own", send_properties=False)
    memory = rr.memory_recording(recording=stream)
    for number in (2, 3):
        rr.log("n", rr.Scalars(float(number)), recording=stream)
    (stream or rr.get_global_data_recording()).flush()  # type: ignore[union-attr]  # a worker has one
    count = memory.num_msgs()
    return count, memory.drain_as_bytes()


@pytest.mark.parametrize("of_the_worker", [True, False])
def test_memory_recording(run: _Run, path: Path, tmp_path: Path, of_the_worker: bool) -> None:
    count, data = run(_into_memory, of_the_worker)
    assert count > 0
    (tmp_path / "memory.rrd").write_bytes(data)
    in_memory = support.numbers(tmp_path / "memory.rrd")
    assert in_memory.keys() >= {2, 3}
    # Rows before the memory recording are in the shared recording; no row is lost and none is there twice.
    assert in_memory + _numbers_without_check(path) == Counter([1, 2, 3])


def _to_grpc(url: str) -> None:
    stream = rr.RecordingStream("own", recording_id="over-grpc")
    stream.set_sinks(rr.GrpcSink(url))
    stream.log("n", rr.Scalars(5.0))
    stream.flush()
    stream.disconnect()
    tasks.log_number(6)


def test_grpc_sink(run: _Run, path: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The script `rerun` would leave its child behind when it is killed, so run the program itself.
    command = programs.viewer_executable()
    assert command is not None
    saved = tmp_path / "grpc.rrd"
    server = subprocess.Popen([command, "--save", str(saved), "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        support.wait_for(lambda: _listens(port), 60)
        run(_to_grpc, f"rerun+http://127.0.0.1:{port}/proxy")
        support.wait_for(lambda: saved.exists() and 5 in _readable_numbers(saved), 60)
    finally:
        server.kill()
        server.wait()
    assert _numbers_without_check(path) == Counter([6])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _readable_numbers(path: Path) -> Counter[int]:
    try:
        return support.numbers_of_growing(path)
    except (OSError, ValueError, IndexError):
        # The file does not even have its header yet.
        return Counter()


def _to_two_files(folder: Path) -> None:
    tasks.log_number(1)
    rr.set_sinks(rr.FileSink(folder / "one.rrd"), rr.FileSink(folder / "two.rrd"))
    tasks.log_number(2)


def test_file_sink_through_set_sinks(run: _Run, path: Path, tmp_path: Path) -> None:
    run(_to_two_files, tmp_path)
    assert _numbers_without_check(path) == Counter([1])
    assert support.numbers(tmp_path / "one.rrd") == support.numbers(tmp_path / "two.rrd") == Counter([2])


def _with_a_second_stream(folder: Path | None) -> list[str]:
    """Make another stream with the id of the shared recording. Returns what mpr has logged meanwhile."""
    with support.records_of_mpr() as records:
        tasks.log_number(1)
        second = rr.RecordingStream("app", recording_id=rr.get_recording_id(), send_properties=False)
        if folder is not None:
            second.save(folder / "second.rrd")
        with second:
            tasks.log_number(2)
        second.log("n", rr.Scalars(3.0))
        second.flush()
        tasks.log_number(4)
        second.disconnect()
        tasks.log_number(5)
    return [each.getMessage() for each in records]


@pytest.mark.parametrize("has_a_sink", [True, False])
def test_a_second_stream_with_the_id_of_the_shared_one(run: _Run, path: Path, tmp_path: Path, has_a_sink: bool) -> None:
    # It has its own sink, so mpr has nothing to say about the sink of the shared one, which stays.
    assert run(_with_a_second_stream, tmp_path if has_a_sink else None) == []
    if has_a_sink:
        # The SDK finishes a file at the end of a `with` block.
        assert support.numbers(tmp_path / "second.rrd") == Counter([2])
    assert _numbers_without_check(path) == Counter([1, 4, 5] if has_a_sink else [1, 2, 3, 4, 5])


#: A call that takes the worker's sink, and its name in the message, with what the message says of the rows.
_SINK_CALLS: dict[str, tuple[Callable[[], object], str]] = {
    "rr.binary_stream()": (rr.binary_stream, "go to what the call returns, and not"),
    "rr.memory_recording()": (rr.memory_recording, "go to what the call returns, and not"),
    "rr.RecordingStream.save()": (lambda: rr.get_global_data_recording().save(os.devnull), "go there, and not"),  # type: ignore[union-attr]  # a worker has one
    "rr.set_sinks()": (lambda: rr.set_sinks(rr.FileSink(os.devnull)), "Give mpr the sink, and they go to both"),
    "rr.script_setup()": (lambda: rr.script_setup(_SCRIPT_ARGS, "app", recording_id="run-7"), "go there, and not"),
    "rerun_bindings.save()": (lambda: rerun_bindings.save(path=os.devnull), "go there, and not"),
    # These make no sink, or take it away for the time being only.
    "": (lambda: (rr.disconnect(), rr.RecordingStream("own").log("n", rr.Scalars(1.0))), ""),
}
_SCRIPT_ARGS = argparse.Namespace(
    stdout=False, serve=False, connect=False, url=None, save=os.devnull, headless=True, memory_limit="1GB"
)


def _said_of(call: str) -> list[str]:
    with support.records_of_mpr() as records:
        _SINK_CALLS[call][0]()
    return [each.getMessage() for each in records]


@pytest.mark.parametrize("call", _SINK_CALLS)
def test_messages_name_the_call_that_was_made(run: _Run, call: str) -> None:
    said = run(_said_of, call)
    assert len(said) == bool(call), said
    for message in said:
        assert message.startswith(f"{call} in a task of mpr: until its end its rows ")
        assert _SINK_CALLS[call][1] in message


def _to_stdout(terminal: bool) -> list[str]:
    kept = os.dup(1)
    ours, theirs = os.openpty() if terminal else os.pipe()[::-1]
    os.dup2(theirs if terminal else ours, 1)
    try:
        with support.records_of_mpr() as records:
            tasks.log_number(1)
            rr.stdout()
            tasks.log_number(2)
            rr.get_global_data_recording().flush()  # type: ignore[union-attr]  # a worker has one
    finally:
        os.dup2(kept, 1)
        for each in (kept, ours, theirs):
            os.close(each)
    return [each.getMessage() for each in records]


@pytest.mark.parametrize("terminal", [True, False])
def test_stdout(run: _Run, path: Path, terminal: bool) -> None:
    said = run(_to_stdout, terminal)
    # The SDK writes nothing to a terminal, so the rows stay, and there is nothing to say.
    assert [each.partition(":")[0] for each in said] == ([] if terminal else ["rr.stdout() in a task of mpr"])
    assert "Give mpr the sink" not in "".join(said)
    assert _numbers_without_check(path) == Counter([1, 2] if terminal else [1])


def _ids() -> list[str | None]:
    streams = [rr.get_data_recording(), rr.get_global_data_recording()]
    ids = [None if stream is None else stream.get_recording_id() for stream in streams]
    return [*ids, rr.get_recording_id(), rr.get_application_id()]


def test_get_data_recording_get_global_data_recording_and_get_recording_id(run: _Run) -> None:
    assert run(_ids) == ["run-7", "run-7", "run-7", "app"]


def _this_process_stream(folder: Path) -> rr.RecordingStream:
    stream = rr.RecordingStream("own")
    stream.save(folder / "own.rrd")
    return stream


def _set_thread_local(folder: Path) -> bool:
    own = _this_process_stream(folder)
    none_before = rr.get_thread_local_data_recording() is None
    rr.set_thread_local_data_recording(own)
    tasks.log_number(1)
    # The other threads of the task have not changed.
    thread = threading.Thread(target=tasks.log_number, args=(2,))
    thread.start()
    thread.join()
    found = rr.get_thread_local_data_recording()
    assert found is not None
    same = found.get_recording_id() == own.get_recording_id()
    own.disconnect()
    return none_before and same


def test_get_and_set_thread_local_data_recording(run: _Run, path: Path, tmp_path: Path) -> None:
    assert run(_set_thread_local, tmp_path)
    assert support.numbers(tmp_path / "own.rrd") == Counter([1])
    assert _numbers_without_check(path) == Counter([2])


def _set_global(folder: Path) -> None:
    own = _this_process_stream(folder)
    before = rr.set_global_data_recording(own)
    tasks.log_number(1)
    rr.set_global_data_recording(before)
    tasks.log_number(2)
    rr.set_global_data_recording(own)
    # The task does not reset it: the next task has the shared recording all the same.
    own.disconnect()


def test_set_global_data_recording(run: _Run, path: Path, tmp_path: Path) -> None:
    run(_set_global, tmp_path)
    assert support.numbers(tmp_path / "own.rrd") == Counter([1])
    assert _numbers_without_check(path) == Counter([2])


def test_is_enabled(run: _Run) -> None:
    assert run(rr.is_enabled) is True


def _switched_off() -> bool:
    tasks.log_number(1)
    rr.init("quiet", default_enabled=False)
    tasks.log_number(2)
    thread = threading.Thread(target=tasks.log_number, args=(3,))
    thread.start()
    thread.join()
    rr.save("never.rrd")
    return bool(rr.is_enabled())


def test_a_task_that_switches_its_recording_off_logs_nothing_until_its_end(run: _Run, path: Path) -> None:
    assert run(_switched_off) is False
    assert _numbers_without_check(path) == Counter([1])


_OFF = """
import sys, mpr, rerun as rr
from tests import tasks
if __name__ == "__main__":
    with mpr.Pool("app", 2, sinks=sys.argv[1]) as pool:
        print(pool.map(tasks.log_number, range(5)), pool.apply(rr.is_enabled), pool.recording.stats().accepted_bytes)
"""


def test_is_enabled_with_rerun_off(tmp_path: Path) -> None:
    ran = support.run_python(_OFF, tmp_path / "run.rrd", env={"RERUN": "off"})
    assert ran.stdout == "[0, 1, 2, 3, 4] False 0\n", ran.stderr
    assert not list(tmp_path.glob("*"))


def _serve_web_viewer(port: int) -> bytes:
    rr.start_web_viewer_server(port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as response:
        page: bytes = response.read(10_000)
    return page


def test_start_web_viewer_server(run: _Run) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert b"<html" in run(_serve_web_viewer, port).lower()


def _log_to_built_paths() -> tuple[str, str]:
    part = rr.escape_entity_path_part("my image!")
    path = rr.new_entity_path(["world", 42, "my image!"])
    rr.log(path, rr.TextLog("built"))
    rr.log(f"world/{part}", rr.TextLog("escaped"))
    return part, path


def test_escape_entity_path_part_and_new_entity_path(run: _Run, path: Path) -> None:
    part, built = run(_log_to_built_paths)
    assert (part, built) == (r"my\ image\!", r"/world/42/my\ image\!")
    assert {text.entity for text in support.texts(path)} == {built, f"/world/{part}"}


@rr.thread_local_stream("job")
def _log_to_job(folder: Path) -> None:
    rr.save(folder / "job.rrd")
    tasks.log_number(1)


def _job_then_log(folder: Path) -> None:
    _log_to_job(folder)
    tasks.log_number(2)


def test_thread_local_stream(run: _Run, path: Path, tmp_path: Path) -> None:
    run(_job_then_log, tmp_path)
    assert support.numbers(tmp_path / "job.rrd") == Counter([1])
    assert _numbers_without_check(path) == Counter([2])


@recording_stream_generator_ctx
def _log_steps(memories: list[Any]) -> Iterator[int]:
    # The stream is in memory, because a file would lose rows after the first `yield`, also without mpr.
    with rr.RecordingStream("own", send_properties=False) as own:
        memories.append(own.memory_recording())
        for number in range(3):
            tasks.log_number(number)
            yield number
        own.flush()


def _interleave() -> bytes:
    memories: list[Any] = []
    for number in _log_steps(memories):
        tasks.log_number(10 + number)
    data: bytes = memories[0].drain_as_bytes()
    return data


def test_recording_stream_generator_ctx(run: _Run, path: Path, tmp_path: Path) -> None:
    (tmp_path / "steps.rrd").write_bytes(run(_interleave))
    assert support.numbers(tmp_path / "steps.rrd") == Counter(range(3))
    assert _numbers_without_check(path) == Counter([10, 11, 12])


def _log_to(stream: rr.RecordingStream, number: int) -> str:
    with stream:
        rr.log("n", rr.Scalars(float(number)))
    # The worker can log to the recording after a `with` block too.
    stream.log("n", rr.Scalars(float(number + 1)))
    return stream.get_recording_id()


# Python warns of `fork` in a process with threads since 3.12.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_stream_as_an_argument(start_method: Any, path: Path, tmp_path: Path) -> None:
    with mpr.SharedRecording("app", recording_id="run-7", sinks=path) as recording:
        stream = recording.stream
        with mpr.Pool("app", 1, recording=recording, start_method=start_method) as pool:
            assert pool.apply(_log_to, (stream, 1)) == "run-7"
            assert pool.map(lambda number: _log_to(stream, number), [3]) == ["run-7"]
            with pytest.raises(mpr.UnpicklableTaskError, match="only one of a shared recording can"):
                pool.apply(_log_to, (rr.RecordingStream("another"), 1))
        # A process of `multiprocessing` gets the stream pickled or by `fork`, and gives it to a child.
        child = multiprocessing.get_context(start_method).Process(target=_log_to_and_hand_on, args=(stream, 5))
        child.start()
        child.join()
        assert child.exitcode == 0
        _log_to(stream, 9)
    support.check_file(path)
    assert support.numbers(path) == Counter([*range(1, 11)])


def _log_to_and_hand_on(stream: rr.RecordingStream, number: int) -> None:
    _log_to(stream, number)
    child = multiprocessing.get_context("fork").Process(target=_log_to, args=(stream, number + 2))
    child.start()
    child.join()
    assert child.exitcode == 0


def test_the_page_lists_every_call_with_its_test() -> None:
    page = (Path(__file__).parent.parent / "docs" / "sdk-calls.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    here = {name for name in globals() if name.startswith("test_")} - {"test_the_page_lists_every_call_with_its_test"}
    assert named == here

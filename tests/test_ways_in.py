"""Every public way into a recording is counted, waits for credit, gets the prefix of its task, and belongs to the task.

The tables below have all public names of the SDK by which data can reach a recording. A new name fails a test here, so
that somebody decides what it is.
"""

from __future__ import annotations

import ast
import inspect
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rerun as rr
import rerun_bindings
from rerun import experimental, urdf

import mpr
from mpr.sdk import log_calls, private_names, sink_calls
from mpr.sdk.times import _REMOVE_TIME, _SET_TIME
from tests import support

_URDF = """
<robot name="robot">
  <link name="base"><visual><geometry><box size="1 1 1"/></geometry></visual></link>
  <link name="arm"><visual><geometry><sphere radius="1"/></geometry></visual></link>
  <joint name="joint" type="fixed"><parent link="base"/><child link="arm"/><origin xyz="0 0 1"/></joint>
</robot>
"""


# --- the native module: nothing takes a recording that mpr does not know -------------------------------------------

# Functions with a parameter `recording` that neither log nor change a sink or a time.
_HARMLESS = {
    "get_application_id", "get_recording_id", "get_data_recording", "is_enabled", "flush", "finalize_deferred_sinks",
    "set_global_data_recording", "set_thread_local_data_recording",
    # They are about the stream of a blueprint, which is made for one call and leads to no recording of mpr.
    "set_global_blueprint_recording", "set_thread_local_blueprint_recording",
    # A switch of the recording, and no time of a thread.
    "set_log_tick_enabled", "set_log_time_enabled",
    # No public function calls it any more.
    "serve_web",
}  # fmt: skip


def _takes_a_recording(function: ast.FunctionDef) -> bool:
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return any(each.arg == "recording" for each in every)


def _native_names() -> set[str]:
    """Return every function and method of the native module that takes a recording, as its stubs list them."""
    stubs = next(Path(rerun_bindings.__file__).parent.glob("*.pyi"))
    found = set()
    for node in ast.parse(stubs.read_text()).body:
        if isinstance(node, ast.FunctionDef) and _takes_a_recording(node):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef))
            found |= {f"{node.name}.{each.name}" for each in methods if _takes_a_recording(each)}
    return found


def test_the_native_module_has_no_function_that_takes_a_recording_and_that_mpr_does_not_know() -> None:
    entries = {
        *log_calls._ROW_ENTRIES, *log_calls._FILE_ENTRIES, *log_calls._PATHLESS_ENTRIES, *log_calls._CHUNKS_OF,
    }  # fmt: skip
    known = entries | set(sink_calls._SINK_CALLS) | {*_SET_TIME, *_REMOVE_TIME} | _HARMLESS
    assert _native_names() - known == set()
    assert entries <= set(private_names.NAMES)
    assert set(sink_calls._SINK_CALLS) <= set(private_names.NAMES)


# --- the public names: each that logs, with an example --------------------------------------------------------------


def _columns() -> tuple[list[Any], Any]:
    return [rr.TimeColumn("step", sequence=[1, 2, 3])], rr.Scalars.columns(scalars=[1.0, 2.0, 3.0])


def _record_batch() -> Any:
    chunk = next(iter(rr.chunk.RrdReader(_FILES["rrd"]).stream()))
    return chunk.to_record_batch()


# The paths of the files that examples need.
_FILES: dict[str, str] = {}


def _with_logging_handler() -> None:
    logger = logging.getLogger("ways_in")
    handler = rr.LoggingHandler("logs")
    logger.addHandler(handler)
    logger.warning("a text")
    logger.removeHandler(handler)


def _a_chunk() -> Any:
    (chunk,) = rr.chunk.Chunk.from_record_batch(_record_batch())
    return chunk


def _current() -> rr.RecordingStream:
    found = rr.get_data_recording()
    assert found is not None
    return found


#: Each public name that logs, with calls that log. The entity paths have to be below the prefix of their task.
_LOGGING: dict[str, list[Callable[[], object]]] = {
    "log": [
        lambda: rr.log("a", rr.Scalars(1.0)),
        lambda: rr.log("a/static", rr.TextDocument("x"), static=True),
        lambda: _current().log("a", rr.Scalars(1.0)),
    ],
    "send_columns": [
        lambda: rr.send_columns("a", *_columns()),
        lambda: _current().send_columns("a", *_columns()),
    ],
    "send_record_batch": [
        lambda: rr.send_record_batch(_record_batch()),
        lambda: _current().send_record_batch(_record_batch()),
    ],
    "send_dataframe": [
        lambda: rr.send_dataframe(_record_batch()),
        lambda: _current().send_dataframe(_record_batch()),
    ],
    "send_chunks": [
        lambda: rr.send_chunks(rr.chunk.RrdReader(_FILES["rrd"]).stream()),
        lambda: rr.send_chunks(rr.chunk.RrdReader(_FILES["rrd"]).store()),
        lambda: rr.send_chunks(rr.chunk.RrdReader(_FILES["rrd"]).stream().collect()),
        lambda: rr.send_chunks(next(iter(rr.chunk.RrdReader(_FILES["rrd"]).stream()))),
        lambda: rr.send_chunks(rr.chunk.RrdReader(_FILES["rrd"]).stream().to_chunks()),
        lambda: rr.send_chunks((each for each in rr.chunk.RrdReader(_FILES["rrd"]).stream()), recording=_current()),
        lambda: rr.send_chunks(urdf.UrdfTree.from_file_path(_FILES["urdf"]).stream()),
    ],
    "log_file_from_path": [
        lambda: rr.log_file_from_path(_FILES["md"]),
        lambda: _current().log_file_from_path(_FILES["md"]),
    ],
    "log_file_from_contents": [
        lambda: rr.log_file_from_contents("note.md", b"# A note"),
        lambda: _current().log_file_from_contents("note.md", b"# A note"),
    ],
    "UrdfTree.log_urdf_to_recording": [
        lambda: urdf.UrdfTree.from_file_path(_FILES["urdf"]).log_urdf_to_recording(),
        lambda: urdf.UrdfTree.from_file_path(_FILES["urdf"]).log_urdf_to_recording(_current()),
    ],
    "LoggingHandler": [_with_logging_handler],
}

#: Public names that log, but to a fixed place: properties, the recording's name and start, blueprints.
_LOGGING_ELSEWHERE = {
    "send_property", "send_recording_name", "send_recording_start_time_nanos", "send_blueprint",
}  # fmt: skip

#: Public names that lead to no recording by themselves.
_OTHERS = {
    # They choose where rows go (`docs/sdk-calls.md`).
    "binary_stream", "connect_grpc", "disconnect", "memory_recording", "notebook_show", "save", "serve_grpc",
    "serve_web_viewer", "set_sinks", "spawn", "start_web_viewer_server", "stdout", "script_add_args", "script_setup",
    "script_teardown", "legacy_notebook_show", "rerun_shutdown", "shutdown_at_exit", "unregister_shutdown",
    "cleanup_if_forked_child",
    # They choose the current recording, or say which it is.
    "init", "get_application_id", "get_data_recording", "get_global_data_recording", "get_recording_id",
    "get_thread_local_data_recording", "is_enabled", "recording_stream_generator_ctx", "set_global_data_recording",
    "set_thread_local_data_recording", "thread_local_stream", "new_recording", "flush", "to_native",
    # They set times and modes.
    "disable_timeline", "reset_time", "set_log_tick_enabled", "set_log_time_enabled", "set_time", "set_strict_mode",
    "strict_mode",
    # They concern the Rerun Hub, and the tracing of its clients.
    "login", "logout", "tracing_session",
    # They only compute. The first two are imported from other packages.
    "asarray", "cast",
    "escape_entity_path_part", "new_entity_path", "version", "set_rerun_notebook_height_width",
}  # fmt: skip


def _public_functions() -> set[str]:
    """Return the public functions of the SDK, and the methods of its streams."""
    functions = {name for name in dir(rr) if not name.startswith("_") and inspect.isroutine(getattr(rr, name))}
    methods = {name for name in dir(rr.RecordingStream) if not name.startswith("_")}
    return functions | methods


def _classes_that_can_log() -> set[str]:
    """Return the public methods of the SDK whose parameters include a recording, except for those of streams."""
    found = set()
    for module in (rr, rr.chunk, urdf, experimental):
        for name, value in vars(module).items():
            if inspect.isclass(value) and not name.startswith("_") and value is not rr.RecordingStream:
                for method, function in inspect.getmembers(value, inspect.isroutine):
                    try:
                        takes = "recording" in inspect.signature(function).parameters
                    except (ValueError, TypeError):
                        continue
                    if takes and not method.startswith("_"):
                        found.add(f"{name}.{method}")
    return found


def test_each_public_function_of_the_sdk_is_in_a_table() -> None:
    assert _public_functions() - set(_LOGGING) - _LOGGING_ELSEWHERE - _OTHERS == set()
    # Viewers take a recording to show it.
    assert _classes_that_can_log() - set(_LOGGING) - {"Viewer.add_recording", "ViewerClient.set_time"} == set()


@mpr.task(entity_path_prefix="under/{index}")
def _call(name: str, index: int, files: dict[str, str]) -> tuple[int, int]:
    """Make one of the calls. Returns how many calls mpr has counted meanwhile, and their bytes."""
    from mpr.producer import router

    _FILES.update(files)
    producer = router.producer()
    assert producer is not None
    counters = producer.log_counters
    calls, size = counters.entered, counters.unchecked
    _LOGGING[name][index]()
    return counters.entered - calls, counters.unchecked - size


@pytest.mark.parametrize("of_directory", [False, True])
def test_each_way_in_is_counted_and_gets_the_prefix_of_its_task(of_directory: bool, tmp_path: Path) -> None:
    files = {"md": tmp_path / "note.md", "urdf": tmp_path / "robot.urdf", "rrd": tmp_path / "rows.rrd"}
    files["md"].write_text("# A note")
    files["urdf"].write_text(_URDF)
    with rr.RecordingStream("other", send_properties=False) as stream:
        stream.save(files["rrd"])
        stream.log("boxes", rr.Boxes2D(mins=np.zeros((5, 2)), sizes=np.ones((5, 2))))
    calls = [(name, index) for name, made in _LOGGING.items() for index in range(len(made))]
    named = {key: str(value) for key, value in files.items()}
    path = tmp_path / ("folder" if of_directory else "run.rrd")
    sink = mpr.DirectorySink(path=path) if of_directory else path
    with mpr.Pool("app", 1, sinks=sink, telemetry=False) as pool:
        counted = pool.starmap(_call, [(name, index, named) for name, index in calls], 1)
        stats = pool.recording.stats()
    assert all(entered >= 1 and size > 0 for entered, size in counted), list(zip(calls, counted, strict=True))
    assert not stats.lost_rows
    entities = {file.name: {cell.entity for cell in support.cells(file)} for file in _files_of(path)}
    if of_directory:
        # Each task has a file, and nothing is beside the files of tasks.
        assert len(entities) == len(calls)
    found = {entity for each in entities.values() for entity in each}
    assert [each for each in found if not each.startswith("/under/")] == []
    assert {each.split("/")[2] for each in found} == set(map(str, range(len(calls))))


def _files_of(path: Path) -> list[Path]:
    return [each for each in sorted(path.glob("*.rrd")) if each.stem != "shared"] if path.is_dir() else [path]


def _send_and_change_the_current_recording(path: Path, begins_in_own: bool) -> None:
    """Send chunks by one call, and change the current recording of the thread when half of the chunks were sent."""
    own = rr.RecordingStream("own", recording_id="own", send_properties=False)
    own.save(path)
    rr.set_thread_local_data_recording(own if begins_in_own else None)

    def chunks() -> Iterator[Any]:
        for number in range(4):
            if number == 2:
                rr.set_thread_local_data_recording(None if begins_in_own else own)
            yield rr.chunk.Chunk.from_columns("c", [], rr.Scalars.columns(scalars=[float(number)]))

    rr.send_chunks(chunks())
    rr.set_thread_local_data_recording(None)
    rr.log("n", rr.Scalars(4.0))
    own.disconnect()


@pytest.mark.parametrize("begins_in_own", [False, True])
def test_chunks_go_to_the_recording_that_is_current_when_the_call_begins(begins_in_own: bool, tmp_path: Path) -> None:
    path, own = tmp_path / "run.rrd", tmp_path / "own.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        pool.apply(mpr.task(entity_path_prefix="under")(_send_and_change_the_current_recording), (own, begins_in_own))
    found = (support.numbers(path, "/under/c"), support.numbers(own, "/c") if begins_in_own else Counter())
    assert found == ((Counter(), Counter(range(4))) if begins_in_own else (Counter(range(4)), Counter()))
    # Closing the pool has found no difference between the rows that were counted and those that have come.
    assert pool.recording.stats().lost_rows == 0
    assert support.numbers(path, "/under/n") == Counter([4])


_SLOW = 200


@mpr.task
def _send_much(path: Path) -> int:
    """Send many chunks by one call. Returns how many bytes the outbox held at most."""
    from mpr.producer import router

    producer: Any = router.producer()
    held = 0

    def chunks() -> Any:
        nonlocal held
        for each in rr.chunk.RrdReader(path).stream():
            held = max(held, producer._writer.held_bytes())
            yield each

    rr.send_chunks(chunks())
    return held


def test_one_call_that_sends_much_waits_for_credit_between_its_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpr import limits

    monkeypatch.setattr(limits, "outbox_limit", lambda _: 4 * limits.MIB)
    other, path = tmp_path / "other.rrd", tmp_path / "run.rrd"
    with rr.RecordingStream("other", send_properties=False) as stream:
        stream.save(other)
        for step in range(_SLOW):
            stream.set_time("step", sequence=step)
            stream.log("image", rr.Image(np.random.default_rng(step).integers(0, 255, (400, 400, 3), np.uint8)))
    with mpr.Pool("app", 1, sinks=path) as pool:
        held = pool.apply(_send_much, (other,))
    assert support.row_counts(path) == {("/image", step): 1 for step in range(_SLOW)}
    # 96 MB were sent. The SDK may hold `UNFLUSHED_MAX_BYTES` more, and one check comes after `CHECK_EVERY_BYTES`.
    assert 0 < held < 32 * limits.MIB

"""Runs scenarios with an SDK that lacks a private name, one process per name. `tests/test_private_names.py` starts it.

`python -m tests.without_names FOLDER NAME...` prints a line of JSON for each name: which scenarios keep their promise.

A later SDK that names a function otherwise still works itself. So the function is taken from `rerun_bindings`, and the
SDK's own modules get it from an object that stands for the module.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rerun as rr
import rerun_bindings

import mpr
from mpr.sdk import private_names
from tests import support

_AT_A_TIME = 4


class _Renamed(types.ModuleType):
    """Stands for `rerun_bindings` in the SDK's own modules."""

    def __init__(self, kept: dict[str, Any]) -> None:
        super().__init__("rerun_bindings")
        self._kept = kept

    def __getattr__(self, name: str) -> Any:
        return self._kept[name] if name in self._kept else getattr(rerun_bindings, name)


def remove(name: str) -> None:
    """Take a private name away, as in a release of the SDK that names the function otherwise."""
    of_class, dot, attribute = name.rpartition(".")
    owner = getattr(rerun_bindings, of_class) if dot else rerun_bindings
    # Without a wrapper of mpr, which a forked process may have already.
    kept = inspect.unwrap(getattr(owner, attribute))
    delattr(owner, attribute)
    if dot:
        # The SDK's modules then call the new name. Their source cannot be changed here, so it is in their class.
        setattr(owner, f"{attribute}_renamed", kept)
        _patch_callers(attribute)
        return
    renamed = _Renamed({name: kept})
    for module in list(sys.modules.values()):
        if module.__name__.startswith("rerun.") or module.__name__ == "rerun":
            for key, value in list(vars(module).items()):
                if value is rerun_bindings:
                    setattr(module, key, renamed)


def _patch_callers(attribute: str) -> None:
    from rerun import _send_chunks, urdf

    for function in (_send_chunks.send_chunks, urdf.UrdfTree.log_urdf_to_recording):
        names = tuple(f"{attribute}_renamed" if each == attribute else each for each in function.__code__.co_names)
        function.__code__ = function.__code__.replace(co_names=names)


# --- the tasks -----------------------------------------------------------------------------------------------------


def _number(number: int) -> None:
    rr.log("n", rr.Scalars(float(number)))


def _init() -> None:
    rr.init("mine")
    _number(1)


def _times() -> None:
    rr.set_time("leak", sequence=1)
    _number(2)


#: Calls that take the sink of a worker away. Others would need a viewer, or write to the output of this program.
_SINK_CALLS: dict[str, Callable[[Path], object]] = {
    "save": lambda folder: rr.save(folder / "task.rrd"),
    "set_sinks": lambda folder: rr.set_sinks(rr.FileSink(folder / "task.rrd")),
    "memory_recording": lambda _: rr.memory_recording(),
    "binary_stream": lambda _: rr.binary_stream(),
    "disconnect": lambda _: rr.disconnect(),
    "shutdown": lambda _: rr.rerun_shutdown(),
}


def _take_sink(name: str, folder: Path) -> None:
    _SINK_CALLS.get(name, _SINK_CALLS["save"])(folder)


def _block() -> None:
    stream = rr.get_global_data_recording()
    assert stream is not None
    with stream:
        _number(3)
    _number(4)


def _other_current(folder: Path) -> None:
    other = rr.RecordingStream("other", send_properties=False)
    other.save(folder / "other.rrd")
    rr.set_global_data_recording(other)


def _own_recording() -> None:
    rr.RecordingStream("own", recording_id="own", send_properties=False).log("n", rr.Scalars(5.0))


def _name() -> None:
    rr.send_recording_name("of a task")
    rr.send_recording_start_time_nanos(7)


def _prefixed(path: Path, urdf: Path) -> None:
    rr.set_time("inner", sequence=1)
    rr.log("log", rr.Scalars(1.0))
    rr.send_columns("columns", [rr.TimeColumn("step", sequence=[1])], rr.Scalars.columns(scalars=[1.0]))
    rr.send_chunks(rr.chunk.RrdReader(path).stream())
    rr.urdf.UrdfTree.from_file_path(urdf).log_urdf_to_recording()
    rr.log_file_from_contents("contents.md", b"# A note")
    rr.log_file_from_path(urdf.with_name("path.md"))


def _outer(path: Path, urdf: Path) -> None:
    # Decorated here, because the decorator looks for the names.
    mpr.task(entity_path_prefix="under")(_prefixed)(path, urdf)
    rr.log("after", rr.Scalars(1.0))


_URDF = '<robot name="robot"><link name="base"><visual><geometry><box size="1 1 1"/></geometry></visual></link></robot>'


def scenarios(removed: str, folder: Path) -> dict[str, bool]:
    """Run the tasks in the only worker of a pool. Returns which promises hold without the private name `removed`."""
    note, urdf, path = folder / "chunks.rrd", folder / "robot.urdf", folder / "run.rrd"
    urdf.write_text(_URDF)
    (folder / "path.md").write_text("# A note")
    with rr.RecordingStream("chunks", send_properties=False) as stream:
        stream.save(note)
        stream.log("chunk", rr.Scalars(1.0))
    with mpr.Pool("app", 1, sinks=path, start_method="fork", telemetry=False) as pool:
        pool.recording.stream.send_recording_name("of the parent")
        pool.apply(_number, (0,))
        pool.apply(_times)
        pool.apply(_number, (10,))
        pool.apply(_outer, (note, urdf))
        pool.apply(_name)
        pool.apply(_own_recording)
        init = pool.apply_async(_init)
        init.wait(60)
        pool.apply(_number, (20,))
        pool.apply(_other_current, (folder,))
        pool.apply(_number, (30,))
        pool.apply(_take_sink, (removed, folder))
        pool.apply(_number, (40,))
        lost = pool.recording.stats().lost_rows
    support.check_file(path)
    numbers = set(support.numbers(path))
    cells = support.cells(path, properties=True)
    own = folder / "run-own.rrd"
    times = {cell.value: dict(cell.times) for cell in cells if cell.entity == "/n"}
    info = {(cell.component, cell.value) for cell in cells if cell.entity == "/__properties"}
    after = next(cell for cell in cells if cell.entity == "/after")
    return {
        "rows": {0, 2, 10} <= numbers and not lost,
        "rr.init": init.successful() and 1 in numbers,
        "rows after rr.init": 20 in numbers,
        "rows after another recording": 30 in numbers,
        "rows after a sink call": 40 in numbers,
        "rows after a with block": _keeps_rows_after_a_block(folder / "block.rrd"),
        "a recording of its own": own.exists() and 5 in support.numbers(own),
        "the name": ("RecordingInfo:name", "['of a task']") not in info,
        "the start": ("RecordingInfo:start_time", "[7]") not in info,
        "times of a task": "leak" not in times["[10.0]"],
        "times of a caller": "inner" not in dict(after.times),
        "prefix": _every_prefix({cell.entity for cell in cells}, folder),
    }


def _keeps_rows_after_a_block(path: Path) -> bool:
    try:
        with mpr.Pool("app", 1, sinks=path, start_method="fork", telemetry=False) as pool:
            pool.apply(_block)
            pool.apply(_number, (50,))
    except mpr.DeliveryError:
        # mpr has noticed that rows are lost.
        return False
    return set(support.numbers(path)) == {3, 4, 50}


def _every_prefix(entities: set[str], folder: Path) -> bool:
    kept = {"/under/log", "/under/columns", "/under/chunk", "/under/robot/visual_geometries/base/visual_0"}
    kept |= {"/under/contents.md", f"/under{rr.new_entity_path(list((folder / 'path.md').parts[1:]))}"}
    return kept <= entities


def _run(name: str, folder: Path) -> dict[str, Any]:
    if name != "nothing":
        remove(name)
    with support.records_of_mpr() as records:
        try:
            found = scenarios(name, folder)
        except Exception:  # told to the test
            return {"error": traceback.format_exc()}
    missing = ["nothing"] if name == "nothing" else [name]
    assert (private_names.missing() or ["nothing"]) == missing
    return {
        "broken": [promise for promise, holds in found.items() if not holds],
        "warned": any(name in each.getMessage() for each in records),
    }


def main(folder: Path, names: list[str]) -> None:
    """Run the scenarios for each name in a process of its own, a few at a time.

    The processes are forked from this one, which has imported everything, and has used nothing of it.
    """
    running: set[int] = set()
    for number, name in enumerate(names):
        if len(running) >= _AT_A_TIME:
            running.discard(os.wait()[0])
        place = folder / str(number)
        place.mkdir()
        pid = os.fork()
        if pid == 0:
            try:
                line = json.dumps({"name": name, **_run(name, place)}) + "\n"
                # One write, because several processes share the output.
                os.write(1, line.encode())
            finally:
                os._exit(0)
        running.add(pid)
    for _ in running:
        os.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

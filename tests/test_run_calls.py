"""`mpr run` skips the destinations that a script chooses, and nothing else of its calls.

The recording of a script under `mpr run` has the same cells and the same blueprints as the file that the script writes
without mpr.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

from mpr.rrd import framing
from tests import support

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UUID_BYTES = re.compile(r"\[(\d+, ){15}\d+\]")


def _run(source: str, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `source` under `mpr run`, which writes `run.rrd`."""
    script = folder / "script.py"
    script.write_text(source)
    command = [sys.executable, "-m", "mpr", "run", "--save", folder / "run.rrd", "--", sys.executable, script]
    ran = subprocess.run(
        [*map(str, command), *map(str, arguments)], capture_output=True, text=True, timeout=110, check=False, cwd=folder
    )
    assert ran.returncode == 0, ran.stderr
    assert "Dropping data" not in ran.stderr
    support.check_file(folder / "run.rrd")
    return ran


def _content(path: Path) -> tuple[Counter[Any], Counter[Any], list[bytes]]:
    """Return the cells of the recording and of the blueprints, and how each blueprint becomes active.

    The ids of blueprints and views are random, so they are left out.
    """
    reader = rr.chunk.RrdReader(path)
    counts: list[Counter[Any]] = []
    for entries in (reader.recordings(), reader.blueprints()):
        found: Counter[Any] = Counter()
        for entry in entries:
            for chunk in reader.stream(store=entry):
                for cell in support.cells_of(str(chunk.entity_path), chunk.to_record_batch()):
                    if cell.component != "RecordingInfo:start_time" and not cell.entity.startswith("/__properties/mpr"):
                        value = _UUID_BYTES.sub("id", _UUID.sub("id", cell.value))
                        times = () if entries and cell.times and cell.times[0][0] == "blueprint" else cell.times
                        found[_UUID.sub("id", cell.entity), cell.component, times, value] += 1
        counts.append(found)
    data = path.read_bytes()
    frames, _ = framing.scan(lambda at, size: data[at : at + size], framing.HEADER_SIZE, len(data))
    # The last two fields: whether to make it active, and whether to make it the default.
    activations = [data[each.payload : each.end][-4:] for each in frames if each.kind == framing.BLUEPRINT_ACTIVATION]
    return counts[0], counts[1], [each[each.find(b"\x10") :] if b"\x10" in each else each[-2:] for each in activations]


_PROGRAMS = {
    "a blueprint with the file": """
import sys, numpy as np, rerun as rr, rerun.blueprint as rrb
rr.init("app")
rr.save(sys.argv[1], default_blueprint=rrb.Blueprint(rrb.TextLogView(origin="/n", name="mine"), collapse_panels=True))
for number in range(10):
    rr.set_time("step", sequence=number)
    rr.log("n", rr.Scalars(float(number)))
""",
    "a blueprint with sinks, and another that is sent": """
import sys, rerun as rr, rerun.blueprint as rrb
rr.init("app")
rr.set_sinks(rr.FileSink(sys.argv[1]), default_blueprint=rrb.TimeSeriesView(origin="/n"))
rr.log("n", rr.Scalars(1.0), static=True)
rr.send_blueprint(rrb.Spatial2DView(origin="/image"), make_active=True, make_default=False)
""",
    "names, properties, columns and files": """
import sys, rerun as rr
rr.init("app")
rr.save(sys.argv[1])
rr.send_recording_name("a name")
rr.send_property("mine", rr.AnyValues(seed=7))
rr.send_columns("c", [rr.TimeColumn("step", sequence=range(5))], rr.Scalars.columns(scalars=range(5)))
rr.log_file_from_contents("note.md", b"# A note")
""",
    "a stream that is the default one": """
import sys, rerun as rr
stream = rr.RecordingStream("app", make_default=True)
stream.save(sys.argv[1])
rr.log("n", rr.Scalars(1.0))
rr.send_chunks(rr.chunk.Chunk.from_columns("k", [], rr.Scalars.columns(scalars=[1.0])))
with stream:
    rr.log("n", rr.Scalars(2.0))
""",
}


@pytest.mark.parametrize("name", _PROGRAMS)
def test_a_script_has_the_same_cells_and_blueprints_as_without_mpr(name: str, tmp_path: Path) -> None:
    source = _PROGRAMS[name]
    plain, never = tmp_path / "plain.rrd", tmp_path / "never.rrd"
    alone = support.run_python(source, plain)
    assert alone.returncode == 0, alone.stderr
    _run(source, tmp_path, never)
    assert not never.exists()
    assert _content(tmp_path / "run.rrd") == _content(plain)


_EVERY_SINK = """
import os, sys, rerun as rr, rerun.blueprint as rrb

def blueprint(name):
    return rrb.Blueprint(rrb.TextLogView(origin="/n", name=name))

made = 0
def log():
    global made
    rr.log("n", rr.Scalars(float(made)))
    made += 1

rr.init("app", spawn=True, default_blueprint=blueprint("init"))
log()
rr.save("never.rrd", default_blueprint=blueprint("save"))
log()
rr.set_sinks(rr.FileSink("never.rrd"), default_blueprint=blueprint("set_sinks"))
log()
rr.connect_grpc("rerun+http://127.0.0.1:1/proxy", default_blueprint=blueprint("connect_grpc"))
log()
url = rr.serve_grpc(grpc_port=1, default_blueprint=blueprint("serve_grpc"))
rr.serve_web_viewer(connect_to=url)
log()
rr.stdout(default_blueprint=blueprint("stdout"))
log()
rr.spawn(default_blueprint=blueprint("spawn"))
log()
stream = rr.binary_stream()
log()
memory = rr.memory_recording()
log()
rr.disconnect()
log()
print(url, type(stream.read()), type(memory.drain_as_bytes()))
"""


def test_every_call_that_chooses_a_destination_keeps_all_rows_and_its_blueprint(tmp_path: Path) -> None:
    ran = _run(_EVERY_SINK, tmp_path)
    assert ran.stdout == "rerun+http://127.0.0.1:1/proxy <class 'bytes'> <class 'bytes'>\n"
    assert not (tmp_path / "never.rrd").exists()
    assert support.numbers(tmp_path / "run.rrd") == Counter(range(10))
    _, blueprints, _ = _content(tmp_path / "run.rrd")
    names = {eval(value)[0] for _, component, _, value in blueprints if component == "ViewBlueprint:display_name"}
    assert names == {"init", "save", "set_sinks", "connect_grpc", "serve_grpc", "stdout", "spawn"}
    said = [line for line in ran.stderr.splitlines() if not line.startswith("mpr run: ")]
    chosen = "does not choose where the rows go: the options of 'mpr run' say where they go"
    calls = ("init(spawn=True)", "save()", "set_sinks()", "connect_grpc()", "serve_grpc()", "stdout()", "spawn()")
    given = "gives no rows: the options of 'mpr run' say where they go"
    assert said == [
        *(f"rr.{call} under 'mpr run' {chosen}" for call in calls),
        *(f"rr.{call} under 'mpr run' {given}" for call in ("binary_stream()", "memory_recording()")),
    ]


_TWO_IDS = """
import subprocess, sys, rerun as rr
source = "import sys, rerun as rr; number = sys.argv[1]; rr.init('app', recording_id=number); "
source += "rr.log('n', rr.Scalars(float(number)))"
if len(sys.argv) == 1:
    for number in ("1", "2"):
        subprocess.run([sys.executable, "-c", source, number], check=True)
    # Without an id of its own, a process has nothing that cannot be kept.
    rr.init("another")
    rr.log("n", rr.Scalars(3.0))
"""


def test_a_process_with_a_recording_id_of_its_own_says_once_that_there_is_one_recording(tmp_path: Path) -> None:
    ran = _run(_TWO_IDS, tmp_path)
    assert support.numbers(tmp_path / "run.rrd") == Counter([1, 2, 3])
    assert re.findall(r"rr\.init\(\) under 'mpr run' chooses the recording id '(\d)'", ran.stderr) == ["1", "2"]
    assert ran.stderr.count("rr.init") == 2


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        (["init('one')", "init('two')", "init('three')"], "init() under 'mpr run' begins another recording"),
        (["init('one', recording_id=rr.get_recording_id())", "init('one')"], "init() under 'mpr run' begins another"),
        (["RecordingStream('a', recording_id='b', make_default=True)"], "RecordingStream(make_default=True) under"),
    ],
)
def test_a_script_that_begins_another_recording_in_a_process_says_so_once(
    calls: list[str], said: str, tmp_path: Path
) -> None:
    steps = [f"kept.append(rr.{call}); rr.log('n', rr.Scalars({number}.0))" for number, call in enumerate(calls, 1)]
    ran = _run("\n".join(["import rerun as rr", "kept = []", "rr.log('n', rr.Scalars(0.0))", *steps]), tmp_path)
    assert support.numbers(tmp_path / "run.rrd") == Counter(range(len(calls) + 1))
    (line,) = [line for line in ran.stderr.splitlines() if not line.startswith("mpr run: ")]
    assert line.startswith(f"rr.{said}")


_CURRENT_BEFORE = """
import os, sys, threading, rerun as rr

def log(number):
    rr.log("n", rr.Scalars(float(number)))

def stream(name):
    return rr.RecordingStream("mine", recording_id=name, send_properties=False)

if sys.argv[1] == "with":
    with stream("with") as saved:
        log(1)
        saved.save("saved.rrd")
        log(2)
elif sys.argv[1] == "thread":
    of_thread = stream("thread")
    rr.set_thread_local_data_recording(of_thread)
    log(1)
    if not os.fork():
        # The stream belongs to the parent, so the child logs to the shared recording.
        log(10)
        sys.exit()
    os.wait()
    log(2)
    rr.set_thread_local_data_recording(None)
elif sys.argv[1] == "all":
    of_all = stream("all")
    rr.set_global_data_recording(of_all)
    log(1)
    thread = threading.Thread(target=log, args=(2,))
    thread.start()
    thread.join()
rr.init("app")
log(20)
"""
_FILE_OF_CURRENT = {"with": ("saved", []), "thread": ("run-thread", [10]), "all": ("run-all", [])}


@pytest.mark.parametrize("way", _FILE_OF_CURRENT)
def test_a_recording_that_is_current_before_a_process_joins_stays_current(way: str, tmp_path: Path) -> None:
    _run(_CURRENT_BEFORE, tmp_path, way)
    name, of_child = _FILE_OF_CURRENT[way]
    assert support.numbers(tmp_path / f"{name}.rrd") == Counter([1, 2])
    assert support.numbers(tmp_path / "run.rrd") == Counter([20, *of_child])


_STREAMS = """
import gc, rerun as rr

def stream(name):
    return rr.RecordingStream("mine", recording_id=name, send_properties=False)

def log(stream, number):
    stream.log("n", rr.Scalars(float(number)))

before = stream("before")
log(before, 1)
rr.init("app")
rr.log("n", rr.Scalars(2.0))
late, short, kept = stream("late"), stream("short"), stream("kept")
for each in (late, short, kept):
    log(each, 3)
del short
gc.collect()
stream("makes the one before it be collected")
# All rows of a stream are in the file that it gets at last.
late.save("late.rrd")
log(late, 4)
with kept:
    rr.log("n", rr.Scalars(5.0))
log(before, 6)
rr.log("n", rr.Scalars(7.0))
# No viewer is started: without mpr, this one is an error.
rr.spawn(executable_name="no-such-viewer", connect=False, recording=kept)
"""


def test_a_stream_of_the_script_itself_has_its_own_sink_or_a_file_beside(tmp_path: Path) -> None:
    ran = _run(_STREAMS, tmp_path)
    found = {path.name: support.numbers(path) for path in sorted(tmp_path.glob("*.rrd"))}
    assert found == {
        "run.rrd": Counter([2, 7]),
        "late.rrd": Counter([3, 4]),
        "run-before.rrd": Counter([1, 6]),
        "run-kept.rrd": Counter([3, 5]),
        "run-short.rrd": Counter([3]),
    }
    assert ran.stderr.count("rr.spawn() under 'mpr run' does not choose where the rows go") == 1
    for name in found:
        # The summary names the files that mpr has written.
        assert (f"mpr run: {name}: " in ran.stderr) == name.startswith("run")


_OF_ITS_OWN = """
import sys, rerun as rr, rerun.blueprint as rrb

def log(stream, number):
    stream.set_time("step", sequence=number)
    stream.log("n", rr.Scalars(float(number)))

stream = rr.RecordingStream("mine")
log(stream, 0)
shown = {"default_blueprint": rrb.Blueprint(rrb.TextLogView(origin="/n", name="mine"))}
if sys.argv[1] == "save":
    stream.save("plain.rrd", **shown)
elif sys.argv[1] == "set_sinks":
    stream.set_sinks(rr.GrpcSink(), rr.GrpcSink("rerun+http://127.0.0.1:1/proxy"), **shown)
elif sys.argv[1] == "current":
    with stream:
        rr.spawn(**shown)
else:
    getattr(stream, sys.argv[1])(**shown)
log(stream, 1)
stream.send_columns("c", [rr.TimeColumn("step", sequence=range(5))], rr.Scalars.columns(scalars=range(5)))
stream.send_recording_name("a name")
stream.send_property("mine", rr.AnyValues(seed=7))
with stream:
    rr.log("n", rr.Scalars(2.0))
"""


@pytest.mark.parametrize("call", ["spawn", "connect_grpc", "serve_grpc", "stdout", "set_sinks", "current"])
def test_a_stream_that_would_show_its_rows_is_the_recording_of_the_command(call: str, tmp_path: Path) -> None:
    ran = _run(_OF_ITS_OWN, tmp_path, call)
    # Without mpr, the same calls with a file.
    alone = subprocess.run(
        [sys.executable, "script.py", "save"], cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False
    )
    assert alone.returncode == 0, alone.stderr
    assert _content(tmp_path / "run.rrd") == _content(tmp_path / "plain.rrd")
    made = "rr.spawn" if call == "current" else f"rr.RecordingStream.{call}"
    said = [line for line in ran.stderr.splitlines() if not line.startswith("mpr run: ")]
    assert [line.partition(" under 'mpr run' does not choose")[0] for line in said] == [f"{made}()"]
    assert {path.name for path in tmp_path.glob("*.rrd")} == {"run.rrd", "plain.rrd"}


_SHOWN_STREAMS = """
import multiprocessing, sys, rerun as rr

def show(name, number):
    stream = rr.RecordingStream("mine", recording_id=name, send_properties=False)
    stream.connect_grpc()
    stream.log("n", rr.Scalars(float(number)))

if __name__ == "__main__":
    if sys.argv[1] == "init":
        rr.init("app")
        rr.log("n", rr.Scalars(0.0))
    show("one", 1)
    show("two", 2)
    show("one", 3)
    for number, method in enumerate(("fork", "spawn", "forkserver"), 4):
        process = multiprocessing.get_context(method).Process(target=show, args=("one", number))
        process.start()
        process.join()
"""
_OF_CHILDREN = [4, 5, 6]


@pytest.mark.parametrize(
    ("way", "numbers"),
    [
        ("stream", {"run": [1, 3, *_OF_CHILDREN], "run-two": [2]}),
        # The child that is forked has the calls of its parent behind it.
        ("init", {"run": [0, 5, 6], "run-one": [1, 3, 4], "run-two": [2]}),
    ],
)
def test_the_first_stream_of_a_process_is_the_recording_of_the_command_and_others_stay_apart(
    way: str, numbers: dict[str, list[int]], tmp_path: Path
) -> None:
    ran = _run(_SHOWN_STREAMS, tmp_path, way)
    found = {path.stem: support.numbers(path) for path in tmp_path.glob("*.rrd")}
    assert found == {name: Counter(each) for name, each in numbers.items()}
    assert "'mine' (two) is another recording than the one of the command, and stays apart" in ran.stderr


_SWITCHED_OFF = """
import sys, rerun as rr
rr.init("app", default_enabled=False)
rr.log("n", rr.Scalars(1.0))
rr.send_columns("n", [rr.TimeColumn("step", sequence=[2])], rr.Scalars.columns(scalars=[2.0]))
print(rr.is_enabled())
rr.init("app")
rr.save(sys.argv[1])
rr.log("n", rr.Scalars(3.0))
stream = rr.RecordingStream("other", make_default=True, default_enabled=False)
rr.log("n", rr.Scalars(4.0))
stream.log("n", rr.Scalars(5.0))
print(rr.is_enabled())
"""


def test_a_recording_that_the_script_switches_off_has_no_rows(tmp_path: Path) -> None:
    ran = _run(_SWITCHED_OFF, tmp_path, "never.rrd")
    assert ran.stdout == "False\nFalse\n"
    assert support.numbers(tmp_path / "run.rrd") == Counter([3])


_TIMES = """
import sys, rerun as rr

def log(number):
    rr.log("n", rr.Scalars(float(number)))

rr.init("app")
rr.save(sys.argv[1])
rr.set_time("step", sequence=5)
log(1)
rr.init("app")
rr.save(sys.argv[1] + "-again")
log(2)
rr.init("app", recording_id="other")
rr.save(sys.argv[1] + "-other")
log(3)
rr.set_time("other", sequence=6)
log(4)
rr.init("app")
rr.save(sys.argv[1] + "-third")
log(5)
rr.init("app", recording_id="other")
rr.save(sys.argv[1] + "-fourth")
log(6)
"""

_TIMES_OF_TWO_THREADS = """
import sys, rerun as rr
from concurrent.futures import ThreadPoolExecutor

def log(number):
    rr.log("n", rr.Scalars(float(number)))

def init(name):
    rr.init("app", recording_id=name)
    rr.save(f"{sys.argv[1]}-{len(made)}")
    made.append(name)

def other(function, *args, **kwargs):
    thread.submit(function, *args, **kwargs).result()

made = []
thread = ThreadPoolExecutor(1)
init("a")
other(rr.set_time, "step", sequence=1)
rr.set_time("step", sequence=2)
init("b")
log(1)
other(rr.set_time, "step", sequence=3)
other(init, "c")
rr.set_time("other", sequence=4)
other(log, 2)
log(3)
init("b")
other(log, 4)
other(init, "a")
log(5)
other(log, 6)
"""


@pytest.mark.parametrize("script", [_TIMES, _TIMES_OF_TWO_THREADS])
def test_a_recording_that_init_begins_has_its_own_times_as_without_mpr(script: str, tmp_path: Path) -> None:
    _run(script, tmp_path, tmp_path / "never.rrd")
    alone = subprocess.run(
        [sys.executable, "script.py", "plain"], cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False
    )
    assert alone.returncode == 0, alone.stderr

    def of_numbers(path: Path) -> Counter[Any]:
        return Counter({cell: count for cell, count in support.cells(path).items() if cell.entity == "/n"})

    plain: Counter[Any] = sum((of_numbers(path) for path in tmp_path.glob("plain*")), Counter())
    assert plain.total() == 6
    assert of_numbers(tmp_path / "run.rrd") == plain

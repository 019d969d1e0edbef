"""What a test or a fixture logs is in the recording of the test, whatever the test does with the SDK."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import support
from tests.pytest_plugin import inner

_CONFTEST = """
import pytest
import rerun as rr

@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "saved.rrd"
    rr.init("of_a_fixture")
    rr.save(path)
    rr.log("by_fixture", rr.TextLog("x"))
    yield path
    rr.disconnect()
"""

_TESTS = """
import os
import pytest
import rerun as rr

def log(name, count=1):
    for number in range(count):
        rr.set_time("number", sequence=number)
        rr.log(name, rr.Scalars(number))

def test_plain():
    log("plain")

def test_init():
    rr.init("app")
    log("init")

def test_golden(mpr_golden):
    log("golden", 3)
    mpr_golden()

def test_init_and_golden(mpr_golden):
    rr.init("app_2")
    log("init_and_golden", 3)
    mpr_golden()

def test_memory():
    rr.init("app_3")
    memory = rr.memory_recording()
    log("memory")
    assert memory.num_msgs() > 0

def test_stream_of_its_own(tmp_path):
    stream = rr.RecordingStream("app_4")
    stream.save(tmp_path / "own.rrd")
    stream.set_time("number", sequence=7)
    stream.log("stream", rr.Scalars(7))

def test_two_streams_with_one_recording_id(tmp_path):
    one, two = (rr.RecordingStream(name, recording_id="id", send_properties=False) for name in ("one", "two"))
    for number, stream in enumerate((one, two)):
        stream.save(tmp_path / f"{number}.rrd")
        stream.set_time(f"time_{number}", sequence=number)
        stream.log("streams", rr.Scalars(number))
    one.reset_time()
    two.log("streams", rr.Scalars(2))

def test_stream_with_the_recording_id_of_the_test(tmp_path):
    rr.set_time("number", sequence=1)
    stream = rr.RecordingStream("app_6", recording_id=rr.get_recording_id(), send_properties=False)
    stream.save(tmp_path / "own.rrd")
    stream.set_time("other", sequence=2)
    stream.log("of_stream", rr.Scalars(2))
    rr.log("of_test", rr.Scalars(1))

def test_chunks_of_a_generator():
    stream = rr.RecordingStream("app_7")
    def chunks():
        for number in range(2):
            yield rr.chunk.Chunk.from_columns("generated", [], rr.Scalars.columns(scalars=[number]))
    rr.send_chunks(chunks(), recording=stream)

def test_chunks(tmp_path):
    rr.init("app_5")
    rr.send_columns("chunks", [rr.TimeColumn("number", sequence=[1, 2])], rr.Scalars.columns(scalars=[1, 2]))

def test_save_without_init(tmp_path):
    log("before")
    rr.save(tmp_path / "taken.rrd")
    log("after")
    rr.disconnect()
    log("later")

def test_crash(mpr_recording):
    log("crash", 100)
    mpr_recording.flush()
    if "CRASH" in os.environ:
        os._exit(1)

def test_saved(saved):
    log("saved")

def test_saved_too(saved):
    log("saved_too")
"""

_ENTITIES = {
    "plain": {"/plain"},
    "init": {"/init"},
    "golden": {"/golden"},
    "init_and_golden": {"/init_and_golden"},
    "memory": {"/memory"},
    "stream_of_its_own": {"/stream"},
    "two_streams_with_one_recording_id": {"/streams"},
    "stream_with_the_recording_id_of_the_test": {"/of_stream", "/of_test"},
    "chunks_of_a_generator": {"/generated"},
    "chunks": {"/chunks"},
    "save_without_init": {"/before", "/after", "/later"},
    "crash": {"/crash"},
    "saved": {"/by_fixture", "/saved"},
    "saved_too": {"/by_fixture", "/saved_too"},
}
_ORDERS = {
    "as written": list(_ENTITIES),
    "backwards": list(_ENTITIES)[::-1],
    "init in the middle": [
        "golden", "saved", "init", "crash", "save_without_init", "init_and_golden", "memory", "chunks", "saved_too",
        "stream_of_its_own", "two_streams_with_one_recording_id", "stream_with_the_recording_id_of_the_test",
        "chunks_of_a_generator", "plain",
    ],
}  # fmt: skip


def _in_order(order: list[str]) -> list[str]:
    return [f"test_own.py::test_{name}" for name in order]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with the tests and their golden recordings."""
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    found = inner.run(tmp_path, "--mpr=off", "--mpr-golden-update", "-k", "golden", test_own=_TESTS)
    assert found.code == 0, found.stdout
    return tmp_path


@pytest.mark.parametrize("order", _ORDERS)
def test_rows_are_in_the_recording_of_their_test(folder: Path, order: str) -> None:
    base = f"--basetemp={folder / 'base'}"
    found = inner.run(folder, "--mpr=on", "-p", "no:randomly", base, *_in_order(_ORDERS[order]))
    assert found.code == 0, found.stdout
    found.check_files()
    for name, entities in _ENTITIES.items():
        nodeid = f"test_own.py::test_{name}"
        assert entities == found.entities(nodeid), name
        assert found.test(nodeid)["complete"] is True
    assert 100 == len(found.cells("test_own.py::test_crash"))
    assert {(("number", 7),)} == {cell.times for cell in found.cells("test_own.py::test_stream_of_its_own")}
    times = {
        "two_streams_with_one_recording_id": [(("time_0", 0),), (("time_1", 1),), (("time_1", 1),)],
        "stream_with_the_recording_id_of_the_test": [(("number", 1),), (("other", 2),)],
        "chunks_of_a_generator": [(), ()],
    }
    for name, expected in times.items():
        assert sorted(cell.times for cell in found.cells(f"test_own.py::test_{name}")) == expected, name
    # The fixture's own file has what it has without mpr.
    (saved,) = (folder / "base").rglob("saved.rrd")
    assert {"/by_fixture", "/saved"} <= {cell.entity for cell in support.cells(saved)}
    (taken,) = (folder / "base").rglob("taken.rrd")
    assert "/after" in {cell.entity for cell in support.cells(taken)}


@pytest.mark.parametrize("workers", [(), ("-n2", "--dist=load")])
def test_a_golden_recording_is_compared_in_any_order(folder: Path, workers: tuple[str, ...]) -> None:
    plugins = ("xdist", "xdist.looponfail") if workers else ()
    for order in _ORDERS.values():
        found = inner.run(folder, "--mpr=on", *workers, *_in_order(order), plugins=plugins)
        assert found.code == 0, found.stdout
    changed = _TESTS.replace("rr.Scalars(number)", "rr.Scalars(number + 1)")
    found = inner.run(folder, "--mpr=on", *workers, plugins=plugins, test_own=changed)
    assert {"test_own.py::test_golden", "test_own.py::test_init_and_golden"} == found.failed()


def test_a_crash_after_rr_init_keeps_the_rows(folder: Path) -> None:
    tests = _in_order(["init", "crash", "plain"])
    plugins = ("xdist", "xdist.looponfail")
    found = inner.run(folder, "--mpr=on", "-n1", *tests, plugins=plugins, env={"CRASH": "1"})
    assert "crashed" == found.test(tests[1])["outcome"]
    assert 100 == len(found.cells(tests[1]))
    assert {"/plain"} == found.entities(tests[2])


def test_every_way_to_log_is_recorded(tmp_path: Path) -> None:
    source = """
import subprocess, sys
import pytest
import rerun as rr
from rerun.urdf import UrdfTree

OF_MODULE = rr.RecordingStream("of_module")
OTHER_PROCESS = '''
import rerun as rr, sys
stream = rr.RecordingStream("other")
stream.save(sys.argv[1])
stream.log("stored", rr.TextLog("x"))
'''

@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "stored.rrd"
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, path], check=True)
    return rr.chunk.RrdReader(path)

def test_stream_of_module():
    OF_MODULE.log("of_module", rr.TextLog("x"))

def test_no_current_recording():
    rr.set_time("number", sequence=1)
    rr.set_global_data_recording(None)
    rr.log("homeless", rr.TextLog("x"))

def test_disabled():
    rr.log("enabled", rr.TextLog("x"))
    rr.RecordingStream("disabled", default_enabled=False).log("dropped", rr.TextLog("x"))
    rr.init("disabled", default_enabled=False)
    rr.log("dropped", rr.TextLog("x"))

def test_lazy_stream(stored, tmp_path):
    calls = []
    own = rr.RecordingStream("own")
    own.save(tmp_path / "own.rrd")
    own.send_chunks(stored.stream().map(lambda chunk: calls.append(1) or chunk))
    own.disconnect()
    chunks = list(rr.chunk.RrdReader(tmp_path / "own.rrd").stream())
    assert 1 == [str(chunk.entity_path) for chunk in chunks].count("/stored")
    assert len(calls) == len(list(stored.stream()))

def test_store(stored):
    rr.RecordingStream("own").send_chunks(stored.store())

def test_robot(tmp_path):
    (tmp_path / "robot.urdf").write_text('<robot name="robot"><link name="base"/></robot>')
    UrdfTree.from_file_path(tmp_path / "robot.urdf").log_urdf_to_recording(rr.RecordingStream("own"))

def test_shut_down():
    rr.log("before", rr.TextLog("x"))
    rr.rerun_shutdown()
    rr.log("after", rr.TextLog("x"))

def test_next():
    rr.log("next", rr.TextLog("x"))
"""
    found = inner.run(tmp_path, "--mpr=on", "-p", "no:randomly", test_ways=source)
    assert found.code == 0, found.stdout
    found.check_files()
    for name, entities in {
        "stream_of_module": {"/of_module"},
        "no_current_recording": {"/homeless"},
        "disabled": {"/enabled"},
        "lazy_stream": {"/stored"},
        "store": {"/stored"},
        "robot": {"/robot"},
        "shut_down": {"/before"},
        "next": {"/next"},
    }.items():
        assert entities == found.entities(f"test_ways.py::test_{name}"), name
    (row,) = found.cells("test_ways.py::test_no_current_recording")
    assert () == row.times
    test = found.test("test_ways.py::test_shut_down")
    assert test["complete"] is False
    assert "rr.rerun_shutdown" in test["notes"][0]


def test_recordings_have_their_own_rows_if_only_a_thread_is_recorded(tmp_path: Path) -> None:
    source = """
import threading
import pytest
import rerun as rr
from tests import support

pytestmark = pytest.mark.mpr(capture="thread")

@pytest.fixture(scope="session")
def saved(pytestconfig):
    stream = rr.RecordingStream("of_a_fixture")
    stream.save(pytestconfig.rootpath / "saved.rrd")
    rr.set_global_data_recording(stream)
    yield stream
    stream.disconnect()

@pytest.mark.parametrize("number", range(2))
def test_saved(saved, number):
    if number:
        rr.set_global_data_recording(saved)
    rr.log(f"saved/{number}", rr.TextLog("x"))
    thread = threading.Thread(target=rr.log, args=(f"thread/{number}", rr.TextLog("x")))
    thread.start()
    thread.join()
    rr.set_global_data_recording(None)

def entities(path):
    return {cell.entity for cell in support.cells(path)}

def test_init(tmp_path):
    rr.init("own")
    rr.save(tmp_path / "own.rrd")
    rr.log("init", rr.TextLog("x"))
    rr.disconnect()
    assert {"/init"} == entities(tmp_path / "own.rrd")
    rr.set_global_data_recording(None)

def test_save(tmp_path):
    rr.save(tmp_path / "own.rrd")
    rr.log("save", rr.TextLog("x"))
    rr.disconnect()
    rr.log("later", rr.TextLog("x"))
    assert not (tmp_path / "own.rrd").exists()

def test_global(tmp_path):
    stream = rr.RecordingStream("own")
    stream.save(tmp_path / "own.rrd")
    rr.set_global_data_recording(stream)
    rr.log("global", rr.TextLog("x"))
    stream.disconnect()
    assert {"/global"} == entities(tmp_path / "own.rrd")
"""
    found = inner.run(tmp_path, "--mpr=on", "-p", "no:randomly", test_thread=source)
    assert found.code == 0, found.stdout
    assert {"/init"} == found.entities("test_thread.py::test_init")
    assert {"/save", "/later"} == found.entities("test_thread.py::test_save")
    assert {"/global"} == found.entities("test_thread.py::test_global")
    for number in range(2):
        assert {f"/saved/{number}"} == found.entities(f"test_thread.py::test_saved[{number}]")
    own = {cell.entity for cell in support.cells(tmp_path / "saved.rrd")}
    assert {"/saved/0", "/saved/1", "/thread/0", "/thread/1"} <= own


_NO_RECORDING = """
import pyarrow
import pytest
import rerun as rr

def save(folder):
    rr.save(folder / "no_folder" / "x.rrd")

def set_sinks(folder):
    rr.set_sinks(rr.FileSink(folder / "no_folder" / "x.rrd"))

def connect(folder):
    rr.connect_grpc("no URL")

def serve(folder):
    assert "[rerun is disabled]" == rr.serve_grpc()

def spawn(folder):
    rr.spawn(executable_path=str(folder / "missing"))

@pytest.mark.parametrize("call", [save, set_sinks, connect, serve, spawn])
def test_sink(call, tmp_path, caplog):
    call(tmp_path)
    assert ["Rerun is disabled"] == [message[:17] for message in caplog.messages]
    rr.log("sink", rr.TextLog("x"))

@pytest.mark.parametrize("call", [rr.memory_recording, rr.binary_stream])
def test_stream(call):
    with pytest.raises(RuntimeError, match="No recording"):
        call()

def test_rows(tmp_path):
    rr.log_file_from_path(tmp_path / "missing.png")
    rr.log_file_from_contents("x.unknown", b"x")
    rr.send_dataframe(pyarrow.table({"column": [1]}))

def test_shown():
    if rr.is_enabled():
        rr.log("shown", rr.TextLog("x"))
"""


def test_a_call_that_needs_a_recording_does_what_it_does_without_the_plugin(tmp_path: Path) -> None:
    without = inner.run(tmp_path, "-W", "error", "-p", "no:mpr", test_none=_NO_RECORDING)
    assert without.code == 0, without.stdout
    found = inner.run(tmp_path, "-W", "error", "--mpr=on", test_none=_NO_RECORDING)
    assert without.reports == found.reports, found.stdout
    for name in ("save", "set_sinks", "connect", "serve", "spawn"):
        assert {"/sink"} == found.entities(f"test_none.py::test_sink[{name}]")
    assert {"/shown"} == found.entities("test_none.py::test_shown")


_WIDE = """
import subprocess, sys, unittest
import numpy as np
import pytest
import rerun as rr

OTHER_PROCESS = '''
import rerun as rr, sys
stream = rr.RecordingStream("other", send_properties=False)
stream.save(sys.argv[1])
stream.log("stored", rr.TextLog("x"))
'''

@pytest.fixture(scope="session", params=["left", "right"])
def side(request):
    rr.log(f"side/{request.param}", rr.TextLog("x"))

@pytest.fixture(scope="module")
def world():
    rr.set_time("number", sequence=5)
    rr.log("world", rr.Points3D([[1, 2, 3]]), rr.AnyValues(note="x"))
    rr.log("world/static", rr.TextLog("x"), static=True)
    rr.send_columns("columns", [rr.TimeColumn("n", sequence=[1, 2])], rr.Scalars.columns(scalars=[1, 2]))
    rr.reset_time()

calls = []

@pytest.fixture(scope="module")
def lazy(tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "stored.rrd"
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, path], check=True)
    chunks = rr.chunk.RrdReader(path).stream().map(lambda chunk: calls.append(1) or chunk)
    rr.send_chunks(chunks)

@pytest.mark.parametrize("number", range(2))
def test_lazy(lazy, number):
    assert 1 == len(calls)

@pytest.fixture(scope="module")
def large():
    rr.log("large", rr.Tensor(np.random.default_rng(0).integers(0, 255, 5_000_000, np.uint8)))

@pytest.fixture(scope="module")
def written_again():
    positions = np.zeros((1, 3), np.float32)
    for number in range(3):
        positions[:] = number
        rr.log("written", rr.Points3D(positions))
        rr.get_global_data_recording().flush()

@pytest.mark.parametrize("number", range(2))
def test_written(written_again, number):
    pass

@pytest.fixture(scope="module")
def chunks_written_again():
    times = np.zeros(1, np.int64)
    values = rr.Scalars.columns(scalars=[0])
    chunk = rr.chunk.Chunk.from_columns("chunks", [rr.TimeColumn("number", sequence=times)], values)
    for number in range(3):
        times[:] = number
        rr.send_chunks(chunk if number == 0 else [chunk])
        rr.get_global_data_recording().flush()

@pytest.mark.parametrize("number", range(2))
def test_chunks_written(chunks_written_again, number):
    pass

@pytest.fixture(scope="module")
def many():
    for number in range(2_001):
        rr.log("many", rr.Scalars(number))

@pytest.mark.parametrize("number", range(3))
def test_world(world, number):
    rr.log("own", rr.Scalars(number))

@pytest.fixture
def requested(request):
    request.getfixturevalue("world")
    rr.set_time("number", sequence=7)

def test_requested(requested):
    rr.log("own", rr.Scalars(1))

def test_golden(world, mpr_golden):
    rr.log("golden", rr.TextLog("x"))
    mpr_golden()

def test_sides(side):
    pass

def test_sides_again(side):
    pass

class TestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        rr.log("of_class", rr.TextLog("x"))

    def test_one(self):
        pass

    def test_two(self):
        pass

class TestOverridden:
    @pytest.fixture
    def world(self):
        return None

    def test_other(self, world):
        rr.log("other", rr.TextLog("x"))

@pytest.mark.parametrize("number", range(2))
def test_large(large, number):
    pass

@pytest.mark.parametrize("number", range(2))
def test_many(many, number):
    pass
"""


@pytest.mark.parametrize("workers", [(), ("-n2", "--dist=load")])
def test_rows_of_a_wide_fixture_are_in_all_its_tests(tmp_path: Path, workers: tuple[str, ...]) -> None:
    plugins = ("xdist", "xdist.looponfail") if workers else ()
    # The golden recording is written by a run in which its test sets the fixture up itself.
    written = inner.run(tmp_path, "--mpr=off", "--mpr-golden-update", "-k", "golden", test_wide=_WIDE)
    assert written.code == 0, written.stdout
    found = inner.run(tmp_path, "--mpr=on", "-p", "no:randomly", *workers, plugins=plugins)
    assert found.code == 0, found.stdout
    found.check_files()
    world = {"/world", "/world/static", "/columns"}
    cells = []
    for number in range(3):
        nodeid = f"test_wide.py::test_world[{number}]"
        assert world | {"/own"} == found.entities(nodeid)
        cells.append([cell for cell in found.cells(nodeid) if cell.entity != "/own"])
        assert [()] == [cell.times for cell in found.cells(nodeid) if cell.entity == "/own"]
    assert cells[0] == cells[1] == cells[2]
    nodeid = "test_wide.py::test_requested"
    assert cells[0] == [cell for cell in found.cells(nodeid) if cell.entity != "/own"]
    assert [(("number", 7),)] == [cell.times for cell in found.cells(nodeid) if cell.entity == "/own"]
    assert {(("number", 5),), (("n", 1),), (("n", 2),), ()} == {cell.times for cell in cells[0]}
    for name in ("test_sides", "test_sides_again"):
        for side in ("left", "right"):
            assert {f"/side/{side}"} == found.entities(f"test_wide.py::{name}[{side}]")
    for number in range(2):
        assert {"/stored"} == found.entities(f"test_wide.py::test_lazy[{number}]")
        rows = found.cells(f"test_wide.py::test_written[{number}]")
        assert [f"[[{float(each)}, {float(each)}, {float(each)}]]" for each in range(3)] == [
            each.value for each in rows
        ]
        rows = found.cells(f"test_wide.py::test_chunks_written[{number}]")
        assert [(("number", each),) for each in range(3)] == [each.times for each in rows]
    for name in ("test_one", "test_two"):
        assert {"/of_class"} == found.entities(f"test_wide.py::TestCase::{name}")
    assert {"/other"} == found.entities("test_wide.py::TestOverridden::test_other")
    if not workers:
        for name in ("large", "many"):
            first, second = (found.test(f"test_wide.py::test_{name}[{number}]") for number in range(2))
            assert (True, []) == (first["complete"], first["notes"])
            assert second["complete"] is False
            assert f"fixture '{name}'" in second["notes"][0]
            assert first["nodeid"] in second["notes"][0]

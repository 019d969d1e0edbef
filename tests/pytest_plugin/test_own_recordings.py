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
    "saved_too": {"/saved_too"},
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
    # The fixture runs for the first of its two tests.
    first = next(name for name in _ORDERS[order] if name.startswith("saved"))
    for name, entities in _ENTITIES.items():
        by_fixture = {"/by_fixture"} if name == first else set()
        nodeid = f"test_own.py::test_{name}"
        assert entities - {"/by_fixture"} | by_fixture == found.entities(nodeid), name
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

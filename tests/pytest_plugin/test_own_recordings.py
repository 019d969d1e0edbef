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
        "stream_of_its_own", "plain",
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

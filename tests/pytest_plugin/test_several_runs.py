"""A process that runs pytest several times has no more threads, files and wrappers after each run."""

from __future__ import annotations

import json
from pathlib import Path

from tests import support

_PROGRAM = """
import json, os, pathlib, sys
import pytest
import rerun as rr, rerun_bindings

def state():
    functions = [getattr(rerun_bindings, name) for name in dir(rerun_bindings)]
    functions += [rerun_bindings.LazyChunkStreamInternal.send_to_recording]
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "files": len(os.listdir("/proc/self/fd")),
        "wrappers": sum(hasattr(each, "__wrapped__") for each in functions),
        "recording": rr.get_recording_id(),
    }

os.chdir(sys.argv[1])
rr.init("own")
rr.save("own.rrd")
found = [state()]
for number in range(4):
    # The recordings of each project have another application id.
    folder = pathlib.Path(f"project{number}")
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\\n")
    (folder / f"test_{number}.py").write_text(sys.argv[2])
    options = ["-q", "-p", "mpr", "-p", "no:cacheprovider", "--mpr=on"]
    assert 0 == pytest.main([*options, f"--mpr-output={folder}/results", str(folder)])
    found.append(state())
    rr.log("between", rr.Scalars(number))
rr.disconnect()
print("STATES", json.dumps(found))
"""
_TESTS = """
import logging
import rerun as rr

def test_one(mpr_recording):
    logging.getLogger("lib").warning("logged")
    rr.log("one", rr.TextLog("x"))

def test_two(tmp_path):
    stream = rr.RecordingStream("two")
    stream.save(tmp_path / "two.rrd")
    stream.log("two", rr.TextLog("x"))
"""


def test_a_run_leaves_no_threads_and_no_wrappers(tmp_path: Path) -> None:
    done = support.run_python(_PROGRAM, tmp_path, _TESTS, env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("STATES "))
    before, *after = json.loads(line.removeprefix("STATES "))
    assert [before] * 4 == after
    assert 0 == before["wrappers"]
    # What the process logs itself is where it was before.
    assert 4 == sum(cell.entity == "/between" for cell in support.cells(tmp_path / "own.rrd").elements())
    recordings = [path for number in range(4) for path in (tmp_path / f"project{number}").rglob("*.rrd")]
    assert 8 == len(recordings)
    assert {"/one", "/two"} == {
        cell.entity for path in recordings for cell in support.cells(path) if not cell.entity.startswith("/pytest/")
    }

"""Golden recordings, tested in separate runs of pytest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mpr.pytest_plugin.recording import file_names
from tests import support
from tests.pytest_plugin import inner
from tests.pytest_plugin.inner import Run

_WALK = """
import os
import rerun as rr, pytest

WRONG = float(os.environ.get("WRONG", 0))

@pytest.fixture
def world():
    rr.log("world", rr.Boxes3D(half_sizes=[[1, 1, 1]]), static=True)

class TestWalk:
    @pytest.mark.parametrize("name", ["a/b", "a:b"])
    def test_walk(self, mpr_golden, world, name):
        print("not what is compared")
        for step in range(10):
            rr.set_time("step", sequence=step)
            rr.log("n", rr.Scalars(step + WRONG * (step >= 7)))
        mpr_golden()

def test_walk(mpr_golden):
    rr.set_time("step", sequence=1)
    rr.log("n", rr.Scalars(1))
    mpr_golden()
"""

_LOCALLY = {"CI": "", "WRONG": ""}


def _goldens(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("__recordings__/**/*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def _run(folder: Path, *arguments: str, **env: str) -> Run:
    plugins = ("xdist",) if any(each.startswith("-n") for each in arguments) else ()
    return inner.run(folder, *arguments, "-q", plugins=plugins, env={"CI": "", **env})


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The first run, which writes the golden recordings."""
    folder = tmp_path_factory.mktemp("walked")
    (folder / "sub").mkdir()
    (folder / "sub" / "test_walk.py").write_text(_WALK)
    return _run(folder, "-n2")


@pytest.fixture
def walk(walked: Run, tmp_path: Path) -> Path:
    """A folder with tests and their golden recordings."""
    shutil.copytree(walked.folder, tmp_path / "walk", ignore=shutil.ignore_patterns("__pycache__", "mpr-results"))
    return tmp_path / "walk"


def test_the_first_run_writes_golden_recordings(walked: Run) -> None:
    assert walked.code == 0, walked.stdout
    written = _goldens(walked.folder)
    # Each test has its own recording beside its file, even if names are alike.
    assert 3 == len(written)
    assert {"sub/__recordings__/test_walk"} == {str(Path(name).parent) for name in written}
    assert 2 == sum(Path(name).name.startswith("TestWalk-test_walk[a-b]-") for name in written)
    for name in written:
        assert f"written: {name}" in walked.stdout
    paths = [walked.folder / name for name in written]
    assert support.rerun_cli("rrd", "verify", *paths).returncode == 0
    for path in paths:
        # The output and the properties of the run are not in it.
        entities = {cell.entity for cell in support.cells(path, properties=True)}
        assert entities == ({"/n", "/world"} if "TestWalk" in path.name else {"/n"})
    # The mode is off: nothing else is left.
    assert not walked.output.exists()


@pytest.mark.parametrize(
    "arguments",
    [("-n2", "--dist=each"), ("--mpr-golden-update", "--mpr=on"), ("--rootdir=sub", "sub/test_walk.py::TestWalk")],
    ids=["xdist", "update", "elsewhere"],
)
def test_the_same_again_passes_and_writes_nothing(walk: Path, arguments: tuple[str, ...]) -> None:
    before = _goldens(walk)
    again = _run(walk, *arguments, CI="true")
    assert again.code == 0, again.stdout
    assert "written:" not in again.stdout
    assert before == _goldens(walk)


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "xdist"])
def test_the_same_rows_give_the_same_bytes(walk: Path, workers: tuple[str, ...]) -> None:
    before = _goldens(walk)
    for name in before:
        (walk / name).unlink()
    again = _run(walk, *workers, PYTHONHASHSEED="7")
    assert again.code == 0, again.stdout
    assert before == _goldens(walk)
    assert support.rerun_cli("rrd", "verify", *(walk / name for name in before)).returncode == 0


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "xdist"])
def test_a_difference_fails_the_test_and_is_described_in_words(walk: Path, workers: tuple[str, ...]) -> None:
    before = _goldens(walk)
    different = _run(walk, *workers, WRONG="0.5")
    assert different.code == 1
    assert "2 failed, 1 passed" in different.stdout
    assert "what the test logged differs from its golden recording:\n" in different.stdout
    assert "  /n: Scalars:scalars: at step=7: 7.0 expected, 7.5 found (and 2 rows more)\n" in different.stdout
    assert "pytest --mpr-golden-update 'sub/test_walk.py::TestWalk::test_walk[a/b]'" in different.stdout
    # The different recording is kept beside a copy of the golden one, and the output names it.
    kept = [path for path in different.files() if not path.stem.endswith("-before")]
    assert (2, 4) == (len(kept), len(different.files()))
    assert all(f"{path.relative_to(walk)}'" in different.stdout for path in kept)
    assert support.rerun_cli("rrd", "verify", *kept).returncode == 0
    assert before == _goldens(walk)


@pytest.mark.parametrize("arguments", [(), ("-n2",), ("-n2", "--dist=each")], ids=["alone", "xdist", "each"])
def test_an_update_writes_only_golden_recordings_that_differ(walk: Path, arguments: tuple[str, ...]) -> None:
    before = _goldens(walk)
    updated = _run(walk, *arguments, "--mpr-golden-update", WRONG="0.5", CI="true")
    assert updated.code == 0, updated.stdout
    after = _goldens(walk)
    changed = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys()
    assert {name for name in before if "TestWalk" in name} == changed
    assert all(f"written: {name}" in updated.stdout for name in changed)
    assert "unused:" not in updated.stdout


def test_an_update_names_golden_recordings_that_no_test_uses(walk: Path) -> None:
    source = walk / "sub" / "test_walk.py"
    source.write_text(source.read_text().replace('"a:b"', '"a-b"'))
    old = f"sub/__recordings__/test_walk/{file_names.stem('TestWalk::test_walk[a:b]')}.rrd"
    assert old in _goldens(walk)
    part = _run(walk, "--mpr-golden-update", "-k", "not a-b")
    assert "unused:" not in part.stdout
    updated = _run(walk, "--mpr-golden-update", "-n2")
    assert f"unused: {old}\n" in updated.stdout
    # The plugin does not remove it.
    assert old in _goldens(walk)


def test_with_ci_set_a_missing_golden_recording_fails_and_is_not_written(walk: Path) -> None:
    shutil.rmtree(walk / "sub" / "__recordings__")
    missing = _run(walk, CI="true")
    assert missing.code == 1
    assert "there is no golden recording sub/__recordings__/test_walk/test_walk-" in missing.stdout
    assert "To write it: pytest --mpr-golden-update sub/test_walk.py::test_walk\n" in missing.stdout
    assert {} == _goldens(walk)
    assert _run(walk, "--mpr-golden-fail-if-missing").code == 1
    assert {} == _goldens(walk)
    (walk / "pytest.ini").write_text("[pytest]\nmpr_golden_fail_if_missing = false\n")
    assert _run(walk, CI="true").code == 0
    assert 3 == len(_goldens(walk))
    (walk / "pytest.ini").write_text("[pytest]\nmpr_golden_fail_if_missing = perhaps\n")
    assert "mpr_golden_fail_if_missing = 'perhaps' is none of: true, false" in _run(walk).stderr


_WAYS = """
import os
import numpy as np, rerun as rr, pytest
from mpr.errors import ConfigError

WRONG = float(os.environ.get("WRONG") or 0)

def test_summary(mpr_golden):
    rr.log("n", rr.Scalars(WRONG))
    mpr_golden(level="summary")

def test_timeline(mpr_golden):
    rr.set_time("clock", duration=WRONG)
    rr.log("n", rr.Scalars(1))
    mpr_golden(ignore_timelines=["clock"])

def test_entity(mpr_golden):
    rr.log("n", rr.Scalars(1))
    rr.log("noise/deep", rr.Scalars(WRONG))
    mpr_golden(ignore_entities=["/noise/**"])

def test_tolerance(mpr_golden):
    rr.log("n", rr.Scalars(1 + WRONG * 1e-6))
    mpr_golden(tolerance=1e-3)

def test_parts(mpr_golden):
    rr.log("n", rr.Scalars(1))
    mpr_golden(name="first")
    rr.log("n", rr.Scalars(WRONG))
    mpr_golden(name="second")

def test_uncalled(mpr_golden):
    rr.log("n", rr.Scalars(WRONG))

def test_fails_by_itself(mpr_golden):
    rr.log("n", rr.Scalars(WRONG))
    assert not WRONG

def test_skips(mpr_golden):
    rr.log("n", rr.Scalars(WRONG))
    if WRONG:
        pytest.skip("not now")

def test_level(mpr_golden):
    rr.log("n", rr.Scalars(1))
    mpr_golden()
    with pytest.raises(ConfigError, match="use 'summary' or 'values'"):
        mpr_golden(level="rows", name="other")
"""


def test_the_test_chooses_what_is_compared(tmp_path: Path) -> None:
    first = inner.run(tmp_path, "-q", env=_LOCALLY, test_ways=_WAYS)
    assert first.code == 0, first.stdout
    assert 10 == len(_goldens(tmp_path))
    wrong = _run(tmp_path, "-rA", "-k", "not level", WRONG="1")
    passed = {each[0].rpartition("::")[2] for each in wrong.reports if each[1:3] == ["call", "passed"]}
    assert {"test_summary", "test_timeline", "test_entity", "test_tolerance", "test_uncalled"} == passed
    assert "2 failed, 5 passed, 1 skipped, 1 deselected, 1 error" in wrong.stdout
    # A second call compares at once. A test without a call is compared at its end. A test that has failed or was
    # skipped is not compared.
    assert 2 == wrong.stdout.partition("short test summary")[0].count("differs from its golden recording")
    assert "test_parts-second-" in wrong.stdout
    assert "ERROR test_ways.py::test_uncalled" in wrong.stdout
    assert "FAILED test_ways.py::test_fails_by_itself - assert not 1.0" in wrong.stdout


_REFUSED = """
import rerun as rr

def test_twice(mpr_golden):
    rr.log("n", rr.Scalars(1))
    mpr_golden()
    mpr_golden()

def test_nothing(mpr_golden):
    mpr_golden()

def test_taken(mpr_golden, mpr_recording, tmp_path):
    mpr_recording.save(tmp_path / "own.rrd")
    rr.log("n", rr.Scalars(1))
    mpr_golden()
"""


def test_a_recording_that_cannot_be_compared_fails_with_the_reason(tmp_path: Path) -> None:
    refused = inner.run(tmp_path, "-q", env=_LOCALLY, test_refused=_REFUSED)
    assert "3 failed" in refused.stdout
    assert "this test has logged nothing that could be compared" in refused.stdout
    assert "this test has compared a recording with no name already: give each its own" in refused.stdout
    assert "the test has given its recording another sink" in refused.stdout
    assert ["test_twice"] == [Path(name).stem.rpartition("-")[0] for name in _goldens(tmp_path)]
    off = _run(tmp_path, "-k", "twice", RERUN="off")
    assert "mpr_golden: this test is not recorded: nothing is recorded: RERUN=off is set" in off.stdout


def test_a_golden_recording_that_cannot_be_written_fails_with_the_reason(walk: Path) -> None:
    path = walk / min(_goldens(walk))
    path.unlink()
    path.mkdir()
    found = _run(walk, "--mpr-golden-update")
    assert "1 failed, 2 passed" in found.stdout
    assert f"mpr_golden: cannot write {path.relative_to(walk)}: Is a directory" in found.stdout
    # A file is where the folder of the golden recordings would be.
    shutil.rmtree(path.parent)
    path.parent.write_text("")
    found = _run(walk, "--mpr-golden-update")
    assert "3 failed" in found.stdout
    assert 3 == found.stdout.partition("short test summary")[0].count("mpr_golden: cannot write")
    assert "[Errno" not in found.stdout


_POOLED = """
import os
import rerun as rr

def number(n):
    rr.set_time("step", sequence=n)
    rr.log("n", rr.Scalars(n + (n == 3) * float(os.environ.get("WRONG") or 0)))

def test_pooled(mpr_golden, mpr_pool):
    mpr_pool(processes=2).map(number, range(20))
    mpr_golden()
"""


def test_rows_of_other_processes_count(tmp_path: Path) -> None:
    assert inner.run(tmp_path, "-q", env=_LOCALLY, test_pooled=_POOLED).code == 0
    (name,) = _goldens(tmp_path)
    assert dict.fromkeys(range(20), 1) == support.numbers(tmp_path / name)
    # The order of the rows and the workers may differ.
    again = _run(tmp_path, CI="true")
    assert again.code == 0, again.stdout
    assert "/n: Scalars:scalars: at step=3: 3.0 expected, 4.0 found" in _run(tmp_path, WRONG="1").stdout


_DYING = """
import os, pathlib, signal
import rerun as rr

def test_dies(mpr_golden):
    rr.log("n", rr.Scalars(1))
    if os.environ.get("DIE"):
        # The moment at which everything is written but has not its name.
        pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    mpr_golden()
"""


def test_a_crash_leaves_no_part_of_a_golden_recording(tmp_path: Path) -> None:
    died = inner.run(
        tmp_path, "-q", "-n1", "--max-worker-restart=0", plugins=("xdist",), env={**_LOCALLY, "DIE": "1"},
        test_dying=_DYING,
    )  # fmt: skip
    assert died.code == 1
    assert "worker 'gw0' crashed" in died.stdout
    assert not list(tmp_path.rglob("__recordings__/**/*.rrd"))
    assert _run(tmp_path).code == 0
    assert 1 == len(_goldens(tmp_path))
    assert _run(tmp_path, CI="true").code == 0


_IN_ANY_ORDER = """
import os
import rerun as rr

def test_order(mpr_golden):
    order = (1, 2, 3) if os.environ.get("ORDER") else (3, 1, 2)
    for value in order:
        rr.set_time("step", sequence=7)
        rr.log("n", rr.Scalars(value))
    rr.reset_time()
    for value in order:
        rr.log("untimed", rr.Scalars(value))
        rr.get_global_data_recording().flush()
    mpr_golden()
"""


def test_rows_of_one_time_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    found = []
    for order in ("", "1"):
        assert inner.run(tmp_path / f"o{order}", "-q", env={**_LOCALLY, "ORDER": order}, test_o=_IN_ANY_ORDER).code == 0
        found.append(_goldens(tmp_path / f"o{order}"))
    assert found[0] == found[1]


_ONLY_TICKS = """
import rerun as rr

def test_ticks(mpr_golden):
    rr.set_log_time_enabled(False)
    rr.set_log_tick_enabled(True)
    rr.log("n", rr.Scalars(1))
    mpr_golden()
"""


def test_a_row_whose_only_time_is_the_tick_does_not_become_static(tmp_path: Path) -> None:
    assert inner.run(tmp_path, "-q", env=_LOCALLY, test_ticks=_ONLY_TICKS).code == 0
    (name,) = _goldens(tmp_path)
    assert [False] == [each.is_static for each in support.chunks(tmp_path / name) if each.entity_path == "/n"]
    assert _run(tmp_path, CI="true").code == 0

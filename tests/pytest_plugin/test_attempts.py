"""Tests that run again: by plugins, in another worker, or many times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pytest_plugin import inner

_XDIST = ("xdist", "xdist.looponfail")

_FLAKY = """
import os
import pytest, rerun as rr

@pytest.fixture
def fixture():
    rr.log("setup", rr.TextLog("x"))

def test_passes_at_last(fixture, request, counter=[0]):
    counter[0] += 1
    rr.log(f"attempt/{counter[0]}", rr.TextLog("x"))
    names = [name for name, _ in request.node.user_properties]
    assert names.count("mpr_recording") <= 1
    assert counter[0] == 3

def test_passes(fixture):
    pass

def test_fails(fixture):
    assert False
"""


@pytest.mark.edge(21, 23, 57)
@pytest.mark.parametrize(
    ("mode", "kept"),
    [
        ("on", {"test_passes_at_last": 3, "test_passes": 1, "test_fails": 4}),
        ("retain-on-failure", {"test_passes_at_last": 2, "test_fails": 4}),
        ("retain-on-failure-and-retries", {"test_passes_at_last": 3, "test_fails": 4}),
        ("on-first-retry", {"test_passes_at_last": 1, "test_fails": 1}),
    ],
)
def test_rerunfailures(tmp_path: Path, mode: str, kept: dict[str, int]) -> None:
    found = inner.run(
        tmp_path / "with", "--reruns=3", "-rR", f"--mpr={mode}", plugins=("rerunfailures",), test_flaky=_FLAKY
    )
    counts: dict[str, int] = {}
    for name in found.kept():
        counts[name.split()[0]] = counts.get(name.split()[0], 0) + 1
    assert kept == counts
    found.check_files()
    nodeid = "test_flaky.py::test_passes_at_last"
    for attempt in range(3):
        if (nodeid, attempt) in found.tests and found.test(nodeid, attempt)["path"]:
            assert {"/setup", f"/attempt/{attempt + 1}"} == found.entities(nodeid, attempt)
    if mode == "on":
        assert {"test_flaky.py-test_passes_at_last"} == {
            path.name[: len("test_flaky.py-test_passes_at_last")] for path in found.files() if "at_last" in path.name
        }
        assert ["failed", "failed", "passed"] == [found.test(nodeid, attempt)["outcome"] for attempt in range(3)]
        without = inner.run(
            tmp_path / "without", "--reruns=3", "-rR", "-p", "no:mpr", plugins=("rerunfailures",), test_flaky=_FLAKY
        )
        assert without.reports == found.reports
        assert without.masked() == found.masked()
        assert without.code == found.code


@pytest.mark.edge(22)
@pytest.mark.parametrize(
    ("plugin", "arguments"),
    [("pytest-retry", ["--retries=2"]), ("flaky", ["--force-flaky", "--max-runs=3"])],
)
def test_other_plugins_that_run_tests_again(tmp_path: Path, plugin: str, arguments: list[str]) -> None:
    found = inner.run(tmp_path / "with", *arguments, "--mpr=on", plugins=(plugin,), test_flaky=_FLAKY)
    found.check_files()
    nodeid = "test_flaky.py::test_passes_at_last"
    assert ["failed", "failed", "passed"] == [found.test(nodeid, attempt)["outcome"] for attempt in range(3)]
    assert "/attempt/2" in found.entities(nodeid, 1)
    without = inner.run(tmp_path / "without", *arguments, "-p", "no:mpr", plugins=(plugin,), test_flaky=_FLAKY)
    assert (without.code, without.reports) == (found.code, found.reports)


@pytest.mark.edge(22)
def test_forked_and_repeated(tmp_path: Path) -> None:
    source = """
import os, signal, rerun as rr

def test_logs():
    rr.log("x", rr.TextLog("x"))

def test_dies():
    rr.log("y", rr.TextLog("y"))
    rr.get_global_data_recording().flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    found = inner.run(
        tmp_path, "--forked", "--count=2", "--mpr=on", plugins=("pytest_forked", "pytest_repeat"), test_forked=source
    )
    found.check_files()
    assert 4 == len(found.files())
    for number in ("1-2", "2-2"):
        assert {"/x"} == found.entities(f"test_forked.py::test_logs[{number}]")
        assert "crashed" == found.test(f"test_forked.py::test_dies[{number}]")["outcome"]
        assert {"/y"} == found.entities(f"test_forked.py::test_dies[{number}]")


@pytest.mark.edge(19)
def test_a_crash_is_run_again(tmp_path: Path) -> None:
    source = """
import os, pathlib, rerun as rr

def test_crashes_once():
    first = not pathlib.Path("crashed").exists()
    pathlib.Path("crashed").touch()
    rr.log("first" if first else "second", rr.TextLog("x"))
    rr.get_global_data_recording().flush()
    if first:
        os._exit(1)
"""
    found = inner.run(
        tmp_path, "-n1", "--reruns=1", "--mpr=on", plugins=(*_XDIST, "rerunfailures"), test_once=source, timeout=120
    )
    found.check_files()
    outcomes = {attempt: test["outcome"] for (_, attempt), test in found.tests.items()}
    assert {0: "crashed", 1: "passed"} == outcomes
    assert {"/second"} == found.entities("test_once.py::test_crashes_once", 1)


_GROUPS = """
import pytest, rerun as rr

@pytest.mark.xdist_group("a@b")
@pytest.mark.parametrize("n", ["x", "y@z", "v"])
def test_grouped(n):
    rr.log(f"n/{n}", rr.TextLog("x"))
"""
_GROUPED = {"test_grouped[x] 0", "test_grouped[y@z] 0", "test_grouped[v] 0"}


@pytest.mark.edge(13, 14, 15, 58)
@pytest.mark.parametrize("dist", ["load", "loadscope", "loadfile", "worksteal", "loadgroup", "each", "n0", "no:xdist"])
def test_distributions(tmp_path: Path, dist: str) -> None:
    if dist == "no:xdist":
        found = inner.run(tmp_path, "-p", "no:xdist", "--mpr=on", test_groups=_GROUPS)
    elif dist == "n0":
        found = inner.run(tmp_path, "-n0", "--mpr=on", plugins=_XDIST, test_groups=_GROUPS)
    else:
        number = "--tx=2*popen" if dist == "each" else "-n2"
        found = inner.run(tmp_path, number, f"--dist={dist}", "--mpr=on", plugins=_XDIST, test_groups=_GROUPS)
    assert 0 == found.code, found.stdout
    found.check_files()
    names = {path.name for path in found.files()}
    stems = {"test_groups.py-test_grouped[x]", "test_groups.py-test_grouped[y-z]", "test_groups.py-test_grouped[v]"}
    assert stems == {name[: name.index("]") + 1] for name in names}
    if dist == "each":
        assert 6 == len(names)
        assert 3 == sum("-gw0.rrd" in name for name in names) == sum("-gw1.rrd" in name for name in names)
    else:
        assert 3 == len(names)
        # The names are the same in every way of distribution.
        assert "test_groups.py-test_grouped[x]-5e31ced6.rrd" in names


@pytest.mark.edge(58)
def test_names_do_not_depend_on_the_order(tmp_path: Path) -> None:
    source = "import pytest\n@pytest.mark.parametrize('n', range(12))\ndef test_n(n): pass\n"
    found = [
        inner.run(tmp_path / str(seed), "--mpr=on", f"--randomly-seed={seed}", plugins=("randomly",), test_n=source)
        for seed in (1, 2)
    ]
    assert [path.name for path in found[0].files()] == [path.name for path in found[1].files()]
    assert found[0].kept() != found[1].kept()


@pytest.mark.edge(24)
def test_a_mistyped_option_of_another_plugin(tmp_path: Path) -> None:
    texts = [
        inner.run(
            tmp_path, "--rerun", "1", *arguments, plugins=("rerunfailures",), test_x="def test_x(): pass\n"
        ).stderr
        for arguments in ((), ("-p", "no:mpr"))
    ]
    assert texts[0] == texts[1]
    assert "--rerun" in texts[0]

"""Workers and processes that die while they run a test."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests import support
from tests.pytest_plugin import inner
from tests.pytest_plugin.inner import Run

_CRASHES = """
import ctypes, os, signal
import pytest, rerun as rr

HOW = {
    "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sigsegv": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit0": lambda: os._exit(0),
}


@pytest.fixture
def around(request):
    rr.log("before", rr.TextLog("x"))
    if "in_setup" in request.node.name:
        HOW["sigkill"]()
    yield
    rr.log("after", rr.TextLog("x"))
    if "in_teardown" in request.node.name:
        HOW["sigkill"]()


def test_fine(around):
    rr.log("call", rr.TextLog("x"))


@pytest.mark.parametrize("how", HOW)
def test_crash(around, how):
    rr.log("call", rr.TextLog("x"))
    rr.get_global_data_recording().flush()
    HOW[how]()


def test_in_setup(around):
    pass


def test_in_teardown(around):
    rr.log("call", rr.TextLog("x"))


def test_nothing_logged():
    HOW["sigkill"]()
"""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("crashed")
    return inner.run(
        folder, "-n2", "--mpr=retain-on-failure", "--junitxml=junit.xml", plugins=("xdist", "xdist.looponfail"),
        test_crashes=_CRASHES,
    )  # fmt: skip


@pytest.mark.edge(16, 17)
def test_the_recording_of_a_crashed_test_is_repaired(crashed: Run) -> None:
    names = ["sigkill", "sigsegv", "abort", "exit0"]
    wanted = {f"test_crash[{name}] 0" for name in names} | {
        "test_in_setup 0", "test_in_teardown 0", "test_nothing_logged 0",
    }  # fmt: skip
    assert wanted == set(crashed.kept())
    assert {"crashed"} == {each["outcome"] for each in crashed.manifest["tests"] if each["path"]}
    crashed.check_files()
    for name in names:
        nodeid = f"test_crashes.py::test_crash[{name}]"
        assert ["setup", "call"] == crashed.texts(nodeid, "phase")
        assert {"/before", "/call"} == crashed.entities(nodeid)
        (note,) = crashed.texts(nodeid, "notes")
        assert "has died during the call" in note
    assert ["setup"] == crashed.texts("test_crashes.py::test_in_setup", "phase")
    # Rows of earlier phases were flushed.
    assert {"/before", "/call"} <= crashed.entities("test_crashes.py::test_in_teardown")
    assert ["setup", "call", "teardown"] == crashed.texts("test_crashes.py::test_in_teardown", "phase")


@pytest.mark.edge(16, 46)
def test_the_terminal_and_junit_say_where_it_is(crashed: Run) -> None:
    failures = {}
    for case in ElementTree.parse(crashed.folder / "junit.xml").findall(".//testcase"):
        found = case.find("error") if case.find("error") is not None else case.find("failure")
        if found is not None:
            failures[case.attrib["name"]] = found.text or ""
    assert 7 == len(failures)
    for nodeid, test in [(each["nodeid"], each) for each in crashed.manifest["tests"] if each["path"]]:
        path = Path(test["path"]).relative_to(crashed.folder)
        assert f"mpr recording: {path}" in failures[nodeid.rpartition("::")[2]]
        assert f"CRASHED {nodeid}" in crashed.stdout
        assert str(path) in crashed.stdout.partition("= mpr recordings =")[2]


@pytest.mark.edge(18)
def test_no_worker_is_restarted(tmp_path: Path) -> None:
    found = inner.run(
        tmp_path, "-n1", "--max-worker-restart=0", "--mpr=on", "-k", "sigkill", plugins=("xdist", "xdist.looponfail"),
        test_crashes=_CRASHES,
    )  # fmt: skip
    assert ["test_crash[sigkill] 0"] == found.kept()
    found.check_files()
    assert "INTERNALERROR" not in found.stdout


@pytest.mark.edge(20)
def test_a_crash_at_import(tmp_path: Path) -> None:
    found = inner.run(
        tmp_path, "-n1", "--max-worker-restart=0", "--mpr=on", plugins=("xdist", "xdist.looponfail"),
        test_import="import os\nif 'PYTEST_XDIST_WORKER' in os.environ:\n    os._exit(1)\ndef test_x(): pass\n",
    )  # fmt: skip
    assert [] == found.files()
    assert found.code != 0
    assert "INTERNALERROR" not in found.stdout


@pytest.mark.edge(25)
@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_run_that_ends_itself_is_recovered(tmp_path: Path, workers: str) -> None:
    """The thread method of pytest-timeout ends the whole process."""
    found = inner.run(
        tmp_path, workers, "--mpr=on", "--timeout-method=thread",
        plugins=("xdist", "xdist.looponfail", "timeout"),
        test_hangs="""
import pytest, time, rerun as rr

def test_fine():
    pass

@pytest.mark.timeout(3)
def test_hangs():
    rr.log("call", rr.TextLog("x"))
    rr.get_global_data_recording().flush()
    time.sleep(600)
""",
    )  # fmt: skip
    assert found.code != 0
    if workers == "-n0":
        recovered = support.run_python(
            "import sys; from mpr.cli import main; main(['recover', sys.argv[1]])", found.output
        )
        assert recovered.returncode == 0, recovered.stderr
        assert 2 == len(found.files())
    else:
        assert ["test_fine 0", "test_hangs 0"] == found.kept()
    found.check_files()
    (hanging,) = [path for path in found.files() if "test_hangs.py-test_hangs" in path.name]
    assert {"/call"} == {cell.entity for cell in support.cells(hanging) if not cell.entity.startswith("/pytest")}


@pytest.mark.edge(25, 26)
def test_a_timeout_by_signal(tmp_path: Path) -> None:
    found = inner.run(
        tmp_path, "--mpr=on", "--timeout-method=signal", plugins=("timeout",),
        test_hangs="""
import pytest, time, rerun as rr

@pytest.mark.timeout(3)
def test_hangs():
    rr.log("call", rr.TextLog("x"))
    time.sleep(600)

def test_next():
    rr.log("next", rr.TextLog("x"))
""",
    )  # fmt: skip
    assert {"failed", "passed"} == {each["outcome"] for each in found.manifest["tests"]}
    assert {"/call"} == found.entities("test_hangs.py::test_hangs")
    assert "Timeout" in found.texts("test_hangs.py::test_hangs", "failure")[0]
    assert {"/next"} == found.entities("test_hangs.py::test_next")
    found.check_files()


_INTERRUPTS = """
import os, pytest, rerun as rr

def end():
    rr.log("then", rr.TextLog("x"))
    if os.environ["HOW"] == "interrupt":
        raise KeyboardInterrupt
    pytest.exit("enough", returncode=7)

@pytest.fixture
def around():
    if os.environ["WHEN"] == "setup":
        end()
    yield
    if os.environ["WHEN"] == "teardown":
        end()

def test_ends(around):
    if os.environ["WHEN"] == "call":
        end()

def test_never():
    pass
"""


@pytest.mark.edge(27)
@pytest.mark.parametrize(
    ("how", "when"),
    [("interrupt", "setup"), ("interrupt", "call"), ("interrupt", "teardown"), ("exit", "setup"), ("exit", "call")],
)
def test_interrupts(tmp_path: Path, how: str, when: str) -> None:
    found = inner.run(tmp_path, "--mpr=retain-on-failure", env={"HOW": how, "WHEN": when}, test_interrupts=_INTERRUPTS)
    assert {"interrupt": 2, "exit": 7}[how] == found.code
    assert ["test_ends 0"] == found.kept()
    (ended,) = [each for each in found.manifest["tests"] if each["nodeid"].endswith("::test_ends")]
    assert "interrupted" == ended["outcome"]
    assert {"/then"} == found.entities("test_interrupts.py::test_ends")
    found.check_files()


@pytest.mark.edge(28)
def test_the_first_failure_ends_the_run(tmp_path: Path) -> None:
    source = "import pytest\n@pytest.mark.parametrize('n', range(20))\ndef test_n(n): assert n % 3\n"
    for arguments in (("-x",), ("-n2", "--maxfail=2")):
        folder = tmp_path / arguments[0]
        found = inner.run(
            folder, *arguments, "--mpr=retain-on-failure", plugins=("xdist", "xdist.looponfail"), test_n=source
        )
        failed = [each for each in found.manifest["tests"] if each["path"]]
        assert failed
        assert {"failed"} == {each["outcome"] for each in failed}
        found.check_files()

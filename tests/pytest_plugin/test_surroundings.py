"""The plugin beside other plugins, in odd folders, with odd options, and with pools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import support
from tests.pytest_plugin import inner

_XDIST = ("xdist", "xdist.looponfail")
_ONE = "import rerun as rr\ndef test_one():\n    rr.log('one', rr.TextLog('x'))\n"
_FAILS = _ONE + "def test_fails():\n    assert False\n"


# --- processes of a test --------------------------------------------------------------------------------------------

_POOLS = """
import multiprocessing, os, signal
import mpr, pytest, rerun as rr

def work(number):
    rr.log(f"work/{number}", rr.Scalars(number))
    return number

@mpr.task
def task(number):
    rr.log(f"task/{number}", rr.Scalars(number))

def die(number):
    os.kill(os.getpid(), signal.SIGKILL)

@pytest.fixture(scope="session")
def wide():
    with mpr.Pool("another_app", 1) as pool:
        yield pool

def test_fixture(mpr_pool):
    first, second = mpr_pool(1), mpr_pool(1)
    assert first.map(work, range(2)) == [0, 1]
    assert second.map(work, range(2, 4)) == [2, 3]

def test_own_pool():
    with mpr.Pool("another_app", 1) as pool:
        assert pool.map(work, range(2)) == [0, 1]

@pytest.mark.parametrize("number", [10, 11])
def test_wide(wide, number):
    assert wide.apply(work, (number,)) == number

@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_process(method):
    process = multiprocessing.get_context(method).Process(target=task, args=(7,))
    process.start()
    process.join()
    assert process.exitcode == 0

def test_worker_dies(mpr_pool):
    pool = mpr_pool(1)
    assert pool.apply(work, (1,)) == 1
    with pytest.raises(mpr.WorkerDiedError):
        pool.apply(die, (1,))

def test_left_open():
    global left
    left = mpr.Pool("another_app", 1)
    assert left.apply(work, (1,)) == 1

def test_after():
    left.terminate()
"""


@pytest.mark.edge(35, 36, 37)
@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_pools_and_children_log_into_the_recording(tmp_path: Path, workers: str) -> None:
    found = inner.run(tmp_path, workers, "--mpr=on", plugins=_XDIST, test_pools=_POOLS)
    assert 0 == found.code, found.stdout
    found.check_files()
    logged = {nodeid.rpartition("::")[2]: found.entities(nodeid) for nodeid, _ in found.tests}
    assert {
        "test_fixture": {f"/work/{number}" for number in range(4)},
        "test_own_pool": {"/work/0", "/work/1"},
        "test_wide[10]": {"/work/10"},
        "test_wide[11]": {"/work/11"},
        **{f"test_process[{method}]": {"/task/7"} for method in ("fork", "spawn", "forkserver")},
        "test_worker_dies": {"/work/1"},
        "test_left_open": {"/work/1"},
        "test_after": set(),
    } == logged
    (note,) = found.test("test_pools.py::test_left_open")["notes"]
    assert "still open" in note


@pytest.mark.edge(33, 55)
@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python warns of forks in processes with threads since 3.12")
def test_the_plugin_adds_no_warning_of_a_fork_and_hides_none(tmp_path: Path) -> None:
    source = """
import os, threading, pytest

def fork():
    if os.fork() == 0:
        os._exit(0)

def test_fork():
    fork()

def test_fork_with_a_thread_of_its_own():
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        with pytest.warns(DeprecationWarning):
            fork()
    finally:
        end.set()
        thread.join()

def test_fork_again():
    fork()
"""
    found = inner.run(tmp_path, "-W", "error", "--mpr=on", test_forks=source)
    assert 0 == found.code, found.stdout


# --- options --------------------------------------------------------------------------------------------------------


def test_nothing_is_imported_while_it_is_off(tmp_path: Path) -> None:
    source = """
import sys
def test_nothing():
    ours = {name for name in sys.modules if name.partition(".")[0] in ("mpr", "rerun", "zmq", "numpy", "pyarrow")}
    assert ours == {"mpr", "mpr.pytest_plugin", "mpr.pytest_plugin.options", "mpr.pytest_plugin.hookspecs"}
"""
    found = inner.run(tmp_path, test_off=source)
    assert 0 == found.code, found.stdout
    assert not found.output.exists()


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_fixtures_and_marker_while_it_is_off(tmp_path: Path, workers: str) -> None:
    source = """
import mpr, pytest, rerun as rr

def work(number):
    rr.log("work", rr.Scalars(number))
    return number

def test_fixtures(mpr_recording, mpr_artifacts, mpr_pool):
    mpr_recording.log("x", rr.TextLog("x"))
    assert mpr_artifacts.is_dir()
    assert mpr_pool(1).apply(work, (1,)) == 1

@pytest.mark.mpr(mode="on", application_id="my app", name="a/name")
def test_marked(mpr_recording, mpr_artifacts):
    mpr_recording.log("x", rr.TextLog("x"))
    (mpr_artifacts / "notes.txt").write_text("mine")

def test_unmarked():
    assert rr.get_global_data_recording() is None
"""
    found = inner.run(tmp_path, workers, plugins=_XDIST, test_off=source)
    assert 0 == found.code, found.stdout
    assert ["test_marked 0"] == found.kept()
    path = found.path("test_off.py::test_marked")
    assert "a-name.rrd" == path.name
    assert {"/x"} == found.entities("test_off.py::test_marked")
    (entry,) = support.rr.chunk.RrdReader(path).recordings()
    assert "my app" == entry.application_id
    assert "mine" == (path.with_suffix("") / "notes.txt").read_text()


@pytest.mark.parametrize(
    ("marker", "words"),
    [("color='red'", "no argument 'color'"), ("mode='sometimes'", "is none of"), ("'on'", "keyword arguments only")],
)
def test_a_marker_that_cannot_be_used(tmp_path: Path, marker: str, words: str) -> None:
    source = f"import pytest\n@pytest.mark.mpr({marker})\ndef test_x(): pass\n"
    found = inner.run(tmp_path, test_marker=source)
    assert 4 == found.code
    assert words in found.stderr
    in_worker = inner.run(tmp_path, "-n1", "--mpr=on", plugins=_XDIST)
    assert "INTERNALERROR" not in in_worker.stdout
    assert words in in_worker.stdout


def test_settings_in_the_configuration_file_and_hooks(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmpr = retain-on-failure\nmpr_output = out/put\nmpr_summary = all\nmpr_application_id = ini app\n"
    )
    (tmp_path / "conftest.py").write_text(
        "def pytest_mpr_recording_name(item, attempt):\n    return f'{item.name} attempt {attempt}'\n"
        "def pytest_mpr_recording_finished(item, path, outcome, complete):\n"
        "    (path.parent.parent / 'note').write_text(f'{item.name} {path.name} {outcome} {complete}')\n"
    )
    found = inner.run(tmp_path, test_x=_FAILS)
    (path,) = (tmp_path / "out" / "put").rglob("*.rrd")
    assert "test_fails-attempt-0.rrd" == path.name
    assert "test_fails test_fails-attempt-0.rrd failed True" == (tmp_path / "out" / "put" / "note").read_text()
    assert "*\n" == (tmp_path / "out" / "put" / ".gitignore").read_text()
    assert f"rerun {path.relative_to(tmp_path)}" in found.stdout
    (entry,) = support.rr.chunk.RrdReader(path).recordings()
    assert "ini app" == entry.application_id


@pytest.mark.edge(49)
def test_runs_without_tests(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(_ONE)
    for arguments in (["--collect-only"], ["--co", "-q"], ["--fixtures"], ["--markers"], ["--help"], ["-k", "nothing"]):
        found = inner.run(tmp_path, "--mpr=on", *arguments)
        assert "INTERNALERROR" not in found.stdout + found.stderr
        assert found.code == (5 if "-k" in arguments else 0), found.stdout
        assert not found.output.exists()
    assert "--mpr-output" in inner.run(tmp_path, "--help").stdout
    assert "INTERNALERROR" not in inner.run(tmp_path, "--setup-plan", "--mpr=on").stdout


@pytest.mark.edge(50)
def test_ways_to_load_it(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(_ONE)
    by_module = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--mpr=on"]
    for arguments, environment, files in (
        (["-p", "mpr.pytest_plugin"], {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, 1),
        (["-p", "mpr"], {}, 2),
        (["-p", "mpr", "-p", "mpr"], {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, 3),
    ):
        done = subprocess.run(
            [sys.executable, *by_module, "--mpr-keep-runs=9", *arguments],
            cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert 0 == done.returncode, done.stdout + done.stderr
        assert files == len(list(tmp_path.rglob("*.rrd")))
    refused = inner.run(tmp_path, "-p", "no:mpr", "--mpr=on")
    assert "unrecognized arguments: --mpr=on" in refused.stderr


@pytest.mark.edge(51)
def test_without_the_sdk(tmp_path: Path) -> None:
    (tmp_path / "hide.py").write_text(
        "import sys\nclass Hide:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'rerun':\n            raise ModuleNotFoundError(name)\nsys.meta_path.insert(0, Hide())\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{inner.ROOT}"}
    off = inner.run(tmp_path, plugins=("hide",), env=environment, test_x="def test_x(): pass\n")
    assert 0 == off.code, off.stdout
    on = inner.run(tmp_path, "--mpr=on", plugins=("hide",), env=environment)
    assert 4 == on.code
    assert "pip install rerun-sdk" in on.stderr


@pytest.mark.edge(39)
def test_logging_is_switched_off(tmp_path: Path) -> None:
    found = inner.run(tmp_path, "--mpr=on", env={"RERUN": "off"}, test_x=_ONE)
    assert 0 == found.code
    assert "RERUN=off" in found.stdout
    assert [] == found.files()


@pytest.mark.edge(52)
def test_without_capture_there_is_no_noise(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(_ONE)
    for arguments in (["-s"], ["--capture=no"], ["--pdb"]):
        found = inner.run(tmp_path, *arguments, "--mpr=on", "-q")
        without = inner.run(tmp_path, *arguments, "-p", "no:mpr", "-q")
        assert (without.masked(), without.stderr) == (found.masked(), found.stderr)


# --- other plugins --------------------------------------------------------------------------------------------------


@pytest.mark.edge(46)
@pytest.mark.parametrize("version", ["xunit1", "xunit2"])
def test_versions_of_junit_xml(tmp_path: Path, version: str) -> None:
    found = inner.run(
        tmp_path, "-W", "error", "--mpr=retain-on-failure", "--junitxml=x.xml", "-o", f"junit_family={version}",
        test_x=_FAILS,
    )  # fmt: skip
    text = (tmp_path / "x.xml").read_text()
    assert 1 == text.count("mpr_recording")
    assert str(found.path("test_x.py::test_fails").relative_to(tmp_path)) in text


@pytest.mark.edge(47)
def test_html_and_allure(tmp_path: Path) -> None:
    for arguments in (["--html=pages/report.html"], ["--html=pages/report.html", "--self-contained-html", "-n1"]):
        folder = tmp_path / str(len(arguments))
        found = inner.run(
            folder, *arguments, "--mpr=retain-on-failure", "--alluredir=allure",
            plugins=(*_XDIST, "html", "metadata", "allure_pytest"), test_x=_FAILS,
        )  # fmt: skip
        assert 1 == found.code, found.stdout + found.stderr
        path = found.path("test_x.py::test_fails")
        assert os.path.relpath(path, folder / "pages") in (folder / "pages" / "report.html").read_text()
        (attached,) = (folder / "allure").glob("*-attachment.rrd")
        # The layout that shows the failure first is added to the recording when all tests have ended.
        assert support.cells(path) == support.cells(attached)


@pytest.mark.edge(48)
def test_the_page_of_a_ci_job(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n")
    found = inner.run(tmp_path, "--mpr=retain-on-failure", env={"GITHUB_STEP_SUMMARY": str(page)}, test_x=_FAILS)
    path = found.path("test_x.py::test_fails").relative_to(tmp_path)
    text = page.read_text()
    assert text.startswith("before\n")
    assert "| failed | `test_x.py::test_fails` |" in text
    assert str(path) in text
    unwritable = inner.run(
        tmp_path / "second", "--mpr=retain-on-failure", env={"GITHUB_STEP_SUMMARY": str(tmp_path)}, test_x=_FAILS
    )
    assert 1 == unwritable.code
    assert "cannot write the summary of the CI job" in unwritable.stdout


@pytest.mark.edge(40)
def test_fake_files_processes_and_clocks(tmp_path: Path) -> None:
    source = """
import os, time, freezegun, rerun as rr

def test_fake_files(fs):
    rr.log("x", rr.TextLog("x"))
    assert not os.path.exists(os.path.dirname(__file__) + "/mpr-results")

def test_fake_processes(fp):
    fp.register(["ls"], stdout="x")
    rr.log("x", rr.TextLog("x"))

@freezegun.freeze_time("2001-02-03")
def test_frozen():
    rr.log("x", rr.TextLog("x"))
    assert time.time() < 1e9

def test_after():
    rr.log("x", rr.TextLog("x"))
"""
    found = inner.run(
        tmp_path, "--mpr=on", plugins=("pyfakefs.pytest_plugin", "pytest_subprocess.fixtures"), test_fakes=source
    )
    assert 0 == found.code, found.stdout
    found.check_files()
    assert 4 == len(found.files())
    assert all({"/x"} == found.entities(nodeid) for nodeid, _ in found.tests)


@pytest.mark.edge(54)
def test_coverage_of_processes_that_exit_hard(tmp_path: Path) -> None:
    (tmp_path / ".coveragerc").write_text("[run]\npatch = _exit, subprocess\nparallel = true\n")
    found = inner.run(
        tmp_path, "-n1", "--mpr=on", "--cov=.", "--cov-config=.coveragerc", "--cov-report=",
        plugins=(*_XDIST, "pytest_cov"), test_x=_ONE + "import os\ndef test_exits(): os._exit(0)\n",
    )  # fmt: skip
    assert {"passed", "crashed"} == {each["outcome"] for each in found.manifest["tests"]}, found.stdout
    found.check_files()


@pytest.mark.edge(38)
def test_nested_runs(tmp_path: Path) -> None:
    source = """
pytest_plugins = "pytester"
import rerun as rr

def test_outer(pytester):
    pytester.makepyfile(
        test_inner="import rerun as rr\\ndef test_inner():\\n    rr.log('inner', rr.TextLog('x'))\\n"
    )
    rr.log("outer/before", rr.TextLog("x"))
    for run in (pytester.runpytest_inprocess, pytester.runpytest_subprocess):
        run("--mpr=on", "-p", "mpr").assert_outcomes(passed=1)
    rr.log("outer/after", rr.TextLog("x"))
    assert len(list(pytester.path.rglob("*.rrd"))) == 2
"""
    found = inner.run(tmp_path / "outer", "--mpr=on", f"--basetemp={tmp_path / 'base'}", test_outer=source)
    assert 0 == found.code, found.stdout
    assert {"/outer/before", "/outer/after"} == found.entities("test_outer.py::test_outer")
    found.check_files()
    for path in (tmp_path / "base").rglob("*.rrd"):
        assert "/inner" in {cell.entity for cell in support.cells(path)}


# --- disks and folders ----------------------------------------------------------------------------------------------


@pytest.mark.edge(41)
def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "mpr-results").write_text("a file is in the way")
    for arguments in ([], ["-n1"]):
        found = inner.run(tmp_path, *arguments, "--mpr=on", plugins=_XDIST, test_x=_FAILS)
        assert 1 == found.code
        assert {"test_x.py::test_fails"} == found.failed()
        assert 1 == found.stdout.count("mpr: cannot begin to record")
    strict = inner.run(tmp_path, "--mpr=on", "--mpr-strict")
    assert "2 errors" in strict.stdout


@pytest.mark.edge(41)
def test_a_full_disk(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk: no file can grow beyond 300 kB."""
    source = """
import numpy as np, resource, rerun as rr

def test_much():
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    for number in range(8):
        rr.log(f"image/{number}", rr.Image(np.random.default_rng(number).integers(0, 255, (200, 200, 3), np.uint8)))

def test_little():
    rr.log("x", rr.TextLog("x"))
"""
    found = inner.run(tmp_path, "--mpr=on", test_full=source)
    assert 0 == found.code
    much, little = found.test("test_full.py::test_much"), found.test("test_full.py::test_little")
    assert (False, True) == (much["complete"], little["complete"])
    assert {"/x"} == found.entities("test_full.py::test_little")
    assert "mpr: " in found.stdout
    assert "test_much" in found.stdout
    recovered = support.run_python("import sys; from mpr.cli import main; main(['recover', sys.argv[1]])", found.output)
    assert recovered.returncode == 0, recovered.stderr
    found.check_files()


@pytest.mark.edge(41)
def test_too_little_space(tmp_path: Path) -> None:
    found = inner.run(tmp_path, "--mpr=on", "-o", "mpr_min_free_space=1e12", test_x=_FAILS)
    assert 1 == found.code
    assert "less than mpr_min_free_space" in found.stdout
    assert [] == found.files()


@pytest.mark.edge(42, 43, 56)
def test_old_runs_go_and_foreign_files_stay(tmp_path: Path) -> None:
    output = tmp_path / "test-results"
    output.mkdir()
    (output / "trace.zip").write_text("foreign")
    runs: list[Path] = []
    for number in range(4):
        found = inner.run(tmp_path, "--mpr=on", "--mpr-output=test-results", "--mpr-keep-runs=2", test_x=_ONE)
        assert 0 == found.code
        runs += [path for path in sorted(output.iterdir()) if path.is_dir() and path not in runs]
        # The process of this run still lives.
        if number == 0:
            (runs[0] / "notes.txt").write_text("mine")
            going_on = output / "20000101-000000-abcd"
            going_on.mkdir()
            (going_on / "run.json").write_text(json.dumps({"pid": os.getpid()}))
            (going_on / "x.rrd").write_text("x")
            runs.append(going_on)
    assert "foreign" == (output / "trace.zip").read_text()
    assert not (output / ".gitignore").exists()
    assert (going_on / "x.rrd").exists()
    # A foreign file stays, and nothing else of that run.
    assert ["notes.txt"] == [path.name for path in runs[0].iterdir()]
    assert [True] == [path.exists() for path in runs[-1:]]
    left = {path.parent.name for path in output.rglob("*.rrd")} - {going_on.name}
    assert left == {path.name for path in runs[-len(left) :]}
    assert len(left) <= 2


def test_fewer_runs_than_are_kept_are_all_kept(tmp_path: Path) -> None:
    for number in range(4):
        found = inner.run(tmp_path, "--mpr=on", "--mpr-output=test-results", "--mpr-keep-runs=9", test_x=_ONE)
        assert number + 1 == len(list((tmp_path / "test-results").glob("*/run.json"))), found.stdout


@pytest.mark.edge(43)
def test_two_runs_at_once(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(_ONE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "mpr", "-p", "no:cacheprovider", "--mpr=on"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    processes = [subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [0, 0] == [process.wait(300) for process in processes]
    assert 2 == len(list(tmp_path.rglob("*.rrd"))) == len(list(tmp_path.rglob("run.json")))


def test_a_run_that_keeps_nothing_leaves_nothing(tmp_path: Path) -> None:
    found = inner.run(tmp_path, "--mpr=retain-on-failure", test_x=_ONE)
    assert 0 == found.code
    assert not found.output.exists()
    assert "mpr" not in found.stdout.partition("plugins:")[2].partition("\n")[2]


@pytest.mark.edge(29)
def test_a_test_that_takes_the_sink(tmp_path: Path) -> None:
    source = """
import rerun as rr

def test_takes(tmp_path, mpr_recording):
    rr.log("before", rr.TextLog("x"))
    mpr_recording.save(tmp_path / "taken.rrd")
    rr.log("after", rr.TextLog("x"))

def test_next():
    rr.log("next", rr.TextLog("x"))
"""
    found = inner.run(tmp_path, "--mpr=on", f"--basetemp={tmp_path / 'base'}", test_takes=source)
    assert 0 == found.code, found.stdout
    found.check_files()
    test = found.test("test_takes.py::test_takes")
    assert test["complete"] is False
    assert "another sink" in test["notes"][0]
    assert "/before" in found.entities("test_takes.py::test_takes")
    assert {"/next"} == found.entities("test_takes.py::test_next")
    (taken,) = (tmp_path / "base").rglob("taken.rrd")
    assert "/after" in {cell.entity for cell in support.cells(taken)}


@pytest.mark.edge(29)
def test_a_recording_that_was_there_before_keeps_its_sink(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import rerun as rr\nrr.init('of the project')\nrr.save('own.rrd')\n")
    found = inner.run(tmp_path, "--mpr=on", test_x=_ONE + "def test_two():\n    rr.log('two', rr.TextLog('x'))\n")
    assert 0 == found.code, found.stdout
    found.check_files()
    assert {"/one", "/two"} <= {cell.entity for cell in support.cells(tmp_path / "own.rrd")}
    for name in ("one", "two"):
        assert {f"/{name}"} == found.entities(f"test_x.py::test_{name}")


# --- many tests -----------------------------------------------------------------------------------------------------


@pytest.mark.edge(44)
def test_threads_and_memory_stay_as_they_are(tmp_path: Path) -> None:
    """The cost of a test, case 45, is measured by `benchmarks/pytest_plugin.py`."""
    source = """
import os, pytest, rerun as rr

state = []

def look():
    resident = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    state.append((len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), resident))

@pytest.mark.parametrize("number", range(1000))
def test_many(number):
    rr.log("x", rr.Scalars(number))
    if number in (100, 999):
        look()

def test_state():
    (threads, files, resident), (threads_then, files_then, resident_then) = state
    assert threads_then <= threads + 2
    assert files_then <= files + 2
    assert resident_then - resident < 25e6
"""
    found = inner.run(tmp_path, "-q", "--mpr=retain-on-failure", test_many=source)
    assert 0 == found.code, found.stdout[-3000:]

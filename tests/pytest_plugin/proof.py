"""Prove on test suites of other projects that the plugin changes no outcome.

Suites of installed libraries, suites from the package index (`libraries.py`), and a part of our own run without the
plugin and with it. `python -m tests.pytest_plugin.proof [name...]`; part of `make test-all`. Each suite runs twice
without the plugin, because a test that differs between these two runs proves nothing.

`python -m tests.pytest_plugin.proof structlog=FOLDER` runs all tests of a library whose repository is in FOLDER. What
its tests need must be installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.pytest_plugin import libraries
from tests.pytest_plugin.inner import PROBE, ROOT

_ALONE, _WORKERS = ("-n0",), ("-n2",)
_ASYNCIO = ("-p", "asyncio", "-o", "asyncio_default_fixture_loop_scope=function")
_MODES = ("on", "retain-on-failure")
# Lets Python collect garbage between tests only.
_FIXED_COLLECTION = """
import gc, pytest

gc.disable()

@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish():
    gc.collect(1)
"""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A part of a library's tests that takes some seconds.

    Attributes
    ----------
    why:
        The reason why its tests could notice that they are recorded.
    package:
        The installed package with its tests; None if the tests are not in a package.
    files:
        The files to run, relative to that package or folder.
    arguments:
        Arguments for pytest.
    checkout:
        The folder with the tests if they are not in a package; None for this repository. The tests run with the
        configuration in this folder.
    requirement:
        The source distribution with the tests, one of `libraries.PACKAGES`. Its folder is then the checkout.
    distributed:
        Whether the tests also run in two workers of pytest-xdist.
    leaks:
        Whether tests leave open sockets or the like to the garbage collector, whose warnings are errors. The test in
        which Python happens to collect them fails then. So Python collects garbage only between tests, in all runs.
    """

    why: str
    package: str | None = None
    files: tuple[str, ...] = ("tests",)
    arguments: tuple[str, ...] = ()
    checkout: Path | None = None
    requirement: str | None = None
    distributed: bool = True
    leaks: bool = False


SUITES = {
    "tornado": Suite(
        why="forks (process_test), asyncio, threads, captured logging",
        package="tornado.test",
        files=(
            "process_test.py", "asyncio_test.py", "concurrent_test.py", "gen_test.py", "ioloop_test.py",
            "locks_test.py", "log_test.py", "queues_test.py", "testing_test.py", "util_test.py",
        ),
    ),
    "trio": Suite(
        why="warnings as errors, threads, signals, subprocesses, its own event loop",
        package="trio._tests",
        files=(
            "test_channel.py", "test_contextvars.py", "test_path.py", "test_signals.py", "test_subprocess.py",
            "test_sync.py", "test_testing.py", "test_threads.py", "test_timeouts.py", "test_util.py",
        ),
        arguments=("-W", "error", "-p", "trio._tests.pytest_plugin"),
    ),
    "numpy": Suite(
        why="warnings as errors, error states of threads",
        package="numpy",
        files=(
            "_core/tests/test_errstate.py", "_core/tests/test_multithreading.py", "lib/tests/test_format.py",
            "testing/tests/test_utils.py",
        ),
        arguments=("-W", "error"),
    ),
    "structlog": Suite(
        why="patches clocks and logging, and looks at the stack from handlers",
        requirement="structlog==26.1.0",
        arguments=(*_ASYNCIO, "-p", "time_machine"),
    ),
    "loguru": Suite(
        why="patches open, os, clocks and loggers; handlers that look at the stack; forks and threads",
        requirement="loguru==0.7.2",
        leaks=True,
    ),
    "freezegun": Suite(
        why="replaces clocks in all loaded modules",
        requirement="freezegun==1.5.5",
        arguments=_ASYNCIO,
    ),
    "responses": Suite(
        why="patches the sending of requests; threads",
        requirement="responses==0.26.3",
        files=("responses/tests",),
        arguments=(*_ASYNCIO, "-p", "pytest_httpserver.pytest_plugin"),
    ),
    "requests-mock": Suite(
        why="patches requests in unittest's test cases, in decorators and in fixtures",
        requirement="requests-mock==1.12.1",
        arguments=("-p", "requests_mock.contrib._pytest_plugin"),
    ),
    "pytest-mock": Suite(
        why="patches and spies on os, and runs pytest within tests",
        requirement="pytest-mock==3.17.0",
        arguments=("-p", "pytest_mock", *_ASYNCIO),
    ),
    "tenacity": Suite(
        why="patches sleep and clocks; own loggers",
        requirement="tenacity==9.2.1",
    ),
    "mpr": Suite(
        why="counts processes, threads and folders after every test; everything that the SDK does",
        distributed=False,
        files=(
            "tests/test_bad_input.py", "tests/test_capture.py", "tests/test_config.py", "tests/test_exports.py",
            "tests/test_layers.py", "tests/test_manifest.py", "tests/test_task_recordings.py", "tests/test_recover.py",
            "tests/test_rrd.py", "tests/test_scheduler.py", "tests/test_stream_sink.py",
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcomes of one run: the exit code of pytest, and for each test the outcomes of its phases."""

    code: int
    tests: dict[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison of runs with the plugin with runs without it.

    `way` says how the tests ran. `steady` is the number of tests with the same outcomes in both runs without the
    plugin. `differences` has a line for each of these tests whose outcomes were others with the plugin.
    """

    way: str
    steady: int
    recordings: int
    differences: list[str]

    @property
    def is_proof(self) -> bool:
        """True if tests have run, and none of them has another outcome with the plugin."""
        return self.steady > 0 and not self.differences


def run(suite: Suite, *arguments: str) -> Outcome:
    """Run a suite once."""
    found = importlib.util.find_spec(suite.package) if suite.package is not None else None
    own = libraries.source(suite.requirement) if suite.requirement is not None else suite.checkout or ROOT
    folder = own if suite.package is None else Path(str(found.submodule_search_locations[0])) if found else None
    assert folder is not None, f"{suite.package} is not installed"
    with tempfile.TemporaryDirectory(prefix="mpr-proof-") as scratch:
        (Path(scratch) / "mpr_probe.py").write_text(PROBE)
        (Path(scratch) / "mpr_fixed_collection.py").write_text(_FIXED_COLLECTION)
        reports = Path(scratch) / "reports.json"
        # What the tests of a library need must not change what other tests import.
        needed = () if suite.requirement is None else (str(libraries.installed()),)
        environment = {
            **os.environ, "PROBE": str(reports),
            "PYTHONPATH": os.pathsep.join((scratch, *needed, str(ROOT), str(own))),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "mpr_probe", "-p", "timeout",
            "-p", "xdist", *(("-p", "mpr_fixed_collection") if suite.leaks else ()),
            f"--basetemp={scratch}/base", *suite.arguments, *arguments,
            *(str(folder / name) for name in suite.files),
        ]  # fmt: skip
        if suite.package is not None:
            (Path(scratch) / "pytest.ini").write_text("[pytest]\n")
            command += ["-c", f"{scratch}/pytest.ini", f"--rootdir={folder}"]
        done = subprocess.run(
            command, cwd=own if suite.package is None else scratch, env=environment, capture_output=True, text=True,
            check=False, timeout=1800,
        )  # fmt: skip
        if not reports.exists():
            raise RuntimeError(done.stdout[-3000:] + done.stderr[-3000:])
        tests: dict[str, list[str]] = {}
        for nodeid, when, outcome, expected in json.loads(reports.read_text()):
            tests.setdefault(nodeid, []).append(f"{when} {outcome}{' expected' if expected else ''}")
        return Outcome(code=done.returncode, tests=tests)


def comparisons(suite: Suite, output: Path) -> Iterator[Comparison]:
    """Compare runs of a suite with the plugin, in two modes, with two runs without it; also in workers if it can.

    The recordings are in folders in `output`.
    """
    for number in (_ALONE, _WORKERS) if suite.distributed else (_ALONE,):
        before = run(suite, *number, "-p", "no:mpr")
        recorded = {}
        for mode in _MODES:
            folder = output / f"{mode}{number[0]}"
            recorded[mode] = run(suite, *number, "-p", "mpr", f"--mpr={mode}", f"--mpr-output={folder}"), folder
        after = run(suite, *number, "-p", "no:mpr")
        steady = {nodeid for nodeid, found in before.tests.items() if after.tests.get(nodeid) == found}
        is_steady = before.code == after.code and before.tests == after.tests
        for mode, (found, folder) in recorded.items():
            lines = [
                f"{nodeid}: {before.tests[nodeid]} without, {found.tests.get(nodeid)} with"
                for nodeid in sorted(steady)
                if before.tests[nodeid] != found.tests.get(nodeid)
            ]
            lines += [f"{nodeid}: only with the plugin" for nodeid in sorted(set(found.tests) - set(before.tests))]
            if is_steady and before.code != found.code:
                lines.append(f"exit code {before.code} without, {found.code} with")
            yield Comparison(
                way=f"{mode} {number[0]}", steady=len(steady), recordings=len(list(folder.rglob("*.rrd"))),
                differences=lines,
            )  # fmt: skip


def _all_tests_of(checkout: Path) -> Suite:
    arguments = ("-p", "asyncio") if importlib.util.find_spec("pytest_asyncio") is not None else ()
    return Suite(why="chosen by the caller", arguments=arguments, checkout=checkout)


def main() -> None:
    failed = False
    for argument in sys.argv[1:] or SUITES:
        name, _, checkout = argument.partition("=")
        suite = SUITES[name] if not checkout else _all_tests_of(Path(checkout).absolute())
        with tempfile.TemporaryDirectory(prefix="mpr-proof-") as output:
            for found in comparisons(suite, Path(output)):
                failed = failed or not found.is_proof
                print(
                    f"{name} {found.way}: {found.steady} tests, {len(found.differences)} differ; "
                    f"{found.recordings} recordings", flush=True,
                )  # fmt: skip
                for line in found.differences:
                    print(f"    {line}")
    sys.exit(failed)


if __name__ == "__main__":
    main()

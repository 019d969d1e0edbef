"""Prove on test suites of other projects that the plugin changes no outcome.

Suites of installed libraries, and a part of our own, run without the plugin and with it.
`python -m tests.pytest_plugin.proof [name...]`; part of `make test-all`. Each suite runs twice without the plugin,
because a test that differs between these two runs proves nothing.

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
from dataclasses import dataclass
from pathlib import Path

from tests.pytest_plugin.inner import PROBE, ROOT


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A part of a library's tests that takes some seconds.

    Attributes
    ----------
    why:
        The reason why its tests could notice that they are recorded.
    package:
        The package with its tests; None for this repository.
    files:
        The files to run, relative to that package.
    arguments:
        Arguments for pytest.
    checkout:
        The repository of the library, if its tests are not in a package. They run with its own configuration.
    """

    why: str
    package: str | None
    files: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    checkout: Path | None = None


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
    "mpr": Suite(
        why="counts processes, threads and folders after every test; everything that the SDK does",
        package=None,
        files=(
            "tests/test_bad_input.py", "tests/test_capture.py", "tests/test_config.py", "tests/test_exports.py",
            "tests/test_layers.py", "tests/test_manifest.py", "tests/test_task_recordings.py", "tests/test_recover.py",
            "tests/test_rrd.py", "tests/test_scheduler.py", "tests/test_stream_sink.py",
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Outcome:
    code: int
    tests: dict[str, list[str]]


def run(suite: Suite, *arguments: str) -> Outcome:
    """Run a suite once. The outcomes of a test are those of its phases."""
    found = importlib.util.find_spec(suite.package) if suite.package is not None else None
    own = suite.checkout or ROOT
    folder = own if suite.package is None else Path(str(found.submodule_search_locations[0])) if found else None
    assert folder is not None, f"{suite.package} is not installed"
    with tempfile.TemporaryDirectory(prefix="mpr-proof-") as scratch:
        (Path(scratch) / "mpr_probe.py").write_text(PROBE)
        reports = Path(scratch) / "reports.json"
        environment = {
            **os.environ, "PROBE": str(reports), "PYTHONPATH": os.pathsep.join((scratch, str(ROOT), str(own))),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONHASHSEED": "0",
        }  # fmt: skip
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "mpr_probe", "-p", "timeout",
            f"--basetemp={scratch}/base", *suite.arguments, *arguments, *(str(folder / name) for name in suite.files),
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


def differences(suite: Suite, output: str) -> tuple[int, list[str]]:
    """Return how many tests were compared, and which had other outcomes with the plugin than without it."""
    before = run(suite, "-p", "no:mpr")
    recorded = run(suite, "-p", "mpr", "--mpr=on", f"--mpr-output={output}")
    after = run(suite, "-p", "no:mpr")
    steady = {nodeid for nodeid, found in before.tests.items() if after.tests.get(nodeid) == found}
    found = [
        f"{nodeid}: {before.tests[nodeid]} without, {recorded.tests.get(nodeid)} with"
        for nodeid in sorted(steady)
        if before.tests[nodeid] != recorded.tests.get(nodeid)
    ]
    found += [f"{nodeid}: only with the plugin" for nodeid in sorted(set(recorded.tests) - set(before.tests))]
    if before.code == after.code != recorded.code:
        found.append(f"exit code {before.code} without, {recorded.code} with")
    return len(steady), found


def _all_tests_of(checkout: Path) -> Suite:
    arguments = ("-p", "asyncio") if importlib.util.find_spec("pytest_asyncio") is not None else ()
    return Suite(why="chosen by the caller", package=None, files=("tests",), arguments=arguments, checkout=checkout)


def main() -> None:
    failed = False
    for argument in sys.argv[1:] or SUITES:
        name, _, checkout = argument.partition("=")
        suite = SUITES[name] if not checkout else _all_tests_of(Path(checkout).absolute())
        with tempfile.TemporaryDirectory(prefix="mpr-proof-") as output:
            count, found = differences(suite, output)
            files = len(list(Path(output).rglob("*.rrd")))
        failed = failed or bool(found) or not files
        print(f"{name}: {count} tests have the same outcomes, {len(found)} differ; {files} recordings", flush=True)
        for words in found:
            print(f"    {words}")
    sys.exit(failed)


if __name__ == "__main__":
    main()

"""What does the pytest plugin cost a test that does nothing, and a test that logs much?

Each way is a pytest run of its own with the same tests. The duration of an empty test is the time from before its setup
to after its teardown. The cost of a test is the median duration of all tests in a run, minus a base. The base is the
median in a run that does not load the plugin. The floor is an empty recording per test that is made by hand. The files
are in memory, because on a disk that has many files, making an empty file alone can take 0.6 ms.

The other test calls `log.debug` 20,000 times, while pytest captures all levels.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import common, report

TESTS = 1000
LOG_CALLS = 20_000

_TESTS = """
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_nothing(number):
    pass
"""

_LOGS = """
import logging, time

def test_logs():
    log = logging.getLogger("benchmark")
    begin = time.perf_counter()
    for number in range({count}):
        log.debug("message %d", number)
    with open("secs", "w") as file:
        file.write(str(time.perf_counter() - begin))
"""

# A plugin that measures the duration of every test, including the work of all other plugins. It also looks at the
# threads and the memory of the process at the 100th and the last test.
_PROBE = """
import json, os, time
import pytest

secs = []
state = []

def look():
    resident = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    state.append((len(os.listdir("/proc/self/task")), resident))

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    begin = time.perf_counter()
    result = yield
    secs.append(time.perf_counter() - begin)
    if len(secs) in (100, {count}):
        look()
    return result

def pytest_sessionfinish():
    with open("probe.json", "w") as file:
        json.dump({{"secs": secs, "state": state}}, file)
"""

# The floor is a recording stream for each test, without mpr. After every 32 tests, a call makes the SDK end the threads
# of old streams.
_BY_HAND = """
import pytest, rerun as rr, rerun_bindings

@pytest.fixture(autouse=True)
def recording(tmp_path_factory, request, number, folder=[], made=[]):
    if not folder:
        folder.append(tmp_path_factory.mktemp("by-hand"))
    stream = rr.RecordingStream("benchmark")
    stream.save(folder[0] / f"{number}.rrd")
    yield
    stream.disconnect()
    del stream
    made.append(number)
    if len(made) % 32 == 0:
        rerun_bindings.flush_and_cleanup_orphaned_recordings()
"""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The figures of one run.

    `secs` is the median duration of a test. `threads` and `resident_bytes` are the growth of the process from its 100th
    to its last test: in threads, and in bytes of resident memory.
    """

    secs: float
    threads: int
    resident_bytes: int


def _pytest(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={folder / 'temp'}"]
    environment = {**os.environ, "PYTEST_ADDOPTS": "", "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise common.WrongOutputError(done.stdout[-2000:] + done.stderr[-2000:])


def _run(count: int, *arguments: str, by_hand: bool = False, files: int = 0) -> Reading:
    with common.scratch(in_memory=True) as folder:
        (folder / "test_nothing.py").write_text(_TESTS.format(count=count))
        (folder / "conftest.py").write_text(_PROBE.format(count=count) + (_BY_HAND if by_hand else ""))
        _pytest(folder, *arguments)
        found = sorted(folder.glob("mpr-results/*/*.rrd"))
        common.expect(len(found), files, "recordings")
        for path in found[:3]:
            common.rerun_command("rrd", "verify", path)
        probe = json.loads((folder / "probe.json").read_text())
        (threads, resident), (threads_then, resident_then) = probe["state"]
        return Reading(
            secs=common.median(probe["secs"]), threads=threads_then - threads, resident_bytes=resident_then - resident
        )


def _log(*arguments: str, files: int = 0) -> float:
    """Return how many seconds the calls of `log.debug` have taken."""
    with common.scratch(in_memory=True) as folder:
        (folder / "test_logs.py").write_text(_LOGS.format(count=LOG_CALLS))
        _pytest(folder, "--log-level=DEBUG", *arguments)
        found = sorted(folder.glob("mpr-results/*/*.rrd"))
        common.expect(len(found), files, "recordings")
        for path in found:
            common.expect(common.count_rows(path) >= LOG_CALLS, True, "rows for all calls")
        return float((folder / "secs").read_text())


def main() -> None:
    bench = report.begin(__doc__)
    _empty_tests(bench)
    _log_calls(bench)
    bench.end()


def _empty_tests(bench: report.Bench) -> None:
    count = TESTS // 2 if bench.quick else TESTS
    ways = {
        "not loaded": functools.partial(_run, count, "-p", "no:mpr"),
        "--mpr=off": functools.partial(_run, count),
        "an empty recording by hand": functools.partial(_run, count, "-p", "no:mpr", by_hand=True),
        "--mpr=retain-on-failure": functools.partial(
            _run, count, "--mpr=retain-on-failure", "--mpr-output=mpr-results"
        ),
        "--mpr=on": functools.partial(_run, count, "--mpr=on", files=count),
    }
    readings = common.interleaved(ways, bench.rounds(3))
    base = [each.secs for each in readings["not loaded"]]
    costs = {
        name: [each.secs - least for each, least in zip(found, base, strict=True)] for name, found in readings.items()
    }
    floor = "an empty recording by hand"
    rows = [
        [
            name,
            f"{1e3 * common.median(costs[name]):.2f}",
            common.ratio(costs[name], costs[floor]),
            str(max(each.threads for each in found)),
            f"{max(each.resident_bytes for each in found) / 1e6:.1f}",
        ]
        for name, found in readings.items()
    ]
    columns = ["way", "cost of a test, ms (median)", "ratio to one by hand", "more threads", "more resident MB"]
    bench.table(f"{count:,} empty tests", columns, rows)
    kept = "--mpr=on"
    bench.target(
        "an empty test that is recorded / an empty recording by hand", common.ratios(costs[kept], costs[floor]), 2
    )
    bench.target("what recording costs an empty test", [1e3 * each for each in costs[kept]], 1.5, "ms")
    bench.target(
        "an empty test with retain-on-failure / with on",
        common.ratios(costs["--mpr=retain-on-failure"], costs[kept]),
        1,
    )


def _log_calls(bench: report.Bench) -> None:
    ways = {
        "not loaded": functools.partial(_log, "-p", "no:mpr"),
        "--mpr=retain-on-failure": functools.partial(_log, "--mpr=retain-on-failure"),
        "--mpr=on": functools.partial(_log, "--mpr=on", files=1),
    }
    readings = common.interleaved(ways, bench.rounds(3))
    floor = readings["not loaded"]
    rows = [
        [name, f"{1e6 * common.median(found) / LOG_CALLS:.1f}", common.ratio(found, floor)]
        for name, found in readings.items()
    ]
    bench.table(f"{LOG_CALLS:,} calls of log.debug in a test", ["way", "a call, us (median)", "ratio"], rows)
    bench.target("log.debug in a recorded test / without", common.ratios(readings["--mpr=on"], floor), 3)


if __name__ == "__main__":
    main()

"""The edge cases of the plugin, each with a number; `@pytest.mark.edge(...)` says which tests they are.

| | |
|---|---|
| 1-3 | names: odd parameters, parameters that look alike, the same name twice |
| 4-12 | errors before and after, skips, expected failures, subtests, unittest, doctests, other items, wide fixtures |
| 13-20 | pytest-xdist: every way to distribute, without it, crashes in each phase and of each sort, at import |
| 21-24 | plugins that run tests again, and their output |
| 25-28 | timeouts, also within a flush, Ctrl-C and `pytest.exit`, `-x` and `--maxfail` |
| 29-34 | the SDK in the test's hands, threads, coroutines, forks, multiprocessing |
| 35-38 | pools in tests, nested pytest |
| 39-43 | working directory, environment, fakes, full disks, foreign files, two runs at once |
| 44-45 | many tests: threads, memory, time |
| 46-49 | JUnit, pytest-html, allure, the page of a CI job, runs without tests |
| 50-52 | ways to load it, no SDK, no capture |
| 53 | golden recordings |
| 54-58 | coverage, warnings as errors, files that cannot be removed, attempts, order |
"""

from __future__ import annotations

import re
from pathlib import Path

# Cases without a mark: a benchmark covers one, and the tests of a fixture cover the other.
_ELSEWHERE = {45: "benchmarks/pytest_plugin.py", 53: "tests"}


def test_every_edge_case_has_a_test() -> None:
    marks = re.compile(r"@pytest\.mark\.edge\(([\d, ]+)\)")
    found = set(_ELSEWHERE)
    for path in Path(__file__).parent.glob("test_*.py"):
        for numbers in marks.findall(path.read_text()):
            found |= {int(number) for number in numbers.split(",")}
    assert set(range(1, 59)) == found

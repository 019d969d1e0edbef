"""Run pytest over sample tests in processes of their own, and read what they leave behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mpr.pytest_plugin import options
from tests import support

ROOT = Path(__file__).parent.parent.parent
SAMPLES = Path(__file__).parent / "samples"

# Every run reports outcomes by this plugin, because other plugins may change the terminal's output.
PROBE = """
import json, os
import pytest

reports = []

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    reports.append([report.nodeid, report.when, report.outcome, hasattr(report, "wasxfail")])

def pytest_sessionfinish(session, exitstatus):
    if not hasattr(session.config, "workerinput") and "PROBE" in os.environ:
        with open(os.environ["PROBE"], "w") as file:
            json.dump(sorted(reports), file)
"""


@dataclass(kw_only=True)
class Run:
    """The output and files of a run of pytest."""

    folder: Path
    code: int
    stdout: str
    stderr: str
    reports: list[list[Any]] = field(default_factory=list)

    @cached_property
    def output(self) -> Path:
        return self.folder / "mpr-results"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        (found,) = self.output.glob("*/run.json")
        loaded: dict[str, Any] = json.loads(found.read_text())
        return loaded

    @cached_property
    def tests(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The entries of each (test, attempt) in mpr's `run.json`."""
        return {(each["nodeid"], each["attempt"]): each for each in self.manifest["tests"]}

    def test(self, nodeid: str, attempt: int = 0) -> dict[str, Any]:
        return self.tests[nodeid, attempt]

    def path(self, nodeid: str, attempt: int = 0) -> Path:
        found = self.test(nodeid, attempt)["path"]
        assert found is not None, f"{nodeid} was not kept"
        return Path(found)

    def failed(self) -> set[str]:
        """Return the tests with a phase that has failed."""
        return {nodeid for nodeid, _, outcome, _ in self.reports if outcome == "failed"}

    def kept(self) -> list[str]:
        """Return the names and attempts of the tests with a recording, in the order in which they began."""
        found = [each for each in self.manifest["tests"] if each["path"] is not None]
        return [f"{each['nodeid'].rpartition('::')[2]} {each['attempt']}" for each in found]

    def files(self) -> list[Path]:
        return sorted(self.output.rglob("*.rrd"))

    def cells(self, nodeid: str, attempt: int = 0) -> list[support.Cell]:
        """Return the cells that the test itself has logged."""
        found = support.cells(self.path(nodeid, attempt))
        return sorted(cell for cell in found.elements() if not cell.entity.startswith("/pytest/"))

    def entities(self, nodeid: str, attempt: int = 0) -> set[str]:
        return {cell.entity for cell in self.cells(nodeid, attempt)}

    def texts(self, nodeid: str, entity: str, attempt: int = 0) -> list[str]:
        return [each.text for each in support.texts(self.path(nodeid, attempt)) if each.entity == f"/pytest/{entity}"]

    def check_files(self) -> None:
        """Check that every file is valid, has the properties of its test, and has its own recording id."""
        files = self.files()
        assert [] == list(self.output.rglob(".*.rrd*"))
        verified = support.rerun_cli("rrd", "verify", *files)
        assert verified.returncode == 0, verified.stderr
        ids = set()
        for path in files:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                (entry,) = support.rr.chunk.RrdReader(path).recordings()
            ids.add(entry.recording_id)
            assert support.cells(path, properties=True), path
        assert len(files) == len(ids)

    def masked(self) -> str:
        """Return the terminal's output without the parts that differ from run to run, and without mpr's lines."""
        text = self.stdout.replace(str(self.folder), "*")
        text = re.sub(r"(?s)=+ mpr recordings =+\n.*?(?=^=)", "", text, flags=re.MULTILINE)
        text = re.sub(r"(?m)^(mpr: |plugins: |rootdir: |mpr recording: ).*\n", "", text)
        text = re.sub(r"-+ generated xml file: .* -+\n", "", text)
        text = re.sub(r"-+ mpr recording -+\n.*\n", "", text)
        for pattern in (
            r"\d{4}-\d\d-\d\dT[\d:.]+Z",
            r"in \d+\.\d+s.*",
            r"0x[0-9a-f]+",
            r"pytest-\d+",
            r"pid=\d+",
            r"=+",
        ):
            text = re.sub(pattern, "*", text)
        return text


def run(
    folder: Path,
    *arguments: str | Path,
    plugins: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    timeout: float = 300,
    **files: str,
) -> Run:
    """Run pytest in `folder` over `files` (names without suffix), with `plugins` and that of mpr."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in files.items():
        (folder / f"{name}.py").write_text(source)
    conftest = folder / "conftest.py"
    given = conftest.read_text() if conftest.exists() else ""
    if PROBE not in given:
        conftest.write_text(PROBE + given)
    if not (folder / "pytest.ini").exists():
        (folder / "pytest.ini").write_text("[pytest]\n")
    probe = folder / "reports.json"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "MPR_", "COV_"))}
    # If a job of a CI service runs these tests, the inner runs do not belong to it.
    environment.pop("CI", None)
    for name in (name for names in options.JOBS for name in names):
        environment.pop(name, None)
    environment |= {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PROBE": str(probe), "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0",
        **(env or {}),
    }  # fmt: skip
    environment.pop("GITHUB_STEP_SUMMARY", None) if not env or "GITHUB_STEP_SUMMARY" not in env else None
    # A `-p no:mpr` after it would not remove it again.
    own = () if "no:mpr" in arguments else ("mpr",)
    chosen = [argument for name in (*own, *plugins) for argument in ("-p", name)]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *chosen, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    reports = json.loads(probe.read_text()) if probe.exists() else []
    return Run(folder=folder, code=done.returncode, stdout=done.stdout, stderr=done.stderr, reports=reports)

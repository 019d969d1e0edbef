"""The command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import rerun

import mpr
from mpr.sdk.private_names import NAMES
from tests import support


def _mpr(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mpr", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_version_is_printed() -> None:
    assert (_mpr("--version").returncode, _mpr("--version").stdout) == (0, f"mpr, version {mpr.__version__}\n")


def test_the_doctor_finds_no_fault_in_the_installed_sdk() -> None:
    ran = _mpr("doctor")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"rerun-sdk {rerun.__version__}" in ran.stdout
    assert "file format: known" in ran.stdout
    assert f"functions of the SDK: {len(NAMES)} of {len(NAMES)} found" in ran.stdout


def test_the_doctor_says_what_follows_if_the_sdk_is_another_one() -> None:
    other = "import rerun; rerun.__version__ = '0.99.0'; without_names.remove('new_recording')"
    ran = support.run_python(f"from tests import without_names; {other}; from mpr import cli; cli.main(['doctor'])")
    assert ran.returncode == 1, ran.stderr
    assert "not tested with this rerun-sdk, but with 0.39 to 0.41\n" in ran.stdout
    assert f"functions of the SDK: {len(NAMES) - 1} of {len(NAMES)} found\n" in ran.stdout
    assert f"  new_recording is missing: {NAMES['new_recording'].without}\n" in ran.stdout


def test_an_unknown_command_is_an_error_that_names_it() -> None:
    ran = _mpr("recrod")
    assert ran.returncode == 2
    assert "recrod" in ran.stderr


def test_recover_names_a_journal_that_cannot_be_read_and_goes_on(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        stream = rerun.RecordingStream("app")
        stream.save(tmp_path / folder / "run.rrd")
        stream.log("n", rerun.Scalars(1.0))
        stream.disconnect()
    journal = tmp_path / "a" / "journal-main.jsonl"
    journal.mkdir()
    ran = _mpr("recover", str(tmp_path / "a"), str(tmp_path / "b"))
    assert ran.returncode == 1
    assert ran.stderr == f"mpr recover: {tmp_path}/a/run.rrd: [Errno 21] Is a directory: '{journal}'\n"
    assert f"{tmp_path}/b/run.rrd" in ran.stdout

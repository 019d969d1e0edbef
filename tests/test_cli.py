"""The command line."""

from __future__ import annotations

import subprocess
import sys

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

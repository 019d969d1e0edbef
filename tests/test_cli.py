"""The command line."""

from __future__ import annotations

import subprocess
import sys

import rerun

import mpr


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


def test_an_unknown_command_is_an_error_that_names_it() -> None:
    ran = _mpr("recrod")
    assert ran.returncode == 2
    assert "recrod" in ran.stderr

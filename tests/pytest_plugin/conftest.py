"""Make runs of pytest once that several tests look at."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.pytest_plugin import inner
from tests.pytest_plugin.inner import Run

# Arguments for the samples, which all run with warnings as errors.
_SAMPLE_ARGUMENTS = ("-q", "-rA", "-W", "error", "--doctest-modules")
_SAMPLE_PLUGINS = ("asyncio", "anyio")


def _samples(folder: Path) -> Path:
    shutil.copytree(inner.SAMPLES, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the samples, all recorded."""
    folder = _samples(tmp_path_factory.mktemp("recorded"))
    return inner.run(folder, *_SAMPLE_ARGUMENTS, "--mpr=on", "--junitxml=junit.xml", plugins=_SAMPLE_PLUGINS)


@pytest.fixture(scope="session")
def unrecorded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the samples without the plugin."""
    folder = _samples(tmp_path_factory.mktemp("unrecorded"))
    return inner.run(folder, *_SAMPLE_ARGUMENTS, "-p", "no:mpr", plugins=_SAMPLE_PLUGINS)


@pytest.fixture(scope="session")
def failures(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the samples under xdist, and keep the recordings of those that fail."""
    folder = _samples(tmp_path_factory.mktemp("failures"))
    arguments = ("-n2", "--dist=loadfile", "--mpr=retain-on-failure")
    return inner.run(folder, *_SAMPLE_ARGUMENTS, *arguments, plugins=(*_SAMPLE_PLUGINS, "xdist", "xdist.looponfail"))

"""Run real peers of live sinks: the Rerun command line as a server that saves its data, and the real viewer."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import mpr
from mpr.sdk import programs
from tests import support


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def url_of(port: int) -> str:
    return f"rerun+http://127.0.0.1:{port}/proxy"


def program() -> str:
    found = programs.viewer_executable()
    assert found is not None
    return found


class Receiver:
    """Run `rerun --save`, which writes all data to a file that it receives, or reads from a server."""

    def __init__(self, path: Path, *arguments: str) -> None:
        self.path = path
        self.path.unlink(missing_ok=True)
        command = [program(), "--save", str(path), "--bind", "127.0.0.1", *arguments]
        quiet = {"RUST_LOG": "off", "RERUN_APP_ONLY": "true"}
        self.process = subprocess.Popen(command, env=os.environ | quiet, stderr=subprocess.DEVNULL)

    def cells(self) -> Counter[support.Cell]:
        """Return the cells in its file until now."""
        if not self.path.exists() or not self.path.stat().st_size:
            return Counter()
        return support.cells_of_growing(self.path)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def listening(path: Path, port: int) -> Iterator[Receiver]:
    """Run a receiver that listens at `port`, like a viewer."""
    receiver = Receiver(path, "--port", str(port))
    try:
        yield receiver
    finally:
        receiver.kill()


@contextlib.contextmanager
def reading(path: Path, url: str) -> Iterator[Receiver]:
    """Run a receiver that reads from the server at `url`."""
    receiver = Receiver(path, "--port", str(free_port()), url)
    try:
        yield receiver
    finally:
        receiver.kill()


def live(recording: mpr.SharedRecording) -> tuple[mpr.LiveSinkStatistics, ...]:
    return recording.stats().live_sinks


def wait_for_state(recording: mpr.SharedRecording, state: str, index: int = 0) -> None:
    support.wait_for(lambda: live(recording)[index].state == state, 60)


def exporters(of: int | None = None) -> list[psutil.Process]:
    """Return the processes below this one (or `of`) with an exporter's low priority: exporters and their children."""
    found = []
    for child in psutil.Process(of).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.nice() > psutil.Process().nice() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


def artifact(name: str) -> Path:
    """Return a path for a picture that a person may want to see, in `MPR_ARTIFACTS` or a temporary folder."""
    folder = Path(os.environ.get("MPR_ARTIFACTS") or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def needed(found: bool, what: str) -> None:
    """Skip the test if `what` is not installed; fail if `CI` is set, where everything must be installed."""
    if found:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"{what} is not installed")


def has_vulkan() -> bool:
    folders: list[Any] = [Path(folder) for folder in ("/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d")]
    return any(folder.is_dir() and any(folder.iterdir()) for folder in folders)

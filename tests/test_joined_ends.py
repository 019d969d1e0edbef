"""How a process that has joined may end, and whether its rows are there: every way of ending x every route."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.aggregator import intake
from mpr.aggregator.intake import ProducerIntake
from tests import support

# Larger than what is sent with a copy in any case, so that a message without a copy would show.
_AT_EXIT = """
import atexit, sys
import mpr, numpy as np, rerun as rr
kind = sys.argv[1]
mpr.join()
stream = None if kind == "shared" else rr.RecordingStream("own", recording_id="own")

def log(numbers):
    for number in numbers:
        noise = np.random.default_rng(number).integers(0, 255, (300, 300, 3), np.uint8)
        rr.log("noise", rr.Image(noise), recording=stream)
        rr.log("n", rr.Scalars(float(number)), recording=stream)

log(range(40))
# Handlers run in the reverse order: this one before the process leaves the recording, and after the one of pyzmq.
atexit.register(log, range(40, 60))
from multiprocessing import util
util.Finalize(None, log, (range(60, 80),), exitpriority=0)
"""


def _as_in_another_container(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("another container's")

    monkeypatch.setattr(intake, "OutboxReader", refuse)
    monkeypatch.setattr(ProducerIntake, "lives", lambda _: True)


def _python(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("route", ["memory", "messages"])
@pytest.mark.parametrize("kind", ["shared", "own"])
def test_rows_of_exit_handlers_arrive(route: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if route == "messages":
        _as_in_another_container(monkeypatch)
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        ran = _python(_AT_EXIT, kind)
    assert (ran.returncode, ran.stderr) == (0, "")
    found: Counter[Any] = Counter()
    for file in recording.paths:
        found += support.numbers(file)
    assert found == Counter(range(80))
    assert recording.stats().torn_processes == 0

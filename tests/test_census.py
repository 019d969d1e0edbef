"""The census after each test finds what a test leaves behind."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from pathlib import Path

import mpr
from tests import support


def test_a_descriptor_that_is_left_open_is_found(tmp_path: Path) -> None:
    before = support.census()
    assert support.left_over(before, 0) == []
    memory = os.memfd_create("mpr-left-" + "0" * 32)
    file = os.open(tmp_path, os.O_RDONLY)
    found = support.left_over(before, 0)
    os.close(file)
    os.close(memory)
    assert set(found) == {f"1 more of {tmp_path}", "1 more of /memfd:mpr-left"}
    assert support.left_over(before, 0) == []


def test_a_process_and_a_thread_are_found() -> None:
    before = support.census()
    goes_on = threading.Event()
    thread = threading.Thread(target=goes_on.wait, name="mpr-left")
    thread.start()
    process = subprocess.Popen(["sleep", "60"])
    found = support.left_over(before, 0)
    process.kill()
    process.wait()
    goes_on.set()
    thread.join()
    assert found == [f"process {process.pid}", "thread mpr-left"]


def test_a_recording_that_is_closed_leaves_nothing_open() -> None:
    before = support.census()
    with tempfile.TemporaryDirectory() as folder:
        recording = mpr.SharedRecording("app", sinks=Path(folder, "run.rrd"))
        assert [each for each in support.left_over(before, 0) if each.endswith(".part")]
        recording.close()
        # While the object still lives.
        assert support.left_over(before) == []

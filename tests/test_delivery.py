"""Tasks outside of pools: they return only when their rows are in every sink, and say so if that cannot be."""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path

import pytest

import mpr
from mpr.rrd.segment import Segment
from mpr.rrd.writer import FileWriter
from tests import functions, support


def test_a_task_whose_rows_are_in_no_sink_does_not_return(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, other = tmp_path / "run.rrd", tmp_path / "other.rrd"
    recording = mpr.SharedRecording("app", sinks=[path, other])
    with recording:
        assert functions.log_number(1) == 1
        os.truncate(path, 20)
        with pytest.raises(mpr.DeliveryError, match=r"rows of this process \(pid \d+\) are not in a sink: .*run\.rrd"):
            functions.log_number(2)
        # The task's own error is the one to raise.
        with pytest.raises(ValueError, match="task 3 failed"):
            functions.log_and_raise(3)
        assert "are not in a sink" in caplog.text
        with pytest.raises(mpr.SinkError, match=r"run\.rrd"):
            recording.close()
    support.check_file(other)
    assert support.numbers(other) == Counter([1, 2, 3])


def test_a_sink_that_hangs_does_not_hang_a_task_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.rrd"
    goes_on = threading.Event()
    accept = FileWriter.accept

    def hang(self: FileWriter, segment: Segment, *, published: bool) -> None:
        assert not published or goes_on.wait(60)
        accept(self, segment, published=published)

    monkeypatch.setattr("mpr.producer.producer.SINK_TIMEOUT_SECS", 0.2)
    with mpr.SharedRecording("app", sinks=path):
        monkeypatch.setattr(FileWriter, "accept", hang)
        caught: list[BaseException] = []

        def run() -> None:
            try:
                functions.log_number(1)
            except mpr.DeliveryError as error:
                caught.append(error)

        task = threading.Thread(target=run, daemon=True)
        task.start()
        task.join(30)
        goes_on.set()
        assert [str(each) for each in caught] == ["the recording 'app' has taken nothing for 0 s"]
    support.check_file(path)
    assert support.numbers(path) == Counter([1])

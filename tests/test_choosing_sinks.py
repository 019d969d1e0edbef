"""How a recording gets its sinks if the program names none: arguments, environment, the active recording."""

from __future__ import annotations

import argparse
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

import mpr
from mpr.sinks import active_recording
from tests import support, tasks


def _parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--other", default=3)
    mpr.add_arguments(parser)
    return parser.parse_args(arguments)


def test_arguments_can_be_combined_and_repeated() -> None:
    line = "--save a.rrd --save=b.rrd --save c/ --connect --connect rerun+http://10.0.0.1:1234/proxy"
    args = _parsed(*line.split(), "--serve", "9900", "--web", "--spawn", "--recording-id", "r")
    assert mpr.from_arguments(args) == {
        "sinks": [
            mpr.FileSink(path="a.rrd"),
            mpr.FileSink(path="b.rrd"),
            mpr.DirectorySink(path="c/"),
            mpr.GrpcSink(url="rerun+http://127.0.0.1:9876/proxy"),
            mpr.GrpcSink(url="rerun+http://10.0.0.1:1234/proxy"),
            mpr.GrpcServerSink(port=9900),
            mpr.WebViewerSink(),
            mpr.SpawnViewerSink(),
        ],
        "recording_id": "r",
    }
    assert mpr.from_arguments(_parsed()) == {"sinks": None, "recording_id": None}


@pytest.mark.parametrize("line", ["--serve port", "--serve 70000", "--connect http://x", "--save http://x"])
def test_the_error_for_a_bad_argument_names_it(line: str) -> None:
    with pytest.raises(argparse.ArgumentError, match=line.split(maxsplit=1)[0]):
        _parsed(*line.split())


def test_the_environment_names_sinks_for_recordings_that_are_given_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = (tmp_path / f"{name}.rrd" for name in ("one", "two", "three"))
    monkeypatch.setenv("MPR_SINKS", f"{one}, {two},{tmp_path}/tasks/")
    with mpr.Pool("app", 1) as pool:
        pool.map(tasks.log_number, range(3), chunksize=1)
    for path in (one, two):
        support.check_file(path)
        assert support.numbers(path) == Counter(range(3))
    assert len(list((tmp_path / "tasks").iterdir())) == 3
    one.unlink()
    with mpr.Pool("app", 1, sinks=three) as pool:
        pool.map(tasks.log_number, range(3))
    assert not one.exists()
    monkeypatch.setenv("MPR_SINKS", "serve:many")
    with pytest.raises(mpr.ConfigError, match="MPR_SINKS: 'serve:many' should be"):
        mpr.Pool("app", 1)


_ACTIVE = """
import sys, mpr, rerun as rr
from tests import tasks

if __name__ == "__main__":
    rr.init("app", recording_id="mine")
    rr.save(sys.argv[1])
    rr.log("n", rr.Scalars(-1.0))
    with mpr.Pool("app", 2) as pool:
        print(pool.recording.recording_id, pool.recording.paths)
        pool.map(tasks.log_number, range(20), chunksize=1)
        rr.log("n", rr.Scalars(-2.0))
        pool.apply(tasks.log_episode, (7,))
        pool.recording.stream.log("n", rr.Scalars(-3.0))
    rr.log("n", rr.Scalars(-4.0))
"""


def test_rows_go_to_the_callers_active_recording(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    ran = support.run_python(_ACTIVE, path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "mine []\n"
    assert "mpr: recording to the active recording" in ran.stderr
    verified = support.rerun_cli("rrd", "verify", path)
    assert verified.returncode == 0, verified.stderr
    # A task recording stays a separate recording there, as in a viewer.
    ids = {entry.recording_id for entry in rr.chunk.RrdReader(path).recordings()}
    assert len(ids) == 2
    assert "mine" in ids
    assert support.numbers(path) == Counter([-4, -3, -2, -1, 7, *range(20)])
    assert [path] == list(tmp_path.iterdir())


@pytest.fixture
def active(tmp_path: Path) -> rr.RecordingStream:
    stream = rr.RecordingStream("app", recording_id="mine")
    stream.save(tmp_path / "active.rrd")
    return stream


def test_a_recording_of_another_program_is_not_touched(
    active: rr.RecordingStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with active:
        assert active_recording.find("other", None) is None
        assert active_recording.find("app", "another") is None
        assert active_recording.find("app", "mine") == active_recording.find("app", None)
        with mpr.Pool("other", 1) as pool:
            (path,) = pool.recording.paths
            pool.map(tasks.log_number, range(3))
    assert active_recording.find("app", None) is None
    assert support.numbers(path) == Counter(range(3))
    assert sum(support.numbers(tmp_path / "active.rrd").values()) == 0


def test_an_active_recording_whose_flush_hangs_is_left_after_a_while(
    active: rr.RecordingStream, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flush of the recording hangs here, as it does with a viewer that was stopped."""
    monkeypatch.setattr(active_recording, "SINK_TIMEOUT_SECS", 0.2)
    waiting = threading.Event()
    flush = rr.RecordingStream.flush

    def hang(*args: Any, **kwargs: Any) -> None:
        if threading.current_thread().name == "mpr-active-recording":
            waiting.wait(60)
        else:
            flush(*args, **kwargs)

    monkeypatch.setattr(rr.RecordingStream, "flush", hang)
    try:
        with active, mpr.Pool("app", 1) as pool:
            assert pool.map(tasks.log_number, range(5), chunksize=1) == list(range(5))
        assert "has taken nothing" in caplog.text
        assert "chunks did not get into the active recording" in caplog.text
    finally:
        waiting.set()
        monkeypatch.undo()


def test_an_active_recording_that_fails_is_a_sink_error(
    active: rr.RecordingStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("no space left")

    with active:
        pool = mpr.Pool("app", 1)
        with monkeypatch.context() as patched:
            patched.setattr(rr.RecordingStream, "flush", fail)
            with pytest.raises(mpr.SinkError, match=r"cannot write to the active recording.*no space left"):
                pool.apply(tasks.log_number, (1,))
        pool.close()
        with pytest.raises(mpr.SinkError, match="active recording"):
            pool.join()

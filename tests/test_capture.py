"""The recording has what workers log with `logging` and print, in order with their rows."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

import mpr
from tests import support, tasks


def _log_and_say(number: int) -> int:
    tasks.log_number(number)
    logger = logging.getLogger("tests.deep")
    logger.info("quiet %d", number)
    logger.warning("task %d", number)
    try:
        raise LookupError("inside")
    except LookupError:
        logger.exception("caught %d", number)
    print(f"printed {number}\nand on", end="")
    print(f" stderr {number}", file=sys.stderr)
    return number


def _texts(path: Path) -> dict[str, list[support.Text]]:
    found: dict[str, list[support.Text]] = {}
    for text in support.texts(path):
        found.setdefault(text.entity, []).append(text)
    return found


def test_logging_of_workers_is_in_the_recording(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        assert pool.map(_log_and_say, range(3)) == [0, 1, 2]
        said = _texts_of_growing(path)["/mpr/logs/tests/deep"]
    support.check_file(path)
    assert [(text.level, text.text.split("\n")[0]) for text in said] == [
        each for number in range(3) for each in (("WARN", f"task {number}"), ("ERROR", f"caught {number}"))
    ]
    assert said[1].text.endswith("LookupError: inside")
    assert "Traceback" in said[1].text
    # Output was not asked for.
    assert "/mpr/output/stdout" not in _texts(path)
    indices = _cells_of_component(path, "/mpr/logs/tests/deep", "index")
    # Each record has the index of its task, and the times that the task had set.
    assert [(cell.value, dict(cell.times)) for cell in indices] == [
        (f"[{number}]", {"step": number}) for number in range(3) for _ in range(2)
    ]


def _cells_of_component(path: Path, entity: str, component: str) -> list[support.Cell]:
    found = []
    for chunk in support.chunks(path):
        if str(chunk.entity_path) == entity:
            found += [cell for cell in support.cells_of(entity, chunk.to_record_batch()) if cell.component == component]
    return found


def _texts_of_growing(path: Path) -> dict[str, list[support.Text]]:
    with support.whole_frames_of(path) as copy:
        return _texts(copy)


def test_with_capture_switched_off_nothing_is_captured(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, capture_logging=False) as pool:
        pool.map(_log_and_say, range(2))
    assert _texts(path) == {}


def test_output_of_workers_is_in_the_recording_and_printed_too(tmp_path: Path) -> None:
    source = """
import sys, mpr
from tests.test_capture import _log_and_say
if __name__ == "__main__":
    with mpr.Pool("app", 1, sinks=sys.argv[1], capture_output=True) as pool:
        pool.map(_log_and_say, range(2), chunksize=1)
"""
    ran = support.run_python(source, tmp_path / "run.rrd")
    assert ran.returncode == 0, ran.stderr
    found = _texts(tmp_path / "run.rrd")
    # Every line has the index of its task. A line without an end is logged at the end of the task.
    assert [text.text for text in found["/mpr/output/stdout"]] == ["printed 0", "and on", "printed 1", "and on"]
    assert [(text.text, text.level) for text in found["/mpr/output/stderr"] if "stderr" in text.text] == [
        (" stderr 0", "WARN"),
        (" stderr 1", "WARN"),
    ]
    assert ran.stdout == "printed 0\nand onprinted 1\nand on"


def test_the_level_of_the_parent_counts_in_its_workers(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.INFO)
    try:
        with mpr.Pool("app", 1, sinks=path) as pool:
            pool.apply(_log_and_say, (5,))
    finally:
        root.setLevel(before)
    assert "quiet 5" in [text.text for text in _texts(path)["/mpr/logs/tests/deep"]]


def _configure_and_say(number: int) -> None:
    logging.basicConfig(format="mine: %(message)s", stream=sys.stderr)
    logging.getLogger("own").warning("own %d", number)
    # The records of this logger do not propagate.
    alone = logging.getLogger("alone")
    alone.propagate = False
    alone.addHandler(logging.NullHandler())
    alone.warning("alone %d", number)


def test_the_configuration_of_a_task_is_not_touched(tmp_path: Path) -> None:
    source = """
import sys, mpr
from tests.test_capture import _configure_and_say
if __name__ == "__main__":
    with mpr.Pool("app", 1, sinks=sys.argv[1]) as pool:
        pool.apply(_configure_and_say, (1,))
"""
    ran = support.run_python(source, tmp_path / "run.rrd")
    assert ran.stderr == "mine: own 1\n"
    found = _texts(tmp_path / "run.rrd")
    assert [text.text for text in found["/mpr/logs/own"] + found["/mpr/logs/alone"]] == ["own 1", "alone 1"]


_HANDLER = """
import logging, mpr, rerun as rr
mpr.join()
logging.getLogger().addHandler(mpr.LoggingHandler("logs"))
logging.getLogger("a.b c").error("said")
logging.getLogger("mpr.own").error("not this")
"""


def test_the_handler_in_a_process_that_has_joined(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        subprocess.run([sys.executable, "-c", _HANDLER], check=True, timeout=60)
        logger = logging.getLogger("parent")
        handler = mpr.LoggingHandler(recording=recording.stream, level="ERROR")
        logger.addHandler(handler)
        try:
            logger.warning("too low")
            logger.error("of the parent")
        finally:
            logger.removeHandler(handler)
    assert [(text.entity, text.text) for text in support.texts(path)] == [
        (r"/logs/a/b\ c", "said"),
        ("/parent", "of the parent"),
    ]


def test_a_log_record_that_cannot_be_recorded_is_printed_and_raises_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("broken")
    handler = mpr.LoggingHandler()
    logger.addHandler(handler)

    def fail(*_: object, **__: object) -> None:
        # A record that is logged within the handler is not recorded again.
        logger.error("from within")
        raise OSError("no recording today")

    monkeypatch.setattr(rr, "log", fail)
    try:
        logger.error("said")
        assert "no recording today" in capsys.readouterr().err
    finally:
        logger.removeHandler(handler)

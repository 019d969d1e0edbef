"""`mpr recover` makes a valid file of what a killed process left, and never makes a file worse."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import rerun as rr

import mpr
from mpr.rrd import framing, recover, store_id
from tests import support, tasks


def _recover(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mpr", "recover", *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


_PARENT = """
import sys, mpr
from pathlib import Path
from tests import tasks

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with mpr.Pool("app", 2, sinks=folder / "run.rrd") as pool:
        pool.map(tasks.log_number, range(int(sys.argv[2])), chunksize=1)
        (folder / "ready").touch()
        tasks.wait_for_file(folder / "never")
"""


@pytest.mark.parametrize("count", [50, 0])
def test_the_file_of_a_killed_parent_has_every_result_that_the_parent_had(count: int, tmp_path: Path) -> None:
    """This holds also for a file that does not have its final name yet, because it has no row."""
    path = tmp_path / "run.rrd"
    program = subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path), str(count)])
    try:
        support.wait_for((tmp_path / "ready").exists, 60)
        ran = _recover(path)
        assert ran.returncode == 1
        assert "is being written by a process that lives" in ran.stderr
    finally:
        program.kill()
        program.wait(60)
    left = path if count else tmp_path / ".run.rrd.part"
    assert left.exists()
    # The file is locked until the parent and the workers that it had forked have ended.
    support.wait_for(lambda: _recover(path).returncode == 0, 30)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(count))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["ready", "run.rrd"]
    before = path.read_bytes()
    assert "is whole" in _recover(path).stdout
    assert path.read_bytes() == before


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "run.rrd"
    # The file has no layout, because its chunks are not the recording's.
    with mpr.Pool("app", 2, sinks=path, telemetry=False) as pool:
        pool.map(tasks.log_everything, range(3), chunksize=1)
        # This row is larger than the part that a scan reads at once.
        pool.starmap(tasks.log_images, [(0, 3)])
    return path.read_bytes()


def _frames(data: bytes) -> list[framing.Frame]:
    return framing.scan(lambda at, size: data[at : at + size], framing.HEADER_SIZE, len(data))[0]


def _ids(data: bytes, frames: list[framing.Frame]) -> set[bytes]:
    return {store_id.chunk_id(data[each.payload : each.end]) for each in frames if each.kind == framing.ARROW_MSG}


def _ids_of(path: Path) -> set[bytes]:
    data = path.read_bytes()
    return _ids(data, _frames(data))


@pytest.mark.parametrize("cut", ["footer", "end of footer", "frame header", "payload", "zeros", "between frames"])
def test_an_incomplete_end_costs_only_the_incomplete_message(cut: str, whole: bytes, tmp_path: Path) -> None:
    frames = _frames(whole)
    *kept, last, end = frames
    size = {
        "footer": end.start + 100,
        "end of footer": len(whole) - 1,
        "frame header": last.start + 7,
        "payload": last.end - 1,
        "zeros": last.start,
        "between frames": last.start,
    }[cut]
    path = tmp_path / "run.rrd"
    path.write_bytes(whole[:size] + (bytes(5000) if cut == "zeros" else b""))
    path.chmod(0o600)
    result = recover.recover(path)
    support.check_file(path)
    expected = _ids(whole, kept if "footer" not in cut else frames[:-1])
    assert _ids_of(path) == expected
    assert (result.was_whole, result.chunk_count, result.original) == (False, len(expected), None)
    assert (result.dropped_bytes > 0) == (cut in ("footer", "frame header", "payload"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert [path] == list(tmp_path.iterdir())


def test_a_file_with_a_hole_is_recovered_up_to_it_and_the_original_is_kept(whole: bytes, tmp_path: Path) -> None:
    frames = _frames(whole)
    hole = frames[len(frames) // 2]
    damaged = whole[: hole.start] + b"\xff" * 64 + whole[hole.start + 64 :]
    path = tmp_path / "run.rrd"
    path.write_bytes(damaged)
    ran = _recover(path)
    assert ran.returncode == 0, ran.stderr
    assert "the original is kept as" in ran.stdout
    support.check_file(path)
    assert _ids_of(path) == _ids(whole, frames[: len(frames) // 2])
    assert (tmp_path / "run.rrd.damaged").read_bytes() == damaged


def test_a_message_whose_content_is_broken_costs_no_other(whole: bytes, tmp_path: Path) -> None:
    frames = _frames(whole)
    chunks = [frame for frame in frames if frame.kind == framing.ARROW_MSG]
    broken = chunks[len(chunks) // 2]
    middle = (broken.payload + broken.end) // 2
    damaged = whole[:middle] + bytes(each ^ 0xFF for each in whole[middle : broken.end]) + whole[broken.end :]
    path = tmp_path / "run.rrd"
    # The file has no footer, like one that a killed process leaves.
    path.write_bytes(damaged[: frames[-1].start])
    result = recover.recover(path)
    support.check_file(path)
    found = {str(chunk) for chunk in support.chunk_ids(path)}
    assert len(found) == len(chunks) - 1
    assert result.original is not None
    assert result.original.read_bytes() == damaged[: frames[-1].start]


def test_a_file_that_the_sdk_left_is_recovered_too(tmp_path: Path) -> None:
    path = tmp_path / "own.rrd"
    stream = rr.RecordingStream("own")
    stream.save(path)
    for number in range(20):
        stream.log("n", rr.Scalars(float(number)))
    stream.flush()
    left = path.read_bytes()
    stream.disconnect()
    path.write_bytes(left)
    recover.recover(path)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(20))


def test_a_file_that_is_no_recording_is_left_as_it_is(whole: bytes, tmp_path: Path) -> None:
    files = {
        "text.rrd": b"not a recording at all",
        "empty.rrd": b"",
        "begun.rrd": whole[: _frames(whole)[0].end],
        "cut.rrd": whole[: framing.HEADER_SIZE + 20],
        "whole.rrd": whole,
        ".whole.rrd.part": whole[: _frames(whole)[-1].start],
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    ran = _recover(tmp_path, tmp_path / "missing.rrd")
    assert ran.returncode == 1
    assert ran.stdout == f"{tmp_path / 'whole.rrd'}: is whole\n"
    lines = sorted(ran.stderr.splitlines())
    assert len(lines) == 6, lines
    for words in (
        "text.rrd is not a recording",
        "empty.rrd is empty",
        f"no rows in {tmp_path / 'begun.rrd'}: it is the begin of a recording of the application 'app'",
        "no whole message in",
        "which is there already",
    ):
        assert any(words in line for line in lines), lines
    assert any("missing.rrd: No such file" in line for line in lines), lines
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == files


def test_a_folder_is_searched_for_files_and_parts(whole: bytes, tmp_path: Path) -> None:
    cut = whole[: _frames(whole)[-1].start]
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "one.rrd").write_bytes(cut)
    (tmp_path / ".two.rrd.part").write_bytes(cut)
    (tmp_path / ".hidden.rrd").write_bytes(cut)
    hole = _frames(whole)[len(_frames(whole)) // 2]
    damaged = whole[: hole.start] + b"\xff" * 64 + whole[hole.start + 64 :]
    (tmp_path / ".three.rrd.part").write_bytes(damaged)
    (tmp_path / "note.txt").write_bytes(b"note")
    ran = _recover(tmp_path)
    assert ran.returncode == 0, ran.stderr
    for path in (tmp_path / "inner" / "one.rrd", tmp_path / "two.rrd"):
        support.check_file(path)
        assert _ids_of(path) == _ids(whole, _frames(whole))
    names = [".hidden.rrd", "inner", "note.txt", "three.rrd", "three.rrd.damaged", "two.rrd"]
    assert sorted(each.name for each in tmp_path.iterdir()) == names
    # Bytes that could not be read are kept, also those of a part.
    assert (tmp_path / "three.rrd.damaged").read_bytes() == damaged
    assert (tmp_path / ".hidden.rrd").read_bytes() == cut

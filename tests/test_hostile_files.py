"""Files that are damaged, or made by an enemy: every command ends soon with a sentence, and no other file is touched.

The SDK's reader aborts on some of them, which would end the process that calls it.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import mpr
from mpr.rrd import framing, protobuf, recover, survey
from mpr.sdk import reader
from tests import support, tasks
from tests.pytest_plugin import inner

_TOO_LONG_SECS = 60
# A process with the SDK has about 220 MB.
_MEMORY_MAX_BYTES = 450 * 1024 * 1024
_MANY = 200_000
_COUNT = 12


class Ended(NamedTuple):
    """The end of a command."""

    status: int
    stdout: str
    stderr: str
    peak_bytes: int


_RUN = """
import resource, subprocess, sys
ran = subprocess.run([sys.executable, "-m", "mpr", *sys.argv[1:]])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, end="")
sys.exit(ran.returncode)
"""


def _mpr(*arguments: str | Path) -> Ended:
    """Run a command of mpr, and measure the largest of its processes."""
    command = [sys.executable, "-c", _RUN, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=_TOO_LONG_SECS, check=False)
    *lines, peak = ran.stdout.split("\n")
    return Ended(ran.returncode, "\n".join(lines), ran.stderr, int(peak))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, telemetry=False) as pool:
        pool.map(tasks.log_number, range(_COUNT), chunksize=1)
    return path.read_bytes()


class Parts:
    """A recording in parts, from which hostile files are made."""

    def __init__(self, whole: bytes) -> None:
        frames = framing.frames_of(whole)
        self.whole = whole
        self.end = frames[-1].start
        self.header = whole[: framing.HEADER_SIZE]
        self.info = whole[frames[0].start : frames[0].end]
        chunks = [frame for frame in frames if frame.kind == framing.ARROW_MSG]
        # The last chunk has numbers.
        self.chunk = next(frame for frame in reversed(chunks) if b"Scalars" in whole[frame.start : frame.end])
        self.payload = whole[self.chunk.payload : self.chunk.end]
        self.footer = protobuf.field(whole[frames[-1].payload : frames[-1].end], 1)

    def instead(self, frame: bytes) -> bytes:
        """The recording without its footer, with `frame` instead of a chunk."""
        return self.whole[: self.chunk.start] + frame + self.whole[self.chunk.end : self.end]

    def with_size(self, message: bytes, number: int, size: int) -> bytes:
        """`message` with another number in the field `number`."""
        spans = list(protobuf._spans(message))
        return b"".join(
            protobuf.encode_field(number, size) if tag >> 3 == number else message[start:end]
            for tag, start, _, end in spans
        )


def frame(kind: int, payload: bytes = b"") -> bytes:
    return framing.frame_header(kind, len(payload)) + payload


def _with_footer(parts: Parts, exponent: int) -> bytes:
    data = parts.with_size(protobuf.field(parts.footer, 4), 4, 2**exponent)
    return parts.whole[: parts.end] + framing.closing(parts.end, [protobuf.replace_field(parts.footer, 4, data)])


_LONG_NUMBER = b"\x0a" + b"\xff" * 250_000
# Each file, and how many of its `_COUNT` numbers can be recovered; None: no file can be made.
HOSTILE: dict[str, tuple[Callable[[Parts], bytes], int | None]] = {
    "a long number in a chunk": (lambda its: its.instead(frame(2, _LONG_NUMBER)), _COUNT - 1),
    "a long number in a store info": (lambda its: its.instead(frame(1, b"\x12" + _LONG_NUMBER)), _COUNT - 1),
    "a chunk of 2^50 bytes": (lambda its: its.instead(frame(2, its.with_size(its.payload, 3, 1 << 50))), _COUNT - 1),
    "a chunk of 2^36 bytes": (lambda its: its.instead(frame(2, its.with_size(its.payload, 3, 1 << 36))), _COUNT - 1),
    "a footer of 2^50 bytes": (lambda its: _with_footer(its, 50), _COUNT),
    "a footer of 2^63 bytes": (lambda its: _with_footer(its, 63), _COUNT),
    "empty chunks": (lambda its: its.header + its.info + frame(2) * _MANY, None),
    "empty chunks among others": (lambda its: its.instead(frame(2) * _MANY), _COUNT - 1),
    "empty store infos": (lambda its: its.header + frame(1) * _MANY, None),
    "empty blueprints": (lambda its: its.header + its.info + frame(3) * _MANY, None),
    "many store infos": (lambda its: its.header + its.info * 50_000 + its.whole[12 : its.end], _COUNT),
    "frames of an unknown kind": (lambda its: its.header + its.info + frame(77) * _MANY, None),
    "zeros": (lambda _: bytes(5_000_000), None),
    "a header and zeros": (lambda its: its.header + bytes(5_000_000), None),
    "a frame of 2^64 bytes": (lambda its: its.whole[: its.chunk.start] + struct.pack("<QQ", 2, 2**64 - 1), _COUNT - 1),
    "an empty file": (lambda _: b"", None),
    "a text": (lambda _: b"precious" * 1000, None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_recovered_as_far_as_possible(name: str, whole: bytes, tmp_path: Path) -> None:
    make, count = HOSTILE[name]
    path = tmp_path / "run.rrd"
    data = make(Parts(whole))
    path.write_bytes(data)
    ended = _mpr("recover", path)
    assert "Traceback" not in ended.stderr
    assert ended.peak_bytes < _MEMORY_MAX_BYTES
    if count is None:
        assert (ended.status, ended.stdout) == (1, "")
        assert ended.stderr.startswith("mpr recover: ")
        assert ended.stderr.count("\n") == 1
        assert [(path, data)] == [(each, each.read_bytes()) for each in tmp_path.iterdir()]
        return
    assert (ended.status, ended.stderr) == (0, "")
    support.check_file(path)
    # One message may have had several numbers.
    assert sum(support.numbers(path).values()) in ((count,) if count == _COUNT else range(1, _COUNT))
    kept = tmp_path / "run.rrd.damaged"
    assert {path, *([kept] if kept.exists() else [])} == set(tmp_path.iterdir())
    if count < _COUNT:
        assert kept.read_bytes() == data


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_compared_or_refused(name: str, whole: bytes, tmp_path: Path) -> None:
    good, path = tmp_path / "good.rrd", tmp_path / "run.rrd"
    good.write_bytes(whole)
    path.write_bytes(HOSTILE[name][0](Parts(whole)))
    ended = _mpr("compare", good, path)
    assert "Traceback" not in ended.stderr
    assert ended.peak_bytes < _MEMORY_MAX_BYTES
    if ended.status == 2:
        assert ended.stderr.startswith(f"mpr compare: cannot read the recording {path}: ")
        assert ended.stderr.count("\n") == 1
    else:
        assert ended.status in (0, 1)


def mutated(whole: bytes, seed: int) -> bytes:
    """Change some bytes of a recording, in its footer or in its messages. Half of the files have no footer."""
    its = random.Random(seed)
    data = bytearray(whole if seed % 2 else whole[: Parts(whole).end])
    for _ in range(its.randint(1, 6)):
        data[its.randrange(framing.HEADER_SIZE, len(data))] = its.choice([0, 255, its.randrange(256)])
    return bytes(data)


_READ = """
import sys
from pathlib import Path
from mpr.sdk import reader
from tests.test_hostile_files import mutated

whole, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
for seed in range(1000):
    path.write_bytes(mutated(whole, seed))
    reader.unreadable(path)
"""


def test_a_file_on_which_the_sdk_aborts_is_recovered_and_not_compared(whole: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "of the file"
    folder.mkdir()
    path, good = folder / "run.rrd", tmp_path / "good.rrd"
    good.write_bytes(whole)
    ran = subprocess.run([sys.executable, "-c", _READ, good, path], capture_output=True, timeout=600, check=False)
    assert ran.returncode == -signal.SIGABRT, "the SDK aborts on none of these files any more"
    data = path.read_bytes()
    compared = _mpr("compare", good, path)
    assert compared.status == 2
    assert compared.stderr.startswith(f"mpr compare: cannot read the recording {path}: ")
    recovered = _mpr("recover", path)
    if recovered.status:
        # A message that the SDK's reader takes, and that its program for checks refuses.
        assert (recovered.status, recovered.stderr.count("\n")) == (1, 1)
        assert "cannot be recovered, and is as it was" in recovered.stderr
        assert [(path, data)] == [(each, each.read_bytes()) for each in folder.iterdir()]
    else:
        assert recovered.stderr == ""
        assert support.rerun_cli("rrd", "verify", path).returncode == 0
        # The original is kept, unless only its footer was damaged.
        assert {data} >= {each.read_bytes() for each in folder.glob("*.damaged")}


def test_a_golden_recording_on_which_the_sdk_may_abort_fails_its_test_only(whole: bytes, tmp_path: Path) -> None:
    code = "import rerun as rr\ndef {}(mpr_golden):\n    rr.log('n', rr.Scalars(1.0), static=True)\n    mpr_golden()\n"
    names = ("test_good", "test_huge", "test_long", "test_pipe", "test_zeros")
    (tmp_path / "test_rows.py").write_text("".join(map(code.format, names)))
    assert inner.run(tmp_path, "-q", env={"CI": ""}).code == 0
    folder = tmp_path / "__recordings__" / "test_rows"
    goldens = {name: path for name in names for path in folder.glob(f"{name}*.rrd")}
    parts = Parts(whole)
    goldens["test_huge"].write_bytes(HOSTILE["a chunk of 2^50 bytes"][0](parts))
    goldens["test_long"].write_bytes(HOSTILE["a long number in a chunk"][0](parts))
    goldens["test_zeros"].write_bytes(bytes(1000))
    goldens["test_pipe"].unlink()
    os.mkfifo(goldens["test_pipe"])
    ran = inner.run(tmp_path, "-q", env={"CI": ""})
    assert "4 failed, 1 passed" in ran.stdout
    for name in names[1:]:
        assert f"cannot read the recording {goldens[name]}: " in ran.stdout
    assert "it is a FIFO" in ran.stdout


# --- what is no file, and files that change -------------------------------------------------------------------------


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _folder_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_fifo, _folder_link, Path.mkdir])
@pytest.mark.parametrize("name", ["run.rrd", ".run.rrd.part"])
def test_what_is_no_file_is_refused(make: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    ended = _mpr("recover", tmp_path / name)
    assert ended.status == 1
    assert ended.stderr.startswith("mpr recover: ")
    assert ended.stderr.count("\n") == 1
    assert [name] == [each.name for each in tmp_path.iterdir()]


def test_a_folder_is_searched_without_following_links(whole: bytes, tmp_path: Path) -> None:
    cut = whole[: Parts(whole).end]
    outside, folder = tmp_path / "outside.rrd", tmp_path / "folder"
    outside.write_bytes(cut)
    folder.mkdir()
    (folder / "run.rrd").symlink_to(outside)
    (folder / ".part.rrd.part").symlink_to(outside)
    os.mkfifo(folder / "pipe.rrd")
    ended = _mpr("recover", folder)
    assert (ended.status, ended.stdout) == (1, "")
    assert ended.stderr == f"mpr recover: there is no .rrd file in {folder}\n"
    assert outside.read_bytes() == cut


def test_a_link_to_a_file_is_followed_and_stays(whole: bytes, tmp_path: Path) -> None:
    real, link = tmp_path / "real.rrd", tmp_path / "link.rrd"
    real.write_bytes(whole[: Parts(whole).end])
    link.symlink_to(real)
    assert recover.recover(link).path == real
    assert link.is_symlink()
    support.check_file(real)


def test_planted_links_beside_the_file_are_not_followed(whole: bytes, tmp_path: Path) -> None:
    path, precious = tmp_path / "run.rrd", tmp_path / "precious"
    path.write_bytes(whole[: Parts(whole).end])
    precious.write_bytes(b"precious")
    for name in (".run.rrd.recovered", ".run.rrd.rebuilt", ".run.rrd.0123456789abcdef.recovered"):
        (tmp_path / name).symlink_to(precious)
    recover.recover(path)
    assert precious.read_bytes() == b"precious"
    assert len(support.numbers(path)) == _COUNT


def test_what_a_killed_recovery_has_left_is_removed_but_not_that_of_a_living_one(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    path.write_bytes(whole[: Parts(whole).end])
    stale = tmp_path / ".run.rrd.0123456789abcdef.recovered"
    stale.write_bytes(b"left")
    others = [tmp_path / ".run.rrd.recovered", tmp_path / ".other.rrd.0123456789abcdef.recovered"]
    for other in others:
        other.write_bytes(b"left")
    recover.recover(path)
    assert sorted([path, *others]) == sorted(tmp_path.iterdir())


@pytest.mark.parametrize("name", [".damaged", ".damaged-1"])
def test_a_kept_original_replaces_no_file(name: str, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    path.write_bytes(Parts(whole).instead(frame(2, b"broken")))
    for number in range(1 + name.count("-")):
        (tmp_path / f"run.rrd.damaged{f'-{number}' if number else ''}").symlink_to("nowhere")
    original = recover.recover(path).original
    assert original is not None
    assert not original.is_symlink()
    assert original.name == f"run.rrd.damaged-{1 + name.count('-')}"


@pytest.mark.parametrize("event", ["cut", "grown", "replaced"])
@pytest.mark.parametrize("when", ["copy", "verify"])
def test_a_file_that_changes_meanwhile_is_left_alone(
    event: str, when: str, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.rrd"
    path.write_bytes(whole[: Parts(whole).end])

    def change() -> bytes:
        if event == "replaced":
            path.unlink()
            path.write_bytes(b"new")
        elif event == "grown":
            with path.open("ab") as file:
                file.write(b"more")
        else:
            os.truncate(path, 1000)
        return path.read_bytes()

    left: list[bytes] = []
    if when == "copy":
        copied = recover._copied

        def copy(*arguments: object) -> object:
            left.append(change())
            return copied(*arguments)  # type: ignore[arg-type]  # passed through

        monkeypatch.setattr(recover, "_copied", copy)
    else:
        monkeypatch.setattr(recover.programs, "verify", lambda _: left.append(change()))
    with pytest.raises(mpr.SinkError, match=r"changed by another process meanwhile|made it shorter meanwhile"):
        recover.recover(path)
    assert [(path, left[0])] == [(each, each.read_bytes()) for each in tmp_path.iterdir()]


@pytest.mark.parametrize("unreadable", [False, True])
def test_a_new_file_that_the_sdk_refuses_replaces_nothing(
    unreadable: bool, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.rrd"
    data = Parts(whole).instead(frame(2, _LONG_NUMBER)) if unreadable else whole[: Parts(whole).end]
    path.write_bytes(data)
    monkeypatch.setattr(recover.programs, "verify", lambda _: "as if")
    with pytest.raises(mpr.SinkError, match="cannot be recovered, and is as it was: as if"):
        recover.recover(path)
    assert [(path, data)] == [(each, each.read_bytes()) for each in tmp_path.iterdir()]


@pytest.mark.parametrize("there", [0, 5, 12, 20, 27, 28, 40, 200])
def test_a_read_that_is_shorter_than_the_file_ends_a_scan(there: int, whole: bytes) -> None:
    """The file was cut after its size was read."""

    def read(offset: int, size: int) -> bytes:
        return whole[:there][offset : offset + size]

    frames, stop = framing.scan(read, framing.HEADER_SIZE, len(whole))
    known = framing.frames_of(whole)
    assert frames == known[: len(frames)]
    assert stop == (frames[-1].end if frames else framing.HEADER_SIZE)
    if there >= framing.HEADER_SIZE:
        assert survey.survey(read, len(whole)).end <= len(whole)


def test_the_sdk_is_not_asked_to_read_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.rrd")
    for path in (tmp_path / "pipe.rrd", tmp_path, Path("/dev/zero")):
        assert "and not a regular file" in (reader.refusal(path) or "")

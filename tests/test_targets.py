"""A sink replaces regular files only. It follows no link that somebody has planted, and never writes to a device."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr import files
from mpr.rrd.part_file import PartFile
from mpr.rrd.writer import FileWriter
from mpr.sdk import programs
from tests import support, tasks


def _log(sinks: Any, count: int = 3) -> None:
    with mpr.Pool("app", 1, sinks=sinks, start_method="fork") as pool:
        pool.map(tasks.log_number, range(count))


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


def _socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def _link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


_KINDS = {
    "a FIFO": _fifo,
    "a character device": _device,
    "a socket": _socket,
    "a folder": Path.mkdir,
    "a FIFO behind a link": _link_to_fifo,
}


def _state(folder: Path) -> set[tuple[str, int, int]]:
    found = ((each, each.lstat()) for each in folder.rglob("*"))
    return {(each.name, state.st_ino, state.st_mode) for each, state in found}


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("as_word", [False, True])
def test_a_target_that_is_no_file_is_refused(kind: str, as_word: bool, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    _KINDS[kind](path)
    before = _state(tmp_path)
    with pytest.raises(mpr.ConfigError, match=f"{path.name}' is {kind.partition(' behind')[0]}"):
        mpr.Pool("app", 1, sinks=str(path) if as_word else mpr.FileSink(path=path))
    assert _state(tmp_path) == before


def test_dev_null_stays_a_device() -> None:
    before = os.stat("/dev/null")
    with pytest.raises(mpr.ConfigError, match="'/dev/null' is a character device"):
        mpr.Pool("app", 1, sinks="/dev/null")
    assert os.stat("/dev/null") == before


@pytest.mark.parametrize("kind", [each for each in _KINDS if each != "a FIFO behind a link"])
@pytest.mark.parametrize("name", ["shared.rrd", "000000-log_number.rrd"])
def test_a_file_of_a_folder_is_refused_too(kind: str, name: str, tmp_path: Path) -> None:
    _KINDS[kind](tmp_path / name)
    before = _state(tmp_path)
    with pytest.raises(mpr.SinkError, match=f"cannot replace .*{name}: it is {kind}, and not a regular file"):
        _log(mpr.DirectorySink(path=tmp_path), 1)
    assert {each for each in _state(tmp_path) if each[0] == name} <= before


def _planted_link(path: Path) -> None:
    path.symlink_to("precious")


def _planted_hard_link(path: Path) -> None:
    path.hardlink_to(path.with_name("precious"))


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (_planted_link, "it is a symbolic link"),
        (_planted_hard_link, "it has a second name"),
        (_fifo, "it is a FIFO"),
        (_socket, "it is a socket"),
        (Path.mkdir, "it is a folder"),
    ],
)
def test_what_is_planted_with_the_name_of_the_part_is_refused(
    plant: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    plant(tmp_path / ".run.rrd.part")
    before = _state(tmp_path)
    with pytest.raises(
        mpr.SinkError, match=rf"cannot use .*\.run\.rrd\.part for writing run\.rrd: {words}.*; remove it"
    ):
        _log(tmp_path / "run.rrd")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert _state(tmp_path) == before


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
def test_a_stale_part_does_not_hinder_the_next_run(size: int, tmp_path: Path) -> None:
    (tmp_path / ".run.rrd.part").write_bytes(b"x" * size)
    _log(tmp_path / "run.rrd")
    support.check_file(tmp_path / "run.rrd")
    assert support.numbers(tmp_path / "run.rrd") == Counter(range(3))


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("compact", [False, True])
def test_a_link_to_a_file_is_written_through(there: bool, compact: bool, tmp_path: Path) -> None:
    real, link = tmp_path / "data" / "real.rrd", tmp_path / "run.rrd"
    real.parent.mkdir()
    if there:
        real.write_bytes(b"old")
    link.symlink_to("data/real.rrd")
    _log(mpr.FileSink(path=link, compact=compact))
    assert os.readlink(link) == "data/real.rrd"
    assert [real] == list(real.parent.iterdir())
    support.check_file(real)
    assert support.numbers(link) == Counter(range(3))


def test_a_link_and_its_target_are_one_place(tmp_path: Path) -> None:
    link = tmp_path / "link.rrd"
    link.symlink_to("run.rrd")
    with pytest.raises(mpr.ConfigError, match="two sinks"):
        mpr.Pool("app", 1, sinks=[link, tmp_path / "run.rrd"])
    with mpr.Pool("app", 1, sinks=link), pytest.raises(mpr.SinkError, match="written by another recording"):
        mpr.Pool("app", 1, sinks=tmp_path / "run.rrd")


@pytest.mark.parametrize("link", ["itself.rrd", "nowhere/run.rrd"])
def test_a_link_to_a_missing_file_is_refused(link: str, tmp_path: Path) -> None:
    (tmp_path / "itself.rrd").symlink_to(link)
    with pytest.raises(mpr.SinkError, match=r"cannot (replace|write into the folder of)"):
        _log(tmp_path / "itself.rrd")
    assert [tmp_path / "itself.rrd"] == list(tmp_path.iterdir())


def test_a_link_of_another_user_in_a_common_folder_is_not_followed(tmp_path: Path) -> None:
    """Linux can forbid that for every program (`fs.protected_symlinks`), but not every system does."""
    if os.geteuid():
        pytest.skip("only root can make a link of another user")
    (tmp_path / "precious").write_bytes(b"precious")
    link = tmp_path / "run.rrd"
    link.symlink_to("precious")
    os.lchown(link, 12345, 12345)
    tmp_path.chmod(0o1777)
    with pytest.raises(mpr.SinkError, match="a link of another user"):
        _log(link)
    assert (tmp_path / "precious").read_bytes() == b"precious"
    tmp_path.chmod(0o755)
    assert files.without_link(link) == tmp_path / "precious"


@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "a folder"])
def test_what_appears_at_the_target_meanwhile_is_not_replaced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    file = PartFile(path)
    _KINDS[kind](path)
    with pytest.raises(OSError, match=f"it is {kind}, and not a regular file"):
        file.publish()
    file.close()
    assert [path] == list(tmp_path.iterdir())


def test_a_part_that_gets_its_name_while_it_is_opened_is_not_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.rrd"
    first = PartFile(path)
    os.write(first.fd, b"rows")
    lock = PartFile._lock

    def finish_first(self: PartFile, fd: int) -> None:
        if not first.published:
            first.publish()
            first.close()
        lock(self, fd)

    monkeypatch.setattr(PartFile, "_lock", finish_first)
    second = PartFile(path)
    assert path.read_bytes() == b"rows"
    os.write(second.fd, b"new rows")
    second.publish()
    second.close()
    assert [(path, b"new rows")] == [(each, each.read_bytes()) for each in tmp_path.iterdir()]


@pytest.mark.parametrize("name", [".run.rrd.rebuilt", ".run.rrd.0123456789abcdef.rebuilt"])
def test_a_link_planted_for_a_rebuilt_file_is_not_followed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / name).symlink_to("precious")
    monkeypatch.setattr(FileWriter, "_refusal", lambda _: "as if")
    path = tmp_path / "run.rrd"
    _log(path)
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert support.numbers(path) == Counter(range(3))
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_rebuilding_that_fails_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path, target: int) -> None:
        os.write(target, b"a part")
        raise OSError(5, "as if")

    monkeypatch.setattr(programs, "optimize", fail)
    path = tmp_path / "run.rrd"
    with pytest.raises(mpr.SinkError, match="cannot rebuild"):
        _log(mpr.FileSink(path=path, compact=True))
    support.check_file(path)
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["a\0b.rrd", "\0"])
def test_a_path_with_a_nul_is_refused(path: str) -> None:
    with pytest.raises(mpr.ConfigError, match="cannot be the path of a file"):
        mpr.FileSink(path=path)

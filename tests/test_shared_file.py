"""The parent opens a file of another process only if it is proved that this process has made it for the parent."""

from __future__ import annotations

import fcntl
import mmap
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mpr
from mpr.errors import ReleasedError
from mpr.rrd.segment import MessageBytes, SegmentSource
from mpr.transport import shared_file
from mpr.transport.messages import Hello
from mpr.transport.outbox import Outbox, OutboxReader
from mpr.transport.status_page import StatusPage, StatusPageReader
from tests import functions, support

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory files are those of Linux")

_NAME = "mpr-outbox-" + "0" * 32
_FILE = f"outbox-{'0' * 32}-1-ab.rrd"


def _address(fd: int, name: str = _NAME) -> str:
    return f"/proc/{os.getpid()}/fd/{fd}#{name}"


def _memory_file(name: str, *, sealed: bool) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def _regular_file(folder: Path) -> int:
    return os.open(folder / f"memfd:{_NAME} (deleted)", os.O_RDWR | os.O_CREAT)


# How to make a file that is not the one that was meant. Each has the address of the file, or of its descriptor.
_OTHERS: dict[str, Callable[[Path], int | str]] = {
    "a file on the disk": _regular_file,
    "a file of the system": lambda _: os.open("/etc/hostname", os.O_RDONLY),
    "a device": lambda _: os.open("/dev/null", os.O_RDWR),
    "a pipe": lambda _: os.pipe()[0],
    "another memory file": lambda _: _memory_file("mpr-outbox-" + "1" * 32, sealed=True),
    "a memory file of another program": lambda _: _memory_file("mpr-outbox", sealed=True),
    "a memory file that can shrink": lambda _: _memory_file(_NAME, sealed=False),
    "no file": lambda _: f"/proc/{os.getpid()}/fd/999999#{_NAME}",
    "no process": lambda _: f"/proc/4194305/fd/1#{_NAME}",
    "no name": lambda _: f"/proc/{os.getpid()}/fd/1",
    "a path in the folder": lambda folder: str(folder / "owner"),
    "a path that leaves the folder": lambda folder: str(folder / ".." / _FILE),
    "the folder": lambda folder: str(folder / ".."),
    "a path elsewhere": lambda _: "/etc/passwd",
    "nothing": lambda _: "",
    "a NUL": lambda folder: str(folder / (_FILE + "\0")),
    "many digits": lambda _: f"/proc/{'9' * 5000}/fd/1#{_NAME}",
    "digits of another script": lambda _: f"/proc/\u0661/fd/\u0661#{_NAME}",
}


@pytest.fixture
def closing() -> Iterator[list[int]]:
    fds: list[int] = []
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("other", _OTHERS)
@pytest.mark.parametrize("opens", [OutboxReader, StatusPageReader])
def test_another_file_is_not_opened(other: str, opens: type, tmp_path: Path, closing: list[int]) -> None:
    made = _OTHERS[other](tmp_path)
    if isinstance(made, int):
        closing.append(made)
    files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError):  # noqa: PT011  # of several types, none of which matters
        opens(made if isinstance(made, str) else _address(made), tmp_path)
    assert len(os.listdir("/proc/self/fd")) == files


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/etc/hostname", path), os.mkdir])
def test_what_is_no_file_is_not_opened_in_the_folder(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / _FILE
    make(path)
    with pytest.raises(OSError):  # noqa: PT011  # of several types, none of which matters
        OutboxReader(str(path), tmp_path)


def test_a_file_is_open_once(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    reader = OutboxReader(outbox.address, tmp_path)
    with pytest.raises(BlockingIOError):
        OutboxReader(outbox.address, tmp_path)
    reader.close()
    OutboxReader(outbox.address, tmp_path).close()
    outbox.close()


def test_an_outbox_grows_and_does_not_shrink(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    reader = OutboxReader(outbox.address, tmp_path)
    os.write(outbox.fd, b"x" * 20_000)
    with pytest.raises(PermissionError):
        os.ftruncate(outbox.fd, 19_999)
    with pytest.raises(PermissionError):
        os.open(outbox.path, os.O_RDWR | os.O_TRUNC)
    # And no seal can take the parent the right to release what it has read.
    with pytest.raises(PermissionError):
        fcntl.fcntl(outbox.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert reader.is_whole(0, 20_000)
    assert not reader.is_whole(0, 20_001)
    assert not reader.is_whole(30_000, 30_001)
    reader.release(0, 9_000)
    assert reader.is_whole(9_000, 20_000)
    assert not reader.is_whole(8_000, 20_000)
    reader.close()
    outbox.close()


def test_a_page_that_could_vanish_is_not_mapped(tmp_path: Path) -> None:
    path = tmp_path / _FILE
    path.write_bytes(bytes(mmap.PAGESIZE))
    with pytest.raises(OSError, match="shrink"):
        StatusPageReader(str(path), tmp_path)


@pytest.mark.parametrize("page_is_its_own", [True, False])
def test_rows_travel_in_messages_if_either_file_is_not_proved(page_is_its_own: bool, tmp_path: Path) -> None:
    outbox, page = Outbox(tmp_path), StatusPage(tmp_path)
    other = _address(0)
    addresses = (other, page.address) if page_is_its_own else (outbox.address, other)
    intake = support.intake_of(Hello("secret", 1, os.getpid(), "route", *addresses), tmp_path)
    assert intake.is_inline
    intake.close()
    page.close()
    outbox.close()


# Holds a memory file under every small number, as a program that knows nothing of mpr. Prints whether it is whole.
_VICTIM = """
import os
fd = os.memfd_create("mpr-outbox")
os.write(fd, b"precious" * (1024 * 1024))
for number in set(range(3, 200)) - {fd}:
    os.dup2(fd, number)
print("ready", flush=True)
input()
print(os.fstat(fd).st_blocks * 512, os.pread(fd, 2**24, 0) == b"precious" * (1024 * 1024))
"""


def test_a_process_whose_numbers_are_those_of_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another container: its process id is that of another process here, which must not notice anything."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    victim = subprocess.Popen([sys.executable, "-c", _VICTIM], text=True, **pipes)  # type: ignore[call-overload]
    with victim:
        assert victim.stdout.readline() == "ready\n"
        # The id of another process says nothing of this one.
        monkeypatch.setattr("mpr.aggregator.aggregator.process_lives", lambda _: True)
        path = tmp_path / "run.rrd"
        with mpr.SharedRecording("app", sinks=path):
            target = functions.log_as_in_another_container
            child = multiprocessing.get_context("spawn").Process(target=target, args=(30, victim.pid))
            child.start()
            child.join(60)
            assert child.exitcode == 0
        reported, _ = victim.communicate("go on\n", timeout=60)
    assert reported == f"{8 * 1024 * 1024} True\n"
    support.check_file(path)
    assert support.numbers(path) == Counter(range(30))


def test_an_address_has_no_path_of_a_disk(tmp_path: Path) -> None:
    memory, address = shared_file.new_shared(tmp_path)
    assert address.startswith(f"/proc/{os.getpid()}/fd/{memory.fd}#mpr-outbox-")
    assert shared_file.is_sealed(memory.fd)
    with open(tmp_path / "file", "wb") as file:
        assert not shared_file.is_sealed(file.fileno())
    memory.close()


def test_no_source_of_rows_returns_other_bytes_for_those_that_were_released(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    reader = OutboxReader(outbox.address, tmp_path)
    os.write(outbox.fd, bytes(range(1, 201)) * 100)
    sources: list[SegmentSource] = [reader, MessageBytes(9_000, bytes(range(1, 201)) * 55)]
    reader.release(0, 9_000)
    with (tmp_path / "copy").open("wb", buffering=0) as copy:
        for source in sources:
            # Also in the last page, whose first bytes are still there.
            for offset in (0, 8_193, 8_999):
                with pytest.raises(ReleasedError):
                    source.read(offset, 12)
                with pytest.raises(ReleasedError):
                    source.copy(copy.fileno(), offset, 12)
            assert source.read(9_000, 3) == b"\x01\x02\x03"
            source.copy(copy.fileno(), 9_000, 3)
    assert (tmp_path / "copy").read_bytes() == b"\x01\x02\x03" * 2
    # The producer notices what the parent has released.
    with pytest.raises(ReleasedError):
        outbox.read(0, 12)
    assert outbox.read(9_000, 3) == b"\x01\x02\x03"
    reader.close()
    outbox.close()

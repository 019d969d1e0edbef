"""Systems without files in memory, without `/proc`, or without `sendfile`, as some sandboxes are.

The calls are replaced in every process of the run, before it imports anything of mpr: a `sitecustomize` on its path.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest

import mpr
from mpr.rrd.part_file import PartFile
from mpr.rrd.recover import recover
from mpr.transport.outbox import Outbox, OutboxReader
from tests import support

_SITE = """
import errno, os

def refuse(number):
    def call(*arguments, **keywords):
        raise OSError(number, os.strerror(number))
    return call

missing = os.environ["MISSING"].split()
if "memfd" in missing:
    os.memfd_create = refuse(errno.ENOSYS)
if "sendfile" in missing:
    os.sendfile = refuse(errno.EPERM)
# Other processes' descriptors cannot be opened, as for another user or in another namespace.
if "foreign" in missing or "proc" in missing:
    opened = os.open
    def open_other(path, *arguments, **keywords):
        if str(path).startswith("/proc/") and not str(path).startswith("/proc/self/"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *arguments, **keywords)
    os.open = open_other
if "proc" in missing:
    exists = os.path.exists
    os.path.exists = lambda path: not str(path).startswith("/proc/self/fd/") and exists(path)
if "holes" in missing:
    import ctypes
    os.posix_fallocate = refuse(errno.ENOSYS)
    class Library:
        def __init__(self, library):
            self.library = library
        def __getattr__(self, name):
            if name != "fallocate":
                return getattr(self.library, name)
            class Fallocate:
                def __call__(self, *arguments):
                    return -1
            return Fallocate()
    loaded = ctypes.CDLL
    ctypes.CDLL = lambda name, *arguments, **keywords: Library(loaded(name, *arguments, **keywords))
if "places" in missing:
    opened_before = os.open
    def open_no_outbox(path, *arguments, **keywords):
        if "outbox-" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened_before(path, *arguments, **keywords)
    os.open = open_no_outbox
"""

_RUN = """
import os, sys
from pathlib import Path
import mpr
from mpr import files
from tests import tasks

if __name__ == "__main__":
    path, start_method, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    stream = mpr.BinaryStreamSink()
    sinks = {"file": path, "folder": mpr.DirectorySink(path=path), "stream": stream}[kind]
    with mpr.Pool("app", 2, sinks=sinks, start_method=start_method) as pool:
        assert pool.map(tasks.log_number, range(40), chunksize=3) == list(range(40))
        # More than an outbox holds.
        pool.starmap(tasks.log_images, [(number, 40) for number in range(int(sys.argv[4]))])
    if kind == "stream":
        path.write_bytes(b"".join(stream))
    file = files.MemoryFile("mpr-probe")
    print(file.in_memory)
    file.close()
"""

_MISSING = ("memfd", "sendfile", "foreign", "proc", "holes", "memfd sendfile foreign holes")


def _ran(tmp_path: Path, missing: str, *arguments: str | Path, source: str = _RUN) -> tuple[int, str, str]:
    site, temporary = tmp_path / "site", tmp_path / "temporary"
    site.mkdir()
    temporary.mkdir()
    (site / "sitecustomize.py").write_text(_SITE)
    root = Path(__file__).parent.parent
    env = {"MISSING": missing, "PYTHONPATH": f"{site}:{root}", "TMPDIR": str(temporary)}
    ran = support.run_python(source, *arguments, env=env)
    # Nothing is left of the ordinary files either.
    assert [] == [path for path in temporary.rglob("*") if path.is_file()]
    return ran.returncode, ran.stdout, ran.stderr


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.rrd")) if path.is_dir() else [path]


def _numbers(path: Path) -> Counter[int]:
    """The same as `support.numbers`, but images are not decoded, because that takes long."""
    batches = (chunk.to_record_batch() for chunk in support.chunks(path) if str(chunk.entity_path) == "/n")
    cells = (cell for batch in batches for cell in support.cells_of("/n", batch))
    return Counter(int(float(cell.value.strip("[]"))) for cell in cells)


_PAIRS = [
    *(("forkserver", "file", each) for each in _MISSING),
    *itertools.product(["spawn", "fork"], ["file"], _MISSING[-1:]),
    *itertools.product(["forkserver"], ["stream", "folder"], ["memfd", "proc"]),
]


@pytest.mark.parametrize(("start_method", "kind", "missing"), _PAIRS)
def test_all_rows_come(start_method: str, kind: str, missing: str, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    images = 2 if kind == "file" else 0
    status, stdout, stderr = _ran(tmp_path, missing, path, start_method, kind, str(images))
    assert (status, stderr) == (0, "")
    assert stdout == f"{not {'memfd', 'proc'} & set(missing.split())}\n"
    found: Counter[int] = Counter()
    for file in _files(path):
        if kind != "folder":
            support.check_file(file)
        found += _numbers(file)
    assert found == Counter(range(40))
    if images:
        counts = support.row_counts(path)
        assert {(f"/image/{number}", step) for number in range(2) for step in range(40)} <= counts.keys()


@pytest.mark.parametrize("name", ["EINVAL", "ENOSYS", "ENOTSOCK", "EOPNOTSUPP", "EPERM", "EACCES", "EIO"])
def test_bytes_are_copied_by_hand_where_sendfile_is_not_supported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(tmp_path)
    data = os.urandom(3_000_000)
    os.write(outbox.fd, data)
    reader = OutboxReader(outbox.address, tmp_path)

    def refuse(*_: object) -> int:
        raise OSError(getattr(errno, name), name)

    monkeypatch.setattr(os, "sendfile", refuse)
    with (tmp_path / "copy").open("w+b") as file:
        if name == "EIO":
            with pytest.raises(OSError, match="EIO"):
                reader.copy(file.fileno(), 0, 10)
        else:
            reader.copy(file.fileno(), 1000, len(data) - 1000)
            assert file.read() == b""
            file.seek(0)
            assert file.read() == data[1000:]
    reader.close()
    outbox.close()


def test_without_hole_punching_the_parent_opens_no_outbox_and_credit_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpr.transport.outbox._fallocate", None)
    outbox = Outbox(tmp_path)
    os.write(outbox.fd, bytes(100_000))
    with pytest.raises(OSError, match="cannot release a part of a file"):
        OutboxReader(outbox.address, tmp_path)
    outbox.release(0, 60_000)
    assert outbox.held_bytes() == 40_000
    outbox.release(0, 50_000)
    assert outbox.held_bytes() == 40_000
    outbox.close()


def test_a_system_without_any_place_for_rows_is_reported_in_one_message(tmp_path: Path) -> None:
    status, _, stderr = _ran(tmp_path, "memfd places", tmp_path / "run.rrd", "forkserver", "file", "0")
    assert status == 1
    assert stderr.splitlines()[-1].startswith(
        "mpr.WorkerStartError: workers cannot start: a process has no place for its rows: there are no files in memory "
        "(memfd_create: Function not implemented), and no file can be made in "
    )
    assert "No space left on device" in stderr.splitlines()[-1]
    assert "__main__" not in stderr.splitlines()[-1]


def test_a_file_system_without_locks_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tempfile.mkdtemp(prefix="t-", dir="/tmp")
    monkeypatch.setattr(tempfile, "tempdir", temporary)
    path = tmp_path / "run.rrd"
    path.write_bytes(b"precious")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    advice = r"its file system cannot lock files \(Function not implemented\): use a folder on a local disk"
    with pytest.raises(mpr.RecordingError, match=rf"\(TMPDIR\), {temporary}, cannot be used: {advice}"):
        mpr.SharedRecording("app")
    # The folder is empty.
    os.rmdir(temporary)
    with pytest.raises(mpr.SinkError, match=rf"cannot write {path}: {advice}"):
        PartFile(path)
    with pytest.raises(mpr.SinkError, match=rf"cannot recover {path}: {advice}"):
        recover(path)
    assert b"precious" == path.read_bytes()


# --- the private folder ---------------------------------------------------------------------------------------------

_FOLDER = """
import os, shutil, signal, sys
from pathlib import Path
import mpr
from mpr.producer import recording_watch
from tests import support, tasks

# A worker looks whether the recording is there before each announcement.
recording_watch.LOOK_SECS = 0

def pid(number):
    tasks.log_number(number)
    return os.getpid()

if __name__ == "__main__":
    path, event = Path(sys.argv[1]), sys.argv[2]
    with mpr.Pool("app", 2, sinks=path, start_method="fork") as pool:
        pool.map(tasks.log_number, range(10), chunksize=1)
        # Both workers have joined.
        pool.starmap(tasks.pid_after_meeting, [(path.parent / "meeting", 2)] * 2, chunksize=1)
        (folder,) = support.folders_of(os.getpid())
        if event == "moved":
            folder.rename(path.parent / "moved")
        else:
            shutil.rmtree(folder)
        print(folder)
        pids = pool.map(pid, range(10, 20), chunksize=1)
        if "workers" in sys.argv:
            for each in set(pids):
                os.kill(each, signal.SIGKILL)
            pool.map(tasks.log_number, range(20, 30), chunksize=1)
"""


@pytest.mark.parametrize("event", ["moved", "removed"])
@pytest.mark.parametrize("workers_die", [False, True])
def test_without_the_private_folder_no_row_is_lost_and_it_is_said(
    event: str, workers_die: bool, tmp_path: Path
) -> None:
    path = tmp_path / "run.rrd"
    more = ["workers"] if workers_die else []
    root = Path(__file__).parent.parent
    ran = support.run_python(_FOLDER, path, event, *more, env={"PYTHONPATH": str(root)})
    folder = ran.stdout.split("\n")[0]
    what = f"moved to {tmp_path / 'moved'}" if event == "moved" else "removed or moved"
    said = f"the folder {folder}, in which processes join the recording, was {what} by another program."
    assert said in ran.stderr
    assert f"The rows of all results that you have are in {path}" in ran.stderr
    assert ran.returncode == int(workers_die), ran.stderr
    if workers_die:
        assert f"mpr.WorkerStartError: workers cannot start: {said}" in ran.stderr
    support.check_file(path)
    found = support.numbers(path)
    assert Counter(range(20)) == Counter({number: count for number, count in found.items() if number < 20})

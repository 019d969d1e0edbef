"""A durable sink that fails: all callers that wait get the error at once, accepted rows stay, other sinks go on."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.rrd import recover
from tests import support, tasks, viewers


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_is_an_error_at_once_and_the_other_sink_gets_everything(small_disk: Path, tmp_path: Path) -> None:
    full, other = small_disk / "full.rrd", tmp_path / "other.rrd"
    go_on = tmp_path / "go on"
    pool = mpr.Pool("app", 2, sinks=[full, other])
    assert pool.map(tasks.log_number, range(20), chunksize=1) == list(range(20))
    waiting = pool.apply_async(tasks.log_then_wait, (20, tmp_path / "started", go_on))
    support.wait_for((tmp_path / "started").exists)
    with pytest.raises(mpr.SinkError, match=r"cannot write .*full\.rrd: No space left.*mpr recover") as caught:
        pool.apply(tasks.log_images, (0, 5))
    assert caught.value.errno == errno.ENOSPC
    # The other task still runs, but its rows cannot be written.
    with pytest.raises(mpr.SinkError, match=r"full\.rrd"):
        waiting.get(30)
    assert not go_on.exists()
    go_on.touch()
    with pytest.raises(mpr.SinkError, match=r"full\.rrd"):
        pool.apply(tasks.log_number, (21,))
    pool.close()
    with pytest.raises(mpr.SinkError, match=r"full\.rrd"):
        pool.join()
    support.check_file(other)
    assert support.numbers(other) == Counter(range(22))
    assert sum(entity == "/image/0" for entity, _ in support.row_counts(other)) == 5
    # Accepted rows are readable, and the file becomes valid when there is room.
    kept = support.numbers_of_growing(full)
    # The task that was running had no result yet.
    assert kept in (Counter(range(20)), Counter(range(21)))
    left = full.read_bytes()
    filler = small_disk / "filler"
    _fill(filler)
    with pytest.raises(mpr.SinkError, match="cannot recover"):
        recover.recover(full)
    assert full.read_bytes() == left
    filler.unlink()
    recover.recover(full)
    support.check_file(full)
    assert support.numbers(full) == kept


def test_a_full_disk_is_an_error_too_if_each_worker_writes_its_own_file(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = small_disk / "run.rrd"
    pool = mpr.Pool("app", 1, sinks=path, route="direct", start_method="fork", telemetry=False)
    assert pool.map(tasks.log_number, range(20), chunksize=1) == list(range(20))
    before = [pool.apply_async(tasks.log_number, (number,)) for number in range(20, 40)]
    # Either the worker notices first, or the parent when it writes a note into its own file.
    with pytest.raises((mpr.DeliveryError, mpr.SinkError), match=r"run\.rrd"):
        pool.apply(tasks.log_images, (0, 5))
    # The rows of these tasks were written before the disk was full.
    assert [each.get(60) for each in before] == list(range(20, 40))
    # The worker that comes next cannot even begin a file.
    with pytest.raises((mpr.DeliveryError, mpr.SinkError), match="No space left"):
        pool.apply(tasks.log_number, (40,))
    for worker in (1, 2):
        assert f"cannot bring its rows to {path}.parts/worker-{worker:06d}-" in caplog.text
    pool.close()
    with pytest.raises(mpr.SinkError, match="No space left"):
        pool.join()
    # Written rows stay in the files of the workers.
    kept = [each for each in path.with_name("run.rrd.parts").iterdir() if each.stat().st_size]
    assert sum((support.numbers_of_growing(each) for each in kept), Counter()) == Counter(range(40))


def test_a_disk_that_fails_together_with_a_viewer_is_an_error(small_disk: Path, tmp_path: Path) -> None:
    """The SDK may name the viewer only, whose loss alone would cost nothing."""
    path, port = small_disk / "run.rrd", viewers.free_port()
    with viewers.listening(tmp_path / "viewer.rrd", port) as viewer:
        sinks = [path, viewers.url_of(port)]
        pool = mpr.Pool("app", 1, sinks=sinks, route="direct", start_method="fork", telemetry=False)
        assert pool.map(tasks.log_number, range(20), chunksize=1) == list(range(20))
        viewer.kill()
        with pytest.raises((mpr.DeliveryError, mpr.SinkError, mpr.WorkerDiedError)):
            pool.apply(tasks.log_images, (0, 5))
        with pytest.raises(mpr.SinkError, match="No space left"):
            pool.terminate()
            pool.join()
    kept = [each for each in path.with_name("run.rrd.parts").iterdir() if each.stat().st_size]
    assert sum((support.numbers_of_growing(each) for each in kept), Counter()) == Counter(range(20))


def _fill(path: Path) -> None:
    """Leave no room on the disk of `path`."""
    with path.open("wb", buffering=0) as out:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while out.write(bytes(size)):
                    pass


def test_a_disk_that_is_full_only_at_the_end_loses_no_row(small_disk: Path, tmp_path: Path) -> None:
    full, other = small_disk / "full.rrd", tmp_path / "other.rrd"
    pool = mpr.Pool("app", 1, sinks=[full, other])
    pool.map(tasks.log_number, range(20), chunksize=1)
    _fill(small_disk / "filler")
    pool.close()
    with pytest.raises(mpr.SinkError, match=r"cannot (write|finish) .*full\.rrd: No space left") as caught:
        pool.join()
    assert caught.value.errno == errno.ENOSPC
    support.check_file(other)
    (small_disk / "filler").unlink()
    recover.recover(full)
    for path in (full, other):
        support.check_file(path)
        assert support.numbers(path) == Counter(range(20))


@pytest.mark.parametrize("size", [0, 300])
def test_a_file_that_another_program_cuts_is_an_error_and_never_a_success(size: int, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    pool = mpr.Pool("app", 1, sinks=path)
    pool.map(tasks.log_number, range(3))
    os.truncate(path, size)
    with pytest.raises(mpr.SinkError, match=rf"run\.rrd: of the \d+ bytes that were written, it has {size}"):
        pool.map(tasks.log_number, range(3))
    pool.close()
    with pytest.raises(mpr.SinkError, match="were written"):
        pool.join()
    assert path.stat().st_size == size


def test_a_file_that_is_cut_at_the_very_end_is_an_error_too(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    pool = mpr.Pool("app", 1, sinks=path)
    pool.map(tasks.log_number, range(3))
    os.truncate(path, 300)
    pool.close()
    with pytest.raises(mpr.SinkError, match=r"cannot (write|finish) .*were written"):
        pool.join()


def test_the_error_of_a_disk_that_fails_has_its_errno(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = tmp_path / "bad.rrd", tmp_path / "good.rrd"
    pool = mpr.Pool("app", 1, sinks=[bad, good])
    pool.map(tasks.log_number, range(3))
    failing = os.stat(bad).st_ino
    sendfile = os.sendfile

    def broken(target: int, *arguments: Any) -> int:
        if os.fstat(target).st_ino == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return sendfile(target, *arguments)

    monkeypatch.setattr(os, "sendfile", broken)
    with pytest.raises(mpr.SinkError, match=r"bad\.rrd: Input/output error") as caught:
        pool.apply(tasks.log_number, (3,))
    assert caught.value.errno == errno.EIO
    pool.close()
    with pytest.raises(mpr.SinkError, match=r"bad\.rrd"):
        pool.join()
    support.check_file(good)
    assert support.numbers(good) == Counter(range(4))
    recover.recover(bad)
    support.check_file(bad)
    assert support.numbers(bad) == Counter(range(3))


def test_a_blueprint_for_which_there_is_no_space_is_an_error() -> None:
    ran = support.run_python(
        """
import resource
import rerun.blueprint as rrb
from mpr.sdk import encoder

# The SDK would wait for ever.
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    encoder.encoded_blueprint("app", rrb.Blueprint(rrb.TextLogView()))
except OSError as error:
    print(error.strerror)
"""
    )
    assert ran.stdout == "File too large\n"

"""Is memory bounded where the sink is slower than the workers?

Two workers log 2 GB of images into a file that takes only 50 MB/s. Every 50 ms, a thread reads the resident memory of
each worker and of the parent. It also reads the size of the workers' memory files, which are not a part of any
process's resident memory. At the end, all rows are counted.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from pathlib import Path

import psutil

import mpr
from benchmarks import common, report, works
from mpr.rrd.segment import Segment
from mpr.rrd.writer import FileWriter
from mpr.sinks import file

WORKERS = 2
IMAGES, QUICK_IMAGES = 1_100, 110
BYTES_PER_SEC = 50e6
LIMIT_MB = 200
_SAMPLE_SECS = 0.05


class SlowWriter(FileWriter):
    """Writes a file as slowly as a disk that takes 50 MB/s."""

    _free_at = 0.0

    def accept(self, segment: Segment, *, published: bool) -> None:
        # The time that the real disk needs is not added: it is a part of the time that the slow disk would need.
        self._free_at = max(self._free_at, time.perf_counter())
        self._free_at += sum(frame.end - frame.start for frame in segment.frames) / BYTES_PER_SEC
        super().accept(segment, published=published)
        time.sleep(max(0.0, self._free_at - time.perf_counter()))


def _memory_files_mb(pid: int) -> float:
    """Return how many MB of memory are occupied by the memory files that the process `pid` has open."""
    occupied = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(entry.readlink()).startswith("/memfd:"):
                # The SDK opens an outbox a second time, so one file has two descriptors.
                found = entry.stat()
                occupied[found.st_ino] = found.st_blocks * 512
        except FileNotFoundError:
            # The process has just closed this file.
            continue
    return sum(occupied.values()) / 1e6


class Sampler:
    """Records the largest memory of each process in MB, in a thread, until `end` is called.

    `largest` has three numbers for each process. These are the growth of its resident memory since the start, the size
    of its memory files, and the largest sum of both at one moment. The parent has the memory files of its workers open
    too, so counting them in all processes would count them twice.

    Parameters
    ----------
    pids:
        The process ids by the names of the processes. The parent has the name "parent".
    files_of:
        The name of the only process whose memory files are counted. If it is empty, they are counted in all processes
        except the parent.
    """

    def __init__(self, pids: dict[str, int], files_of: str = "") -> None:
        self._counts_files = [name for name in pids if name == files_of or (not files_of and name != "parent")]
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._idle = {name: process.memory_info().rss / 1e6 for name, process in self._processes.items()}
        self.largest: dict[str, list[float]] = {name: [0.0, 0.0, 0.0] for name in pids}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(_SAMPLE_SECS):
            for name, process in self._processes.items():
                resident = process.memory_info().rss / 1e6 - self._idle[name]
                files = _memory_files_mb(process.pid) if name in self._counts_files else 0.0
                self.largest[name] = list(map(max, self.largest[name], (resident, files, resident + files)))

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def _meet(folder: Path, number: int) -> int:
    """Wait until each worker runs this task, so that no worker runs it twice. Return the process id of this worker."""
    (folder / f"here{number}").touch()
    while sum(1 for _ in folder.glob("here*")) < WORKERS:
        time.sleep(0.001)
    return os.getpid()


def _log_images(images: int, worker: int) -> list[float]:
    return works.prepare(works.NOISY, worker)(images)


def main() -> None:
    bench = report.begin(__doc__)
    images = QUICK_IMAGES if bench.quick else IMAGES
    # `FileSink` uses the class with this name in its module as its writer. From now on, this is the slow writer.
    setattr(file, "FileWriter", SlowWriter)  # noqa: B010  # the type checker knows the name as another class
    with common.scratch() as folder:
        path = folder / "out.rrd"
        with mpr.Pool("benchmark", WORKERS, sinks=[path]) as pool:
            pids = pool.map(functools.partial(_meet, folder), range(WORKERS), chunksize=1)
            sampler = Sampler({f"worker {number}": pid for number, pid in enumerate(pids)} | {"parent": os.getpid()})
            begin = time.perf_counter()
            took = pool.map(functools.partial(_log_images, images), range(WORKERS), chunksize=1)
            secs = time.perf_counter() - begin
            sampler.end()
        common.check_file(path, images * WORKERS)
        size = path.stat().st_size
    if secs < 0.9 * size / BYTES_PER_SEC:
        raise common.WrongOutputError("the slow sink was not slow")
    rows = [[name, *(f"{value:.0f}" for value in found)] for name, found in sampler.largest.items()]
    bench.table(
        f"{size / 1e9:.2f} GB, {images * WORKERS} rows, none lost, in {secs:.0f} s ({size / secs / 1e6:.0f} MB/s); "
        f"the longest rr.log waited {max(map(max, took)):.2f} s",
        ["process", "resident + MB", "memory files MB", "both MB"],
        rows,
    )
    for name, found in sampler.largest.items():
        bench.target(f"{name}: most memory above idle, with a sink of 50 MB/s", [found[2]], LIMIT_MB, "MB")
    bench.end()


if __name__ == "__main__":
    main()

"""What does the parent need for a gigabyte of images, and for four?

Measures the CPU time of the parent from the first row to the finished file. It is compared with the CPU time of `cat`,
which copies the same bytes from two files into one. (No reader accepts that file.) Also measures how much the parent's
resident memory grows while 4 GB come from 2 workers, and from 32. An outbox is a memory file from which the parent
copies a worker's rows. Outboxes are not a part of any process's resident memory, so they have a column of their own.
"""

from __future__ import annotations

import functools
import os
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path

import mpr
from benchmarks import common, funnel, memory, report, way_out, works

IMAGES, QUICK_IMAGES = 540, 200
LARGE, QUICK_LARGE = 4_416, 640
MEMORY_LIMIT_MB = 64


@dataclass(frozen=True, kw_only=True)
class Cost:
    cpu_secs: float
    gigabytes: float


def _mpr(images: int) -> Cost:
    reading = funnel.one_file(works.NOISY, images)
    return Cost(cpu_secs=reading.file_cpu_secs, gigabytes=images * way_out.WORKERS * works.IMAGE_BYTES / 1e9)


def _cat(parts: list[Path]) -> Cost:
    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    with common.scratch() as folder, (folder / "all.rrd").open("wb") as target:
        before = used()
        subprocess.run(["cat", *parts], stdout=target, check=True)
        cost = Cost(cpu_secs=used() - before, gigabytes=sum(part.stat().st_size for part in parts) / 1e9)
        common.expect(Path(target.name).stat().st_size, sum(part.stat().st_size for part in parts), "bytes")
    return cost


class _Watch:
    """Records two maximums during a run: the growth of the parent's memory, and the size of all outboxes together."""

    def __init__(self) -> None:
        self.resident_mb = self.outboxes_mb = 0.0
        self._sampler: memory.Sampler | None = None

    def begin(self, _pool: mpr.Pool) -> None:
        self._sampler = memory.Sampler({"parent": os.getpid()}, files_of="parent")

    def end(self) -> None:
        assert self._sampler is not None
        self._sampler.end()
        self.resident_mb, self.outboxes_mb, _ = self._sampler.largest["parent"]


def _pass(images: int, workers: int) -> _Watch:
    watch = _Watch()
    funnel.one_file(works.NOISY, images // workers, prepare=watch.begin, closed=watch.end, workers=workers)
    return watch


def main() -> None:
    bench = report.begin(__doc__)
    way_out.prepare_fork_server()
    images = QUICK_IMAGES if bench.quick else IMAGES
    with common.scratch() as folder:
        way_out.run(way_out.FILE, works.NOISY, images, folder)
        parts = [folder / f"{worker}.rrd" for worker in range(way_out.WORKERS)]
        readings = common.interleaved(
            {"cat": functools.partial(_cat, parts), "mpr's parent": functools.partial(_mpr, images)}, bench.rounds(5)
        )
    per_gigabyte = {way: [each.cpu_secs / each.gigabytes for each in found] for way, found in readings.items()}
    rows = [
        [way, f"{common.median(secs):.2f}", common.ratio(secs, per_gigabyte["cat"])]
        for way, secs in per_gigabyte.items()
    ]
    bench.table(
        f"Seconds of CPU per GB, of {readings['cat'][0].gigabytes:.1f} GB", ["who", "s/GB", "ratio to cat"], rows
    )
    ratios = common.ratios(per_gigabyte["mpr's parent"], per_gigabyte["cat"])
    bench.target("the parent's seconds of CPU per GB / those of `cat`", ratios, 1.5)
    large = QUICK_LARGE if bench.quick else LARGE
    size = large * works.IMAGE_BYTES / 1e9
    rows = []
    for workers in (2, 32):
        watch = _pass(large, workers)
        rows.append([str(workers), f"{watch.resident_mb:.0f}", f"{watch.outboxes_mb:.0f}"])
        bench.target(
            f"the parent's memory above idle, while {size:.1f} GB pass from {workers} workers",
            [watch.resident_mb],
            MEMORY_LIMIT_MB,
            "MB",
        )
    bench.table(
        f"{size:.1f} GB through the parent", ["workers", "parent's resident + MB", "all outboxes hold, MB"], rows
    )
    bench.end()


if __name__ == "__main__":
    main()

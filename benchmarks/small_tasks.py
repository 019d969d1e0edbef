"""What becomes of 100,000 small tasks, and what does the parent keep of each chunk?

Each task logs one row and is sent by itself (`chunksize=1`). So each row becomes a chunk of its own, which is the worst
case for a file. The run is measured without and with `FileSink(compact=True)`. A file ends with a manifest, which has
an entry for each chunk. The parent collects these entries until the file is closed, in memory and on the disk. So the
benchmark also measures the growth of the parent's memory in bytes per chunk. It has two figures: the growth until the
file is closed, and the growth at the peak while it is closed.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import psutil

import mpr
from benchmarks import common, report, way_out

TASKS, QUICK_TASKS = 100_000, 10_000
ENTITIES = 10


def log_row(number: int) -> int:
    import rerun as rr

    rr.set_time("task", sequence=number)
    rr.log(f"sensor/{number % ENTITIES}", rr.Scalars(float(number)))
    return number


@dataclass(frozen=True, kw_only=True)
class Reading:
    run_secs: float
    close_secs: float
    size_mb: float
    chunks: int
    open_secs: float
    read_secs: float
    kept_bytes: float
    peak_bytes: float


def _run(tasks: int, compact: bool) -> Reading:
    with common.scratch() as folder:
        path = folder / "out.rrd"
        pool = mpr.Pool("benchmark", way_out.WORKERS, sinks=mpr.FileSink(path, compact=compact))
        begin = time.perf_counter()
        # The growth during the first half is not counted, because it includes memory that is needed only once.
        results = pool.map(log_row, range(tasks // 2), chunksize=1)
        before, first = psutil.Process().memory_info().rss, pool.recording.stats().accepted_chunks
        results += pool.map(log_row, range(tasks // 2, tasks), chunksize=1)
        run_secs = time.perf_counter() - begin
        common.expect(sum(results), sum(range(tasks)), "results")
        del results
        written = pool.recording.stats().accepted_chunks
        kept = psutil.Process().memory_info().rss - before
        way_out.forget_peak()
        begin = time.perf_counter()
        pool.close()
        pool.join()
        close_secs = time.perf_counter() - begin
        peak = way_out.peak_mb() * 2**20 - before
        common.check_file(path, tasks)
        chunks, open_secs, read_secs = _read(path)
        return Reading(
            run_secs=run_secs,
            close_secs=close_secs,
            size_mb=path.stat().st_size / 1e6,
            chunks=chunks,
            open_secs=open_secs,
            read_secs=read_secs,
            kept_bytes=kept / (written - first),
            peak_bytes=peak / written,
        )


def _read(path: Path) -> tuple[int, float, float]:
    """Return the number of chunks, the seconds to open the file by its manifest, and the seconds to read all of it."""
    import rerun as rr

    begin = time.perf_counter()
    reader = rr.chunk.RrdReader(path)
    (entry,) = reader.recordings()
    store = reader.store(store=entry)
    open_secs = time.perf_counter() - begin
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chunks = sum(1 for _ in store.stream())
    return chunks, open_secs, time.perf_counter() - begin


def main() -> None:
    bench = report.begin(__doc__)
    tasks = QUICK_TASKS if bench.quick else TASKS
    plain, compact = _run(tasks, False), _run(tasks, True)
    rows = [
        [
            way,
            f"{found.run_secs:.1f}",
            f"{found.close_secs:.2f}",
            f"{found.chunks:,}",
            f"{found.size_mb:.1f}",
            f"{found.open_secs:.2f}",
            f"{found.read_secs:.2f}",
            f"{found.kept_bytes:.0f}",
            f"{found.peak_bytes:.0f}",
        ]
        for way, found in (("as it is", plain), ("compact=True", compact))
    ]
    columns = ["file", "run s", "close s", "chunks", "MB", "open s", "read s", "kept, bytes a chunk", "peak"]
    bench.table(f"{tasks:,} tasks, each one row, each alone; both files verified, their rows counted", columns, rows)
    bench.target(f"{tasks:,} small tasks: chunks with compact=True / without", [compact.chunks / plain.chunks])
    bench.target(
        "the same: seconds to open and read with compact=True / without",
        [(compact.open_secs + compact.read_secs) / (plain.open_secs + plain.read_secs)],
    )
    bench.target("what the parent keeps of a chunk until the end", [plain.kept_bytes], 200, "bytes")
    bench.target("what it needs at the end, at its peak, a chunk", [plain.peak_bytes], None, "bytes")
    bench.end()


if __name__ == "__main__":
    main()

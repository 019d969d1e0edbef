"""What does one file cost?

Measures how long `mpr.Pool` needs until the rows of two workers are in one valid file. Three ways without mpr are
measured for comparison.

| way | what is timed |
|---|---|
| private files | two workers, each of which writes a file by `rr.save`, until both files are closed |
| + `rerun rrd merge` | the same, and then the SDK's command that joins both files to one |
| direct gRPC | two workers that send their rows to one server of Rerun, until both have flushed; there is no file |
| mpr: results | `Pool.map` until it returns; every row is in the file then |
| mpr: closed | the same, and then closing the pool: the workers have ended, and the SDK has checked the finished file |

When the time begins, all workers have started, have imported everything that they need, and wait.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mpr
from benchmarks import common, report, way_out, works


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The figures of one run. Figures that were not measured are 0.

    Attributes
    ----------
    rows_secs, file_secs:
        The seconds until all rows were written, and until there was one finished file.
    rows_cpu_secs, file_cpu_secs:
        The seconds of CPU time that the parent needed until these two moments.
    log_median_us, log_p99_us:
        The median and the 99th percentile of the time of one `rr.log`, in microseconds. Each is that of the worker with
        the larger value.
    """

    rows_secs: float
    file_secs: float
    rows_cpu_secs: float = 0.0
    file_cpu_secs: float = 0.0
    log_median_us: float = 0.0
    log_p99_us: float = 0.0


def private_files(work: str, rows: int) -> Reading:
    with common.scratch() as folder:
        written = way_out.run(way_out.FILE, work, rows, folder).wall_secs
        begin = time.perf_counter()
        merged = folder / "merged.rrd"
        parts = [folder / f"{worker}.rrd" for worker in range(way_out.WORKERS)]
        common.rerun_command("rrd", "merge", *parts, out=merged)
        merge_secs = time.perf_counter() - begin
        common.check_file(merged, rows * way_out.WORKERS)
    return Reading(rows_secs=written, file_secs=written + merge_secs)


def direct_grpc(work: str, rows: int) -> Reading:
    with common.scratch() as folder:
        secs = way_out.run(way_out.GRPC, work, rows, folder).wall_secs
    return Reading(rows_secs=secs, file_secs=secs)


def _log(folder: Path, work: str, rows: int, worker: int) -> tuple[int, float, float]:
    """Wait for the file `go`, then log `rows` rows. Runs as a task.

    Returns the number of rows, and the median and the 99th percentile of the time of one `rr.log` in microseconds.
    """
    log = works.prepare(work, worker)
    (folder / f"ready{worker}").touch()
    while not (folder / "go").exists():
        time.sleep(0.001)
    took = sorted(log(rows))
    return len(took), took[len(took) // 2] * 1e6, took[len(took) * 99 // 100] * 1e6


def one_file(
    work: str,
    rows: int,
    others: Sequence[str] = (),
    prepare: Callable[[mpr.Pool], None] = lambda _: None,
    closed: Callable[[], None] = lambda: None,
    workers: int = way_out.WORKERS,
) -> Reading:
    """Let mpr write one file, check the file, and return the figures.

    Parameters
    ----------
    work:
        What is logged: a key of `works.WORKS`.
    rows:
        The number of rows that each worker logs.
    others:
        Sinks (such as URLs of viewers) that get the rows too.
    prepare:
        A function that is called with the pool before the time begins, when the workers are ready.
    closed:
        A function that is called when there is one finished file.
    workers:
        The number of workers.
    """
    with common.scratch() as folder:
        path = folder / "all.rrd"
        with mpr.Pool("benchmark", workers, sinks=[path, *others]) as pool:
            tasks = pool.map_async(functools.partial(_log, folder, work, rows), range(workers), chunksize=1)
            while not all((folder / f"ready{worker}").exists() for worker in range(workers)):
                time.sleep(0.001)
            prepare(pool)
            cpu, begin = time.process_time(), time.perf_counter()
            (folder / "go").touch()
            logged = tasks.get()
            rows_secs, rows_cpu_secs = time.perf_counter() - begin, time.process_time() - cpu
        file_secs, file_cpu_secs = time.perf_counter() - begin, time.process_time() - cpu
        closed()
        common.check_file(path, rows * workers)
        common.expect(sum(count for count, _, _ in logged), rows * workers, "rows logged")
    return Reading(
        rows_secs=rows_secs,
        file_secs=file_secs,
        rows_cpu_secs=rows_cpu_secs,
        file_cpu_secs=file_cpu_secs,
        log_median_us=max(middle for _, middle, _ in logged),
        log_p99_us=max(late for _, _, late in logged),
    )


# For each work, three limits of the time until there is one finished file. They are ratios to the time of private
# files, of private files with the merge, and of direct gRPC. None means no limit: the ratio is only printed.
_TARGETS = {
    works.NOISY: (1.35, 0.6, 1.1),
    works.SCALARS: (1.1, None, None),
    works.ENTITIES: (1.5, None, None),
}


def main() -> None:
    bench = report.begin(__doc__)
    way_out.prepare_fork_server()
    table = []
    for work, limits in _TARGETS.items():
        rows = works.WORKS[work]
        readings = common.interleaved(
            {
                "private": functools.partial(private_files, work, rows),
                "gRPC": functools.partial(direct_grpc, work, rows),
                "mpr": functools.partial(one_file, work, rows),
            },
            bench.rounds(5),
        )
        private, ours = readings["private"], readings["mpr"]
        floor = [each.rows_secs for each in private]
        merged = [each.file_secs for each in private]
        direct = [each.rows_secs for each in readings["gRPC"]]
        closed = [each.file_secs for each in ours]
        walls = {
            "private files": floor,
            "+ rerun rrd merge": merged,
            "direct gRPC, no file": direct,
            "mpr: results": [each.rows_secs for each in ours],
            "mpr: closed": closed,
        }
        name = f"{way_out.WORKERS} x {rows:,} {work}"
        for way, secs in walls.items():
            table.append([name, way, f"{common.median(secs):.2f}", common.ratio(secs, floor)])
        for peer, base, limit in zip(
            ("private files", "private files + merge", "direct gRPC"), (floor, merged, direct), limits, strict=True
        ):
            bench.target(f"{name}: one finished file / {peer}", common.ratios(closed, base), limit)
    bench.table("Every file verified, its rows counted", ["work", "way", "s", "ratio to private files"], table)
    bench.end()


if __name__ == "__main__":
    main()

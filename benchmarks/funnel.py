"""What does one file cost? `mpr.Pool` into one verified file, beside private files, and private files merged.

| way | what is timed |
|---|---|
| private files | two workers of a fork server, each with the SDK's file sink, until both files are closed |
| + `rerun rrd merge` | and then the SDK's own command that makes one file of them: what users do today |
| mpr: results | `Pool.map` until it returns: every row is in the file then |
| mpr: closed | and then leaving the pool: the workers have ended, the file has its footer, the SDK has checked it |

All workers are warm: they have imported what they need, and wait.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mpr
from benchmarks import common, way_out, works


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Seconds until the rows were in, and until there was one finished file."""

    rows_secs: float
    file_secs: float


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


def _log(folder: Path, work: str, rows: int, worker: int) -> int:
    """A task: waits until the tasks of all workers are ready to log, then logs."""
    log = works.prepare(work, worker)
    (folder / f"ready{worker}").touch()
    while not (folder / "go").exists():
        time.sleep(0.001)
    return len(log(rows))


def one_file(
    work: str, rows: int, others: Sequence[str] = (), prepare: Callable[[mpr.Pool], None] = lambda _: None
) -> Reading:
    """Log into one file, and into `others`; `prepare` is called when the workers are ready."""
    with common.scratch() as folder:
        path = folder / "all.rrd"
        with mpr.Pool("benchmark", way_out.WORKERS, sinks=[path, *others]) as pool:
            logged = pool.map_async(functools.partial(_log, folder, work, rows), range(way_out.WORKERS), chunksize=1)
            while not all((folder / f"ready{worker}").exists() for worker in range(way_out.WORKERS)):
                time.sleep(0.001)
            prepare(pool)
            begin = time.perf_counter()
            (folder / "go").touch()
            logged.get()
            rows_secs = time.perf_counter() - begin
        file_secs = time.perf_counter() - begin
        common.check_file(path, rows * way_out.WORKERS)
    return Reading(rows_secs=rows_secs, file_secs=file_secs)


def main() -> None:
    options = common.options(__doc__)
    way_out.prepare_fork_server()
    common.print_header("What does one file cost?")
    table = []
    for work in (works.NOISY, works.SCALARS, works.ENTITIES):
        rows = works.WORKS[work]
        readings = common.interleaved(
            {
                "private": functools.partial(private_files, work, rows),
                "mpr": functools.partial(one_file, work, rows),
            },
            options.rounds(8),
        )
        private, ours = readings["private"], readings["mpr"]
        floor = [each.rows_secs for each in private]
        walls = {
            "private files": floor,
            "+ rerun rrd merge": [each.file_secs for each in private],
            "mpr: results": [each.rows_secs for each in ours],
            "mpr: closed": [each.file_secs for each in ours],
        }
        for way, secs in walls.items():
            table.append(
                [f"{way_out.WORKERS} x {rows} {work}", way, f"{common.median(secs):.2f}", common.ratio(secs, floor)]
            )
    common.print_table("Every file verified, its rows counted", ["work", "way", "s", "ratio to private files"], table)


if __name__ == "__main__":
    main()

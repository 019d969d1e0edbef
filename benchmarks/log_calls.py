"""What does `rr.log` cost in a worker, beside a process that is alone?

One worker of `mpr.Pool` logs into one file. It is compared with one process that logs into its own file by `rr.save`.
Each call of `rr.log` is timed. The wall time of the worker ends when the parent has the result; every row is in the
file then. The wall time of the other process ends when its file is closed.
"""

from __future__ import annotations

import functools

from benchmarks import common, funnel, report, way_out, works


def _alone(work: str, rows: int) -> funnel.Reading:
    with common.scratch() as folder:
        found = way_out.run(way_out.FILE, work, rows, folder, workers=1)
    return funnel.Reading(
        rows_secs=found.wall_secs,
        file_secs=found.wall_secs,
        log_median_us=found.log_median_us,
        log_p99_us=found.log_p99_us,
    )


def main() -> None:
    bench = report.begin(__doc__)
    way_out.prepare_fork_server()
    table = []
    for work in (works.SMOOTH, works.SCALARS):
        rows = works.WORKS[work]
        readings = common.interleaved(
            {
                "alone, rr.save": functools.partial(_alone, work, rows),
                "worker of mpr.Pool": functools.partial(funnel.one_file, work, rows, workers=1),
            },
            bench.rounds(5),
        )
        for way, found in readings.items():
            figures = [[each.log_median_us for each in found], [each.log_p99_us for each in found]]
            cells = [f"{common.median(each):.1f}" for each in figures]
            table.append([f"{rows:,} {work}", way, *cells, f"{common.median([each.rows_secs for each in found]):.3f}"])
        alone, ours = readings.values()
        pairs = list(zip(ours, alone, strict=True))
        bench.target(
            f"`rr.log` of {work} in a worker / alone: median",
            [one.log_median_us / other.log_median_us for one, other in pairs],
            1.2,
        )
        bench.target(
            f"`rr.log` of {work} in a worker / alone: 99th percentile",
            [one.log_p99_us / other.log_p99_us for one, other in pairs],
        )
        bench.target(
            f"a task's wall, {work}, to its result / alone, to its file",
            [one.rows_secs / other.rows_secs for one, other in pairs],
            1.3,
        )
    columns = ["work", "way", "`rr.log` median us", "p99 us", "wall s"]
    bench.table("Medians of all repetitions; every file verified, its rows counted", columns, table)
    bench.end()


if __name__ == "__main__":
    main()

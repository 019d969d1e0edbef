"""Does a byte cost more where there are more workers?

2, 8 and 32 workers log the same number of images into one file. The time begins when all workers are ready, and ends
with the last result; every row is in the file then. For comparison, 2 and 32 processes write a file each, without mpr.
This shows how much time the machine itself loses if there are more processes than cores.
"""

from __future__ import annotations

import functools

from benchmarks import common, funnel, report, way_out, works

IMAGES, QUICK_IMAGES = 640, 320
WORKERS = (2, 8, 32)


def _private(images: int, workers: int) -> float:
    with common.scratch() as folder:
        return way_out.run(way_out.FILE, works.NOISY, images // workers, folder, workers).wall_secs


def _one_file(images: int, workers: int) -> float:
    return funnel.one_file(works.NOISY, images // workers, workers=workers).rows_secs


def main() -> None:
    bench = report.begin(__doc__)
    way_out.prepare_fork_server()
    images = QUICK_IMAGES if bench.quick else IMAGES
    ours = {f"mpr, {workers}": functools.partial(_one_file, images, workers) for workers in WORKERS}
    private = {f"private files, {workers}": functools.partial(_private, images, workers) for workers in (2, 32)}
    readings = common.interleaved(ours, bench.rounds(5)) | common.interleaved(private, bench.rounds(2))
    base = readings["mpr, 2"]
    floors = {way: base if way in ours else readings["private files, 2"] for way in readings}
    table = [[way, f"{common.median(secs):.2f}", common.ratio(secs, floors[way])] for way, secs in readings.items()]
    bench.table(f"{images} noisy VGA images", ["way, workers", "s", "ratio to 2 workers"], table)
    bench.target("the same work by 32 workers / by 2", common.ratios(readings["mpr, 32"], base), 1.2)
    bench.target("the same, private files", common.ratios(readings["private files, 32"], readings["private files, 2"]))
    bench.line(
        f"{images} noisy VGA images, one file",
        "seconds to the last result",
        list(WORKERS),
        [common.median(readings[f"mpr, {workers}"]) for workers in WORKERS],
    )
    bench.end()


if __name__ == "__main__":
    main()

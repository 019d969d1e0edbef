"""Makes the data that the workers of the benchmarks log: images, compressible images, numbers, and many entities."""

from __future__ import annotations

import time
from collections.abc import Callable

NOISY, SMOOTH, SCALARS, ENTITIES = "noisy VGA images", "compressible VGA images", "scalars", "entities, one row each"

#: Bytes of one image before it is encoded.
IMAGE_BYTES = 480 * 640 * 3
#: The number of rows that each worker logs, for each sort of data.
WORKS = {NOISY: 300, SMOOTH: 300, SCALARS: 50_000, ENTITIES: 5_000}


def prepare(work: str, worker: int) -> Callable[[int], list[float]]:
    """Make data of the sort `work` (a key of `WORKS`) for the worker with the number `worker`.

    Returns a function. It logs a given number of rows, and returns the seconds that each `rr.log` took.
    """
    import numpy as np
    import rerun as rr

    if work in (NOISY, SMOOTH):
        if work == NOISY:
            images = np.random.default_rng(worker).integers(0, 255, (8, 480, 640, 3), dtype=np.uint8)
        else:
            images = np.zeros((8, 480, 640, 3), np.uint8)
            images[..., 0] = np.arange(640) % 256
            images += np.arange(8, dtype=np.uint8)[:, None, None, None]

        def log(row: int) -> None:
            rr.log(f"worker{worker}/image", rr.Image(images[row % 8]))
    elif work == SCALARS:

        def log(row: int) -> None:
            rr.log(f"worker{worker}/scalar", rr.Scalars(float(row)))
    else:

        def log(row: int) -> None:
            rr.log(f"worker{worker}/entity{row}", rr.Scalars(float(row)))

    def run(count: int) -> list[float]:
        took = []
        clock = time.perf_counter
        for row in range(count):
            rr.set_time("row", sequence=row)
            begin = clock()
            log(row)
            took.append(clock() - begin)
        return took

    return run

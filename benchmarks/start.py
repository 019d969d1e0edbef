"""How soon is there a first result? And what does `import mpr` cost a script?

The second pool of a process is timed: a service or a notebook makes many, and the first pays for imports that any
library has to make. mpr's pool works out of its fork server; beside it `multiprocessing`'s spawn, the start method that
the Rerun SDK's own documentation asks for, whose workers import the SDK each.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time

import mpr
from benchmarks import common

WORKERS = 2


def _first_task(number: int) -> int:
    import rerun as rr

    return number + len(rr.__version__)


def _mpr() -> float:
    with common.scratch() as folder:
        begin = time.perf_counter()
        with mpr.Pool("benchmark", WORKERS, sinks=[folder / "out.rrd"]) as pool:
            pool.apply(_first_task, (1,))
            return time.perf_counter() - begin


def _spawn() -> float:
    begin = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        pool.apply(_first_task, (1,))
        return time.perf_counter() - begin


def _interpreter(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begin


def main() -> None:
    options = common.options(__doc__)
    common.print_header("How soon is there a first result?")
    # The round that is not counted makes the first pool.
    pools = common.interleaved({"mpr.Pool (forkserver)": _mpr, "multiprocessing, spawn": _spawn}, options.rounds(9))
    floor = pools["multiprocessing, spawn"]
    common.print_table(
        f"A second pool of {WORKERS} answers its first task; the task uses the SDK",
        ["pool", "ms", "ratio to spawn"],
        [[name, f"{common.median(secs) * 1e3:.0f}", common.ratio(secs, floor)] for name, secs in pools.items()],
    )
    imports = common.interleaved(
        {
            "python -c pass": lambda: _interpreter("pass"),
            "import mpr": lambda: _interpreter("import mpr"),
            "import mpr; mpr.Pool": lambda: _interpreter("import mpr; mpr.Pool"),
            "import rerun": lambda: _interpreter("import rerun"),
        },
        options.rounds(15),
    )
    bare = imports["python -c pass"]
    rows = [
        [
            name,
            f"{common.median(secs) * 1e3:.0f}",
            f"{common.median([one - base for one, base in zip(secs, bare, strict=True)]) * 1e3:.0f}",
        ]
        for name, secs in imports.items()
    ]
    common.print_table("A fresh interpreter", ["code", "ms", "ms more than `pass`"], rows)


if __name__ == "__main__":
    main()

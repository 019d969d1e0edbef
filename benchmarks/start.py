"""How soon is there a first result?

Measures the time of a pool with one task: its start, its result and its end together. The first pool of a process is
not counted, because its time includes imports that any library needs. Later pools matter, because a service or a
notebook makes many of them. mpr's workers are forked from a process that has imported the SDK. The workers of the other
pools import the SDK when their first task needs it. The time of `import mpr` is measured too.
"""

from __future__ import annotations

import functools
import multiprocessing
import subprocess
import sys
import time
from contextlib import ExitStack

from benchmarks import common, peers, report

SPAWN = "multiprocessing.Pool, spawn"


def _use_sdk(number: int) -> int:
    import rerun as rr

    return number + len(rr.__version__)


def _nothing(number: int) -> int:
    return number


def _spawn(stack: ExitStack) -> peers.Map:
    return stack.enter_context(multiprocessing.get_context("spawn").Pool(peers.WORKERS)).map


def _first_result(start: peers.Open, uses_sdk: bool) -> float:
    begin = time.perf_counter()
    with ExitStack() as stack:
        found = list(start(stack)(_use_sdk if uses_sdk else _nothing, [1], None))
    secs = time.perf_counter() - begin
    common.expect(len(found), 1, "results")
    return secs


def _interpreter(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begin


def main() -> None:
    bench = report.begin(__doc__)
    ways = {**peers.pools(), SPAWN: _spawn}
    for uses_sdk, words in ((True, "the task uses the SDK"), (False, "the task does nothing")):
        readings = common.interleaved(
            {name: functools.partial(_first_result, start, uses_sdk) for name, start in ways.items()}, bench.rounds(5)
        )
        rows = [
            [name, f"{common.median(secs) * 1e3:.0f}", common.ratio(secs, readings[peers.FLOOR])]
            for name, secs in readings.items()
        ]
        bench.table(
            f"A second pool of {peers.WORKERS}: start, first result, end; {words}",
            ["pool", "ms", f"ratio to {peers.FLOOR} (forkserver)"],
            rows,
        )
        if uses_sdk:
            best = [
                min(readings[name][sequence] for name in ways if name != peers.MPR)
                for sequence in range(len(readings[peers.MPR]))
            ]
            bench.target(
                "a second pool whose task uses the SDK / the fastest other pool",
                common.ratios(readings[peers.MPR], best),
            )
    imports = common.interleaved(
        {code: functools.partial(_interpreter, code) for code in ("pass", "import mpr", "import mpr; mpr.Pool")},
        bench.rounds(9),
    )
    rows = []
    for code, secs in imports.items():
        more = [one - base for one, base in zip(secs, imports["pass"], strict=True)]
        rows.append([code, f"{common.median(secs) * 1e3:.0f}", f"{common.median(more) * 1e3:.0f}"])
    bench.table("A fresh interpreter", ["code", "ms", "ms more than `pass`"], rows)
    bench.end()


if __name__ == "__main__":
    main()

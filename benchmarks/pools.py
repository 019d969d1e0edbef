"""How does `mpr.Pool` compare with other process pools?

Compares two things with other pools: how fast large results come, and how much memory all processes need together.
Measures two things of mpr alone: how soon the death of a worker is reported, and how long the end of a pool takes. All
pools have two workers. The benchmarks `tasks` and `start` measure the cost of a task and of starting a pool.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import mpr
from benchmarks import common, peers, report

# The results whose throughput is measured: (size of one result in MiB, number of results).
RESULTS = ((1, 100), (100, 4))
_SAMPLE_SECS = 0.02


def _nothing(number: int) -> int:
    return number


def _megabytes(count: int) -> Any:
    return np.ones(count << 20, np.uint8)


def _die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _throughput(run: peers.Map, size: int, count: int) -> float:
    begin = time.perf_counter()
    bytes_there = sum(len(result) for result in run(_megabytes, [size] * count, 1))
    secs = time.perf_counter() - begin
    common.expect(bytes_there, (size * count) << 20, "bytes")
    return bytes_there / secs / 1e9


# --- memory -------------------------------------------------------------------------------------------------------


def _use_sdk(number: int) -> int:
    import rerun as rr

    # The tasks are long enough for both workers to get one.
    time.sleep(0.2)
    return number + 0 * len(rr.__version__)


def measure_memory(name: str) -> None:
    """Print the largest memory in MB of this process and its workers together, while the pool `name` works.

    Call this in a process of its own. Memory that several processes share counts once (PSS). This process and the
    workers import the SDK, as a program that logs does.
    """
    import rerun as rr

    assert rr.__version__
    peak = 0.0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(_SAMPLE_SECS):
            peak = max(peak, _pss_mb())

    thread = threading.Thread(target=watch)
    with ExitStack() as stack:
        run = peers.pools()[name](stack)
        thread.start()
        common.expect(sum(run(_use_sdk, range(4), 1)), sum(range(4)), "results")
        common.expect(sum(run(_nothing, range(2_000), 1)), sum(range(2_000)), "results")
        common.expect(sum(len(each) for each in run(_megabytes, [1] * 50, 1)), 50 << 20, "bytes")
        ended.set()
        thread.join()
    print(peak)


def _pss_mb() -> float:
    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def _memory(name: str) -> float:
    # The code imports this module. If this module were the main module, some pools would import it in their workers.
    code = f"from benchmarks import pools; pools.measure_memory({name!r})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise common.WrongOutputError(f"{name}: {ran.stderr[-500:]}")
    return float(ran.stdout.split()[-1])


# --- mpr alone ----------------------------------------------------------------------------------------------------


_DEATH, _CLOSE = "the error of a task whose worker was killed", "close and join"
_GOES_ON, _CTRL_C = "Ctrl-C to what comes behind the pool's `with` block", "Ctrl-C to the end of the program"
# The targets: for each of these times, the longest one that is allowed, in milliseconds.
_MOMENTS = {_DEATH: 100.0, _CLOSE: 20.0, _CTRL_C: 200.0}


def _death(folder: Path) -> float:
    """Return the milliseconds from calling a task that kills its worker until the call raises the error."""
    with mpr.Pool("benchmark", peers.WORKERS, sinks=folder / f"{time.monotonic_ns()}.rrd") as pool:
        pool.map(_nothing, range(100))
        begin = time.perf_counter()
        try:
            pool.apply(_die, (0,))
        except mpr.WorkerDiedError:
            return 1e3 * (time.perf_counter() - begin)
    raise common.WrongOutputError("nothing was said of a dead worker")


def _close(folder: Path, telemetry: bool = True) -> float:
    """Return the milliseconds that `close` and `join` of a pool take when all tasks have ended."""
    path = folder / f"{time.monotonic_ns()}.rrd"
    pool = mpr.Pool("benchmark", peers.WORKERS, sinks=path, telemetry=telemetry)
    pool.map(_nothing, range(1000))
    begin = time.perf_counter()
    pool.close()
    pool.join()
    return 1e3 * (time.perf_counter() - begin)


_INTERRUPTED = """
import sys, time, mpr

if __name__ == "__main__":
    try:
        with mpr.Pool("benchmark", 2, sinks=sys.argv[1]) as pool:
            results = [pool.apply_async(time.sleep, (seconds,)) for seconds in (0, 0, 30, 30)]
            results[0].get(), results[1].get()
            print("busy", flush=True)
            results[2].get()
    finally:
        print(time.monotonic(), flush=True)
"""


# A program that logs without mpr. It shows how long Python and the SDK alone need to end after Ctrl-C.
_ALONE = """
import sys, time, rerun as rr

stream = rr.RecordingStream("benchmark")
stream.save(sys.argv[1])
stream.log("value", rr.Scalars(1.0))
print("busy", flush=True)
try:
    time.sleep(30)
finally:
    print(time.monotonic(), flush=True)
"""


def _ctrl_c(source: str, folder: Path) -> tuple[float, float]:
    """Run a program with the code `source`, and send Ctrl-C (SIGINT) to its process group when it has printed a line.

    Returns the milliseconds from Ctrl-C to the next line that the program prints, and to the end of the program.
    """
    command = [sys.executable, "-c", source, str(folder / f"{time.monotonic_ns()}.rrd")]
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, text=True
    )
    assert program.stdout is not None
    program.stdout.readline()
    begin = time.monotonic()
    os.killpg(program.pid, signal.SIGINT)
    limit = threading.Timer(60, program.kill)
    limit.start()
    # `wait` gets no timeout, because with a timeout it checks only every 50 ms whether the program has ended.
    program.wait()
    end = time.monotonic()
    limit.cancel()
    if program.returncode == -signal.SIGKILL:
        raise common.WrongOutputError("Ctrl-C has not ended a program within 60 s")
    goes_on = float(program.stdout.readline())
    program.stdout.close()
    return 1e3 * (goes_on - begin), 1e3 * (end - begin)


def main() -> None:
    bench = report.begin(__doc__)
    rounds = bench.rounds(5)
    pools = peers.pools()
    with ExitStack() as stack:
        maps = {name: start(stack) for name, start in pools.items()}
        for size, count in RESULTS:
            ways = {name: functools.partial(_throughput, run, size, count) for name, run in maps.items()}
            rates = common.interleaved(ways, rounds)
            rows = peers.ratio_rows(rates)
            bench.table(f"{count} results of {size} MB", ["pool", "GB/s", f"ratio to {peers.FLOOR}"], rows)
    found = common.interleaved({name: functools.partial(_memory, name) for name in pools}, bench.rounds(2))
    bench.table(
        "Most memory of all processes together: the SDK in both workers, 2,000 empty tasks, 50 results of 1 MB",
        ["pool", "MB", f"ratio to {peers.FLOOR}"],
        peers.ratio_rows(found),
    )
    bench.target(f"peak memory / {peers.FLOOR}", common.ratios(found[peers.MPR], found[peers.FLOOR]))
    with common.scratch() as folder:
        moments = {
            _DEATH: functools.partial(_death, folder),
            _CLOSE: functools.partial(_close, folder),
            "the same, telemetry=False": functools.partial(_close, folder, telemetry=False),
        }
        found = common.interleaved(moments, rounds)
        programs = {source: functools.partial(_ctrl_c, source, folder) for source in (_INTERRUPTED, _ALONE)}
        ends = common.interleaved(programs, rounds)
        found[_GOES_ON], found[_CTRL_C] = ([each[which] for each in ends[_INTERRUPTED]] for which in (0, 1))
        found["the same, a program that logs by the SDK alone"] = [end for _, end in ends[_ALONE]]
        rows = [[name, f"{common.median(each):.0f}", f"{max(each):.0f}"] for name, each in found.items()]
        bench.table("mpr.Pool alone", ["moment", "ms, median", "ms, longest"], rows)
        for name, at_most in _MOMENTS.items():
            bench.target(name, found[name], at_most, "ms")
    bench.end()


if __name__ == "__main__":
    main()

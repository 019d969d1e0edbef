"""How long does a row take from `rr.log` in a worker to a viewer?

The time of a row begins with the call of `rr.log`, which is the row's `log_time`. The time ends when a server of Rerun
has written the row into its file. A thread looks at the size of this file every millisecond.

| way | the process that logs |
|---|---|
| rerun | a single process, with `rr.connect_grpc` |
| mpr | a worker of `mpr.Pool`, with the server as the only sink |

Each way runs alone, and beside two processes that compute all the time.
"""

from __future__ import annotations

import functools
import multiprocessing
import threading
import time
import warnings
from bisect import bisect_left
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import rerun as rr

import mpr
from benchmarks import common, report, servers
from mpr.rrd import framing

RERUN, MPR = "rerun", "mpr"
_APP = "latency"
_RATES, _SECS = (10, 100, 1000), 4.0
_BUSY = 2


def _log(rate: int, secs: float) -> None:
    """Log `rate` rows a second for `secs` seconds."""
    begin = time.perf_counter()
    for number in range(int(rate * secs)):
        rr.log("value", rr.Scalars(float(number)))
        time.sleep(max(0.0, begin + (number + 1) / rate - time.perf_counter()))


def _compute() -> None:
    while True:
        sum(range(1000))


def _log_to(url: str, rate: int, secs: float) -> None:
    rr.init(_APP)
    rr.connect_grpc(url)
    _log(rate, secs)
    rr.disconnect()


def _by_rerun(url: str, rate: int, secs: float) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_log_to, args=(url, rate, secs))
    process.start()
    process.join()


def _by_mpr(url: str, rate: int, secs: float) -> None:
    with mpr.Pool(_APP, 1, sinks=url, telemetry=False, telemetry_view=False) as pool:
        while pool.recording.stats().live_sinks[0].state != "connected":
            time.sleep(0.01)
        pool.apply(_log, (rate, secs))


class _Growth:
    """Notes when a file has which size, in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.sizes: list[int] = [0]
        self.times: list[int] = [0]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._is_over.wait(0.001):
            size = self._path.stat().st_size if self._path.exists() else 0
            if size != self.sizes[-1]:
                self.times.append(time.time_ns())
                self.sizes.append(size)

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()


def _millis(path: Path, growth: _Growth) -> list[float]:
    """Return the time of each row on its way, in milliseconds."""
    # The file of a server has no footer, and the SDK warns of that.
    with warnings.catch_warnings(action="ignore"):
        reader = rr.chunk.RrdReader(path)
    chunks = [chunk for entry in reader.recordings() for chunk in reader.stream(store=entry)]
    data = path.read_bytes()
    frames, _ = framing.scan(lambda at, count: data[at : at + count], framing.HEADER_SIZE, len(data))
    ends = [frame.end for frame in frames if frame.kind == framing.ARROW_MSG]
    found = []
    for chunk, end in zip(chunks, ends, strict=True):
        if str(chunk.entity_path) == "/value":
            came = growth.times[bisect_left(growth.sizes, end)]
            times = chunk.to_record_batch().column("log_time").cast("int64").to_pylist()
            found += [(came - logged) / 1e6 for logged in times]
    return found


def _run(log: Callable[[str, int, float], None], rate: int, secs: float, busy: int) -> list[float]:
    """Return the milliseconds of each row on its way."""
    with common.scratch() as folder, ExitStack() as stack:
        port, path = servers.free_port(), folder / "received.rrd"
        for _ in range(busy):
            process = multiprocessing.get_context("spawn").Process(target=_compute, daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.terminate)
        with servers.receiver(port, path):
            growth = _Growth(path)
            log(servers.url_of(port), rate, secs)
            growth.end()
        found = _millis(path, growth)
    common.expect(len(found), int(rate * secs), "rows at the server")
    return found


def main() -> None:
    bench = report.begin(__doc__)
    secs = 1.0 if bench.quick else _SECS
    table = []
    for busy in (0, _BUSY):
        beside = f"beside {busy} busy processes" if busy else "alone"
        for rate in _RATES:
            ways = {
                RERUN: functools.partial(_run, _by_rerun, rate, secs, busy),
                MPR: functools.partial(_run, _by_mpr, rate, secs, busy),
            }
            readings = common.interleaved(ways, bench.rounds(3))
            for way in ways:
                every = [value for reading in readings[way] for value in reading]
                figures = (f"{np.percentile(every, share):.0f}" for share in (50, 95, 100))
                table.append([f"{rate} rows a second, {beside}", way, *figures])
            medians = [float(np.median(reading)) for reading in readings[MPR]]
            floor = [float(np.median(reading)) for reading in readings[RERUN]]
            what = f"{rate} rows a second, {beside}: from `rr.log` to the viewer"
            bench.target(f"{what}, median", medians, None if busy else 60, "ms")
            bench.target(f"{what}, median / `rr.connect_grpc`", common.ratios(medians, floor))
            if busy:
                tails = [float(np.percentile(reading, 95)) for reading in readings[MPR]]
                bench.target(f"{what}, 95th percentile", tails, 300, "ms")
    bench.table("Every row arrived", ["rows", "way", "median, ms", "95 %, ms", "longest, ms"], table)
    bench.end()


if __name__ == "__main__":
    main()

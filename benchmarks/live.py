"""What does a viewer cost the workers?

Measures `Pool.map` with a file alone, and with a live sink beside the file. A live sink sends the rows to a viewer or a
server while the pool works.

| way | what the live sink is connected to |
|---|---|
| file | there is no live sink |
| peer | a server that takes everything and keeps nothing; unlike a viewer, it has the lowest priority |
| nobody | nothing |
| stopped | a server whose process was stopped after it was connected, so that it no longer reads |
| viewer | the real viewer without a window, at normal priority on the same cores; left out without a Vulkan driver |

The time ends when `Pool.map` returns; every row is in the file then. The column "close" has the time that closing the
pool takes after that.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mpr
from benchmarks import common, funnel, report, servers, way_out, works
from mpr.sdk import programs

FILE, PEER, NOBODY, STOPPED, VIEWER = "file", "peer", "nobody", "stopped", "viewer"


def _has_vulkan() -> bool:
    folders = [Path(folder) for folder in ("/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d")]
    return any(folder.is_dir() and any(folder.iterdir()) for folder in folders)


@contextlib.contextmanager
def _viewer(port: int) -> Iterator[None]:
    from rerun.experimental import ViewerClient

    client = ViewerClient.spawn(headless=True, port=port, executable_path=programs.viewer_executable())
    try:
        yield
    finally:
        client.quit()


def _wait_for_state(state: str, pool: mpr.Pool) -> None:
    while pool.recording.stats().live_sinks[0].state != state:
        time.sleep(0.01)


def _run(way: str, work: str, rows: int) -> funnel.Reading:
    if way == FILE:
        return funnel.one_file(work, rows)
    others = [servers.url_of(port := servers.free_port())]
    connected = functools.partial(_wait_for_state, "connected")
    if way == NOBODY:
        return funnel.one_file(work, rows, others, functools.partial(_wait_for_state, "waiting for a viewer"))
    if way == VIEWER:
        with _viewer(port):
            return funnel.one_file(work, rows, others, connected)
    with servers.server(port, memory="0B", niceness=19) as peer:

        def prepare(pool: mpr.Pool) -> None:
            connected(pool)
            if way == STOPPED:
                peer.send_signal(signal.SIGSTOP)

        return funnel.one_file(work, rows, others, prepare)


# The numbers of rounds. The time of `PEER` has a limit, and is close to that of the file alone. So this way needs more
# rounds (`_CLOSE`) than the others (`_FAR`).
_CLOSE, _FAR = 7, 2


def _compare(bench: report.Bench, work: str, ways: Sequence[str], rounds: int) -> list[list[str]]:
    rows = works.WORKS[work]
    runs: dict[str, Callable[[], Any]] = {way: functools.partial(_run, way, work, rows) for way in (FILE, *ways)}
    readings = common.interleaved(runs, rounds)
    floor = [each.rows_secs for each in readings[FILE]]
    name = f"{way_out.WORKERS} x {rows:,} {work}"
    table = []
    for way in ways:
        secs = [each.rows_secs for each in readings[way]]
        close = common.median([each.file_secs - each.rows_secs for each in readings[way]])
        table.append([name, way, f"{common.median(secs):.2f}", common.ratio(secs, floor), f"{close:.2f}"])
        if way == PEER:
            what = f"{name}: the file beside a live sink that discards / alone"
            bench.target(what, common.ratios(secs, floor), 1.1)
        elif way == VIEWER:
            what = f"{name}: the file beside the real viewer on the same cores / alone"
            bench.target(what, common.ratios(secs, floor))
    return table


def main() -> None:
    bench = report.begin(__doc__)
    viewer = [VIEWER] if _has_vulkan() else []
    if not viewer:
        print("there is no Vulkan driver for the viewer", file=sys.stderr)
    table = []
    for work in (works.NOISY, works.SCALARS):
        table += _compare(bench, work, [PEER], bench.rounds(_CLOSE))
        # With `NOBODY` and `STOPPED`, no data is sent. So they are measured with images only.
        others = [NOBODY, STOPPED, *viewer] if work == works.NOISY else viewer
        if others:
            table += _compare(bench, work, others, bench.rounds(_FAR))
    columns = ["work", "way", "s", "ratio to the file alone", "close, s"]
    bench.table("Every file verified, its rows counted", columns, table)
    bench.end()


if __name__ == "__main__":
    main()

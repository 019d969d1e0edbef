"""What does a viewer cost the workers? `Pool.map` with a live sink beside the file, and without.

| way | what is at the other end |
|---|---|
| file | there is no live sink |
| peer | a server that takes everything and keeps nothing, at the lowest priority, unlike a viewer |
| nobody | nothing |
| stopped | a server that was stopped when it was connected, and reads no more |

What is timed ends with `Pool.map`: every row is in the file then. Closing is timed from there.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import mpr
from benchmarks import common, funnel, way_out, works
from mpr import sdk

FILE, PEER, NOBODY, STOPPED = "file", "peer", "nobody", "stopped"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _peer(port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = ["nice", "-n", "19", sdk.viewer_executable() or "rerun", "--serve-grpc", "--bind", "127.0.0.1"]
    limits = ["--port", str(port), "--server-memory-limit", "0B"]
    peer = subprocess.Popen([*command, *limits], env={**os.environ, "RUST_LOG": "off"})
    try:
        yield peer
    finally:
        peer.kill()
        peer.wait()


def _run(way: str, work: str, rows: int) -> funnel.Reading:
    if way == FILE:
        return funnel.one_file(work, rows)
    port = _free_port()

    def wait_for_state(state: str, pool: mpr.Pool) -> None:
        while pool.recording.stats().live_sinks[0].state != state:
            time.sleep(0.01)

    others = [f"rerun+http://127.0.0.1:{port}/proxy"]
    if way == NOBODY:
        return funnel.one_file(work, rows, others, functools.partial(wait_for_state, "waiting for a viewer"))
    with _peer(port) as peer:

        def prepare(pool: mpr.Pool) -> None:
            wait_for_state("connected", pool)
            if way == STOPPED:
                peer.send_signal(signal.SIGSTOP)

        return funnel.one_file(work, rows, others, prepare)


def main() -> None:
    options = common.options(__doc__)
    common.print_header("What does a viewer cost the workers?")
    table = []
    for work in (works.NOISY, works.SCALARS):
        rows = works.WORKS[work]
        ways = {way: functools.partial(_run, way, work, rows) for way in (FILE, PEER, NOBODY, STOPPED)}
        readings = common.interleaved(ways, options.rounds(8))
        floor = [each.rows_secs for each in readings[FILE]]
        for way, found in readings.items():
            secs = [each.rows_secs for each in found]
            close = [each.file_secs - each.rows_secs for each in found]
            table.append(
                [
                    f"{way_out.WORKERS} x {rows} {work}",
                    way,
                    f"{common.median(secs):.2f}",
                    common.ratio(secs, floor),
                    f"{common.median(close):.2f}",
                ]
            )
    columns = ["work", "way", "s", "ratio to the file alone", "close, s"]
    common.print_table("Every file verified, its rows counted", columns, table)


if __name__ == "__main__":
    main()

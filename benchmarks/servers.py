"""Run servers of Rerun that receive rows, and read back the rows that a server has received."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import common
from mpr.rrd import framing
from mpr.sdk import programs

# If a reader has got nothing for this time, it is taken to have all rows.
_QUIET_SECS = 0.5
_LIMIT_SECS = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def url_of(port: int) -> str:
    return f"rerun+http://127.0.0.1:{port}/proxy"


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + _LIMIT_SECS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def server(port: int, *arguments: str, memory: str, niceness: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """Run `rerun --serve-grpc` at `port` within the block, and yield its process.

    The server keeps rows in up to `memory` of memory, such as '8GB'. With '0B' it keeps no rows. `niceness` is its
    priority as in the command `nice`: 0 is normal, and 19 is the lowest priority.
    """
    peer = _rerun("--serve-grpc", "--port", str(port), "--server-memory-limit", memory, *arguments, niceness=niceness)
    try:
        wait_for_port(port)
        yield peer
    finally:
        peer.kill()
        peer.wait()


@contextlib.contextmanager
def receiver(port: int, path: Path) -> Iterator[None]:
    """Run a server at `port` within the block. It writes each message into the file `path` when the message comes."""
    peer = _rerun("--save", str(path), "--port", str(port))
    try:
        wait_for_port(port)
        yield
    finally:
        # SIGTERM, because the server then writes what it has got.
        peer.terminate()
        peer.wait()


def _rerun(*arguments: str, niceness: int = 0) -> subprocess.Popen[bytes]:
    command = ["nice", "-n", str(niceness), programs.viewer_executable() or "rerun", "--bind", "127.0.0.1", *arguments]
    quiet = {"RUST_LOG": "off", "RERUN_APP_ONLY": "true"}
    return subprocess.Popen(command, env={**os.environ, **quiet}, stderr=subprocess.DEVNULL)


def check_rows(url: str, rows: int, folder: Path) -> None:
    """Raise `WrongOutputError` if the server at `url` does not have exactly `rows` rows."""
    written = folder / "read.rrd"
    reader = _rerun("--save", str(written), "--port", str(free_port()), url)
    try:
        size, since, deadline = -1, time.monotonic(), time.monotonic() + _LIMIT_SECS
        # The reader writes the header of its file when it has connected. The quiet time counts only from then on.
        while size < framing.HEADER_SIZE or time.monotonic() < since + _QUIET_SECS:
            if time.monotonic() > deadline:
                raise common.WrongOutputError(f"{url} could not be read")
            time.sleep(0.02)
            now = written.stat().st_size if written.exists() else -1
            if now != size:
                size, since = now, time.monotonic()
    finally:
        reader.send_signal(signal.SIGKILL)
        reader.wait()
    with written.open("r+b") as file:
        # The last frame may be incomplete, because the reader was killed. So it is cut off.
        _, end = framing.scan(lambda at, count: os.pread(file.fileno(), count, at), framing.HEADER_SIZE, size)
        file.truncate(end)
    common.expect(common.count_rows(written), rows, "rows in the server")
    written.unlink()

"""Runs an exporter: the process that sends the rows of a recording to one live sink, which is a viewer or a server.

The replay log is a list of files with the rows to send. A slice is a part of such a file. An exporter can wait, hang or
die without harm to the parent.

An exporter lives only as long as one connection, because the Rerun SDK connects only once, and loses all rows that it
gets after the connection has broken. The parent then starts another exporter, which sends the replay log again. A
viewer ignores a chunk that it already has, because each chunk has an id.

```
parent ── Load(file) and its descriptor, SendSlice(file, start, end), Finish ► exporter ── the SDK ──► viewer
       ◄── Waiting, Connected, SliceSent(file, end, chunks), Lost, Done ──────
```
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import time
from multiprocessing import reduction
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import rerun as rr

from mpr.live.messages import Connected, Done, Finish, Load, Lost, SendSlice, SliceSent, Waiting
from mpr.live.replay_log import dropped_until
from mpr.rrd import framing
from mpr.sdk import encoder
from mpr.sdk.internal import internal

if TYPE_CHECKING:
    from mpr.live.config import ExporterConfig
    from mpr.sinks.viewers import LiveSink


# The nice value (priority) of an exporter. On a busy machine, an exporter gets a third of the CPU time of a worker.
# Measured beside workers that compute all the time: a viewer gets a row after 60 ms. With the lowest priority (19), it
# gets the row after 360 ms.
_NICE = 5
# The system does not report that a viewer begins to listen, so an exporter tries at this interval.
_LOOK_EVERY_SECS = 0.25
# An exporter flushes at this interval, because the SDK reports a broken connection only at a flush.
_CHECK_EVERY_SECS = 1.0
# A server that ends first waits this long for viewers that still read its last rows.
_SERVER_FAREWELL_SECS = 1.5


def main(config: ExporterConfig, _shared: None) -> None:
    """Run as the exporter of `config.sink`, until the parent sends `Finish` or ends, or an error occurs.

    This function never returns, because it ends the process.
    """
    os.environ.clear()
    os.environ.update(config.environ)
    # Unblock all signals. If the parent is `mpr run`, it has blocked some signals in order to wait for them
    # (`run/command.py`), and a child process inherits this.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # The workers get the CPU first. Programs that this process starts inherit its priority.
    os.nice(_NICE)
    try:
        with contextlib.suppress(BrokenPipeError):
            _Exporter(config).run()
    finally:
        # End without the SDK's exit handlers, because they wait for viewers without limit.
        os._exit(0)


class _Exporter:
    """Sends the rows of a recording to one live sink. The messages of the parent say which rows to send."""

    def __init__(self, config: ExporterConfig) -> None:
        self._config = config
        self._pipe = config.pipe
        # Per file of the replay log: its descriptor, and whether it is a memory ring.
        self._sources: dict[int, tuple[int, bool]] = {}
        self._header = config.head[: framing.HEADER_SIZE]
        self._program: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        try:
            self._connect()
            self._pipe.send(Connected())
            self._send(self._config.head)
            self._serve()
        except Exception as error:  # noqa: BLE001  # the parent must know of any failure, so that it tries again
            self._pipe.send(Lost(str(error) or type(error).__name__))

    def _connect(self) -> None:
        sink = self._config.sink
        # The program is started before the SDK starts threads here, because a fork is not safe while threads run.
        self._program = sink._start_program(first=self._config.first)
        _be_silent()
        self._stream = encoder.new_stream(self._config.application_id, self._config.recording_id)
        if not sink.is_server:
            self._wait_for_listener(sink)
        # Marked as mpr's own call, because `mpr run` skips calls of a script that show rows.
        with internal():
            self._stream.set_sinks(sink._sdk_sink())

    def _check(self) -> None:
        """Raise an exception if the connection is broken, or if the program that serves the web page has ended."""
        self._stream.flush()
        if self._program is not None and self._program.poll() is not None:
            raise RuntimeError(f"the server of the page has ended with code {self._program.returncode}")

    def _wait_for_listener(self, sink: LiveSink) -> None:
        """Wait without limit until a viewer listens. If none listens at first, send `Waiting` to the parent once.

        The SDK itself would wait only five seconds, and then drop all rows.
        """
        address = urlsplit(sink._url())
        is_reported = False
        while True:
            try:
                socket.create_connection((address.hostname, address.port), timeout=_LOOK_EVERY_SECS).close()
            except OSError:
                if not is_reported:
                    self._pipe.send(Waiting())
                    is_reported = True
                time.sleep(_LOOK_EVERY_SECS)
            else:
                return

    def _serve(self) -> None:
        while True:
            if not self._pipe.poll(_CHECK_EVERY_SECS):
                self._check()
                continue
            match self._pipe.recv():
                case Load(number, is_memory):
                    self._sources[number] = (reduction.recv_handle(self._pipe), is_memory)
                case SendSlice(number, start, end):
                    self._send_slice(number, start, end)
                case Finish():
                    self._finish()
                    return

    def _send_slice(self, number: int, start: int, end: int) -> None:
        fd, is_memory = self._sources[number]
        read = functools.partial(_read, fd)
        position = start
        while position < end:
            data, chunks = framing.whole_frames(read, position, end)
            dropped = dropped_until(fd) if is_memory else 0
            if dropped > position:
                # The memory ring has dropped these bytes, perhaps while they were read here. So `data` may have zeros,
                # and is not used.
                position = min(dropped, end)
                chunks = 0
            elif not data:
                # Another program has cut the file, so the rest of the slice is lost.
                position = end
            else:
                self._send(self._header + data)
                position += len(data)
            self._pipe.send(SliceSent(number, position, chunks))

    def _send(self, stream: bytes) -> None:
        """Send `stream`, an encoded Rerun stream, to the live sink. Wait without limit while the viewer does not read.

        Raises an exception if the connection is broken.
        """
        rr.log_file_from_contents("mpr.rrd", stream, recording=self._stream)
        self._stream.flush()

    def _finish(self) -> None:
        self._stream.flush()
        # `disconnect` waits until the viewer has read everything.
        self._stream.disconnect()
        if self._config.sink.is_server:
            _wait_for_readers(urlsplit(self._config.sink._url()).port)
        self._pipe.send(Done())


def _read(fd: int, offset: int, size: int) -> bytes:
    return os.pread(fd, size, offset)


def _be_silent() -> None:
    """Discard all output to stderr, because the SDK repeats its messages about a broken connection there."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def _wait_for_readers(port: int | None) -> None:
    """Wait until all viewers have closed their connections to the server at `port`, but 1.5 s at most.

    A viewer that has closed its connection needs no more rows.
    """
    import psutil

    deadline = time.monotonic() + _SERVER_FAREWELL_SECS
    while time.monotonic() < deadline:
        connections = psutil.Process().net_connections("tcp")
        if not any(each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED for each in connections):
            return
        time.sleep(0.02)

"""The process between a recording and one live sink: it waits, hangs and dies in the place of the parent.

Covers: connecting to a viewer or serving, bringing it slices of the replay log, saying what it has got.
Does not cover: when exporters are started, replaced and killed (`supervisor.py`), and what is on the replay log
(`replay_log.py`).

The Rerun SDK connects once, blocks without limit where a viewer does not read, and loses what it is given after the
connection has broken. So a exporter lives as long as one connection: where that breaks it ends, and the parent starts
another one, which brings everything again. A viewer knows each chunk by its id, and takes it once.

```
parent ── Load(file of the log) + descriptor, Bring(file of the log, start, end), Finish ──► exporter ── the SDK ──►
viewer
       ◄── Waiting, Connected, Brought(file of the log, end, chunks), Lost, Done ──
```
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing import reduction
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import rerun as rr

from mpr.live.messages import Connected, Done, Finish, Load, Lost, SendSlice, SliceSent, Waiting
from mpr.live.replay_log import dropped_until
from mpr.rrd import framing
from mpr.sdk import encoder

if TYPE_CHECKING:
    from mpr.live.config import ExporterConfig
    from mpr.sinks.viewers import LiveSink


# A seventieth of the share of a worker, where the machine is busy.
_NICE = 19
# The system does not tell when somebody begins to listen, so a exporter looks so often.
_LOOK_EVERY_SECS = 0.25
# Nor does the SDK tell that a connection has broken, unless it is asked to flush.
_CHECK_EVERY_SECS = 1.0
# How long viewers of a server may go on reading at its end.
_SERVER_FAREWELL_SECS = 1.5


def main(config: ExporterConfig, _shared: None) -> None:
    """Run as the exporter of `config.sink`, until the parent says finish or ends."""
    os.environ.clear()
    os.environ.update(config.environ)
    # `mpr run` waits for signals itself, and so holds them back in all that it starts.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _step_back()
    try:
        with contextlib.suppress(BrokenPipeError):
            _Exporter(config).run()
    finally:
        # Without the SDK's exit handlers: they wait for viewers without limit.
        os._exit(0)


def _step_back() -> None:
    """Leave the CPU to the workers: this process and what it starts get what they leave."""
    os.nice(_NICE)
    if sys.platform == "linux":
        # Waking up, such a process waits for its turn instead of taking it from a worker.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class _Exporter:
    def __init__(self, config: ExporterConfig) -> None:
        self._config = config
        self._pipe = config.pipe
        self._sources: dict[int, tuple[int, bool]] = {}
        self._header = config.head[: framing.HEADER_SIZE]
        self._program: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        try:
            self._connect()
            self._pipe.send(Connected())
            self._send(self._config.head)
            self._serve()
        except Exception as error:  # noqa: BLE001  # whatever it is, the parent must hear of it, and try again
            self._pipe.send(Lost(str(error) or type(error).__name__))

    def _connect(self) -> None:
        sink = self._config.sink
        # Before the SDK has threads here, which a fork would not survive.
        self._program = sink._start_program(first=self._config.first)
        _be_silent()
        self._stream = encoder.new_stream(self._config.application_id, self._config.recording_id, send_properties=False)
        if not sink.is_server:
            self._wait_for_listener(sink)
        self._stream.set_sinks(sink._sdk_sink())

    def _check(self) -> None:
        """Raise where the connection is broken, or the page has gone."""
        self._stream.flush()
        if self._program is not None and self._program.poll() is not None:
            raise RuntimeError(f"the server of the page has ended with code {self._program.returncode}")

    def _wait_for_listener(self, sink: LiveSink) -> None:
        """The SDK would give up after five seconds, and take everything for lost."""
        address = urlsplit(sink._url())
        told = False
        while True:
            try:
                socket.create_connection((address.hostname, address.port), timeout=_LOOK_EVERY_SECS).close()
            except OSError:
                if not told:
                    self._pipe.send(Waiting())
                    told = True
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
                # What was read may be holes already.
                position = min(dropped, end)
                chunks = 0
            elif not data:
                # Somebody has cut the file: the rest cannot be had.
                position = end
            else:
                self._send(self._header + data)
                position += len(data)
            self._pipe.send(SliceSent(number, position, chunks))

    def _send(self, stream: bytes) -> None:
        """Hand over a stream; raises where the connection is broken, and waits as long as the viewer does."""
        rr.log_file_from_contents("tape.rrd", stream, recording=self._stream)
        self._stream.flush()

    def _finish(self) -> None:
        self._stream.flush()
        # Waits until the viewer has read it all.
        self._stream.disconnect()
        if self._config.sink.is_server:
            _wait_for_readers(urlsplit(self._config.sink._url()).port)
        self._pipe.send(Done())


def _read(fd: int, offset: int, size: int) -> bytes:
    return os.pread(fd, size, offset)


def _be_silent() -> None:
    """What the SDK has to say of connections it says to stderr, again and again; the parent says it once."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def _wait_for_readers(port: int | None) -> None:
    """Viewers that are still reading may do so for a moment; their connections end when they have it all."""
    import psutil

    deadline = time.monotonic() + _SERVER_FAREWELL_SECS
    while time.monotonic() < deadline:
        connections = psutil.Process().net_connections("tcp")
        if not any(each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED for each in connections):
            return
        time.sleep(0.02)

"""The producer of `route="direct"`: the SDK of each process brings its rows to the sinks itself.

Covers: the sinks that this process opens, flushing with a bound, viewers that are lost, the end.
Does not cover: tasks and results, which travel as ever (`producer.py`), and the parent's half (`recording/gather.py`).

```
rr.log ─► entry ─► SDK's batcher ─► SDK's own sinks: <path>.parts/worker-000001-<pid>.rrd · viewers · servers
```

The outbox stays empty. A result is sent when the SDK's flush has returned: the rows are with the system (file) or in
the connection (viewer) then. Where a flush fails or does not return, this process is `spent`: its results say that rows
are lost, and a pool replaces it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mpr.limits import DIRECT_CONNECT_SECS, DIRECT_FLUSH_SECS
from mpr.producer.producer import WELCOME_TIMEOUT_SECS, Producer
from mpr.rrd import framing
from mpr.sdk.internal import internal
from mpr.threads import BoundedThread
from mpr.transport.connection_info import ConnectionInfo
from mpr.transport.messages import Undelivered
from mpr.transport.outbox import Outbox

if TYPE_CHECKING:
    import rerun as rr


_LOOK_EVERY_SECS = 0.1
# The exit code of a worker that leaves its task, because a viewer reads no more.
_LEFT = 71


class DirectProducer(Producer):
    """As `Producer`, for a recording whose workers open its sinks themselves."""

    def __init__(self, config: ConnectionInfo, worker: int, timeout_secs: float = WELCOME_TIMEOUT_SECS) -> None:
        assert config.direct is not None
        self._folder = config.direct.folder
        self._urls = list(config.direct.urls)
        # Made here, and not before a fork.
        self._side = BoundedThread("mpr-direct")
        super().__init__(config, worker, timeout_secs)

    # --- instead of the way to the parent ----------------------------------------------------------------------

    def _attach(self, outbox: Outbox) -> None:
        """Open the sinks; each time the file is another one, for the SDK cuts a file that it opens."""
        import rerun as rr

        sinks: list[rr.FileSink | rr.GrpcSink] = []
        self._file = ""
        if self._folder:
            # A process id may come again in the life of a recording.
            name = f"worker-{self.worker:06d}-{os.getpid()}-{secrets.token_hex(4)}.rrd"
            self._file = str(Path(self._folder) / name)
            sinks.append(rr.FileSink(self._file))
        for url in list(self._urls):
            if _listens(url):
                sinks.append(rr.GrpcSink(url=url))
            else:
                self._lose_viewer(url, f"nobody has listened there for {DIRECT_CONNECT_SECS:.0f} s")
        with internal():
            try:
                if sinks:
                    self.stream.set_sinks(*sinks)
            except Exception as error:  # noqa: BLE001  # whatever the SDK raises for a sink
                self._give_up(str(error))
            if self.spent:
                # Without any, the SDK would keep all rows in memory.
                self.stream.set_sinks(rr.FileSink(os.devnull))

    def _detach(self) -> None:
        if self.spent:
            return
        detach = super()._detach
        failure = self._bounded(detach)
        if failure:
            self._give_up(failure)

    def _roll(self) -> None:
        self._attach(self._outbox)

    def wait_for_credit(self) -> None:
        super().wait_for_credit()
        if self.spent and self.worker:
            # The SDK would let `rr.log` wait as long as the viewer reads nothing.
            self._connection.close(hand_over=True)
            os._exit(_LEFT)

    def _push(self) -> None:
        if self.spent:
            return
        failure = self._bounded(lambda: self.stream.flush(timeout_sec=DIRECT_FLUSH_SECS))
        lost = [url for url in self._urls if url in failure]
        if lost and self._folder:
            # A connection that is broken, and neither one that is full nor a disk: the file has everything.
            for url in lost:
                self._lose_viewer(url, failure)
            left = Path(self._file)
            failure = self._bounded(self._roll)
            if not failure and not framing.is_finished(left):
                # The SDK names only one of the sinks that fail together.
                failure = f"{left} could not be finished"
        if failure:
            self._give_up(failure)

    def _end(self) -> None:
        super()._end()
        if self.spent and self.worker:
            # Without the SDK's exit handlers, which would wait for the viewer.
            os._exit(0)

    # --- what goes wrong ---------------------------------------------------------------------------------------

    def _bounded(self, step: Callable[[], None]) -> str:
        """Do `step`; returns why it failed, or nothing."""
        try:
            # The SDK keeps to the limit where it can.
            if self._side.do(step, DIRECT_FLUSH_SECS + 1):
                return ""
        except Exception as error:  # noqa: BLE001  # whatever the SDK raises for a sink
            return str(error) or type(error).__name__
        return f"it has taken nothing for {DIRECT_FLUSH_SECS:.0f} s"

    def _lose_viewer(self, url: str, reason: str) -> None:
        self._urls.remove(url)
        if self._folder:
            self._tell(f"brings no more rows to {url} ({reason}); all are in its file", rows_are_lost=False)
        else:
            self._give_up(f"{url}: {reason}")

    def _give_up(self, reason: str) -> None:
        if not self.spent:
            self.spent = True
            names = ", ".join(filter(None, [self._file, *self._urls])) or "the sinks"
            self._tell(f"cannot bring its rows to {names}: {reason}", rows_are_lost=True)
            import rerun as rr

            # At exit the SDK would wait for the viewer.
            rr.unregister_shutdown()

    def _tell(self, what: str, *, rows_are_lost: bool) -> None:
        # What was lost is not theirs.
        self.send_results()
        who = f"worker {self.worker} (pid {os.getpid()})" if self.worker else f"process {os.getpid()}"
        self._send_needed(Undelivered(f"{who} {what}", rows_are_lost))


def new_producer(config: ConnectionInfo, worker: int, timeout_secs: float = WELCOME_TIMEOUT_SECS) -> Producer:
    """The producer for a process that is not the recording's own."""
    kind = Producer if config.direct is None else DirectProducer
    return kind(config, worker, timeout_secs)


def _listens(url: str) -> bool:
    """Wait for somebody to listen at `url`: the SDK would take all for lost after five seconds, and not say so."""
    address = urlsplit(url)
    deadline = time.monotonic() + DIRECT_CONNECT_SECS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((address.hostname, address.port), timeout=1):
            return True
        time.sleep(_LOOK_EVERY_SECS)
    return False

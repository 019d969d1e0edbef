"""Writes the rows of this process directly to the sinks: the writer for `mpr.SharedRecording(..., route="direct")`.

Covers: the sinks that this process opens, flushing with a time limit, viewers that stop reading, closing.
Does not cover: tasks and results (`producer.py`), and the parent's part (`recording/gather.py`).

```
rr.log ─► router ─► SDK's batcher ─► SDK's own sinks: <path>.parts/worker-000001-<pid>-<random>.rrd · viewers · servers
```

The outbox stays empty. Tasks and results still go through the parent. A result is sent after the SDK's flush has
returned.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from mpr.limits import DIRECT_CONNECT_SECS, DIRECT_FLUSH_SECS
from mpr.producer.announcer import OpenOutbox
from mpr.producer.outbox_writer import OutboxWriter, WriterParts
from mpr.rrd import framing
from mpr.sdk.internal import internal
from mpr.transport.connection_info import DirectRoute
from mpr.transport.messages import SegmentReady
from mpr.transport.outbox import Outbox

_LOOK_EVERY_SECS = 0.1
# The exit code of a worker that ends within its task, because a viewer has stopped reading.
_LEFT = 71


class DirectWriter(OutboxWriter):
    """Writes rows to the sinks of `route`, which this process opens itself.

    Parameters
    ----------
    parts:
        The parts of the producer that the writer uses.
    outbox:
        The outbox, which stays empty.
    route:
        The sinks to open: a folder for the file of this process, and the URLs of viewers and servers.
    """

    def __init__(self, parts: WriterParts, outbox: Outbox, route: DirectRoute) -> None:
        self._folder = route.folder
        self._urls = list(route.urls)
        self._file = ""
        super().__init__(parts, outbox)
        self.roll()

    def segment(self, current: OpenOutbox, end: int) -> SegmentReady:
        """Return the message that announces `current` up to byte `end`. Never sent, because the outbox stays empty."""
        return SegmentReady(current.number, current.announced, end)

    def retire(self, outbox: Outbox) -> None:
        """Do nothing, because there is only one outbox, which stays empty."""

    def roll(self) -> None:
        """Open the sinks of the route, with a new file, and make the stream write to them. `__init__` calls this, too.

        If that fails, this process is `spent`. If there is a file, a viewer that does not listen is not a failure: it
        is left out, and the parent gets a report. If this process is `spent`, its later rows go to `/dev/null`.
        """
        import rerun as rr

        sinks: list[rr.FileSink | rr.GrpcSink] = []
        self._file = ""
        if self._folder:
            # The name has a random part, because a process id may be used again while the recording is open.
            name = f"worker-{self._parts.worker:06d}-{os.getpid()}-{secrets.token_hex(4)}.rrd"
            self._file = str(Path(self._folder) / name)
            sinks.append(rr.FileSink(self._file))
        for url in list(self._urls):
            if _listens(url):
                sinks.append(rr.GrpcSink(url=url))
            else:
                self._lose_viewer(url, f"nobody has listened there for {DIRECT_CONNECT_SECS:.0f} s")
        stream = self._parts.stream
        try:
            failure = self._sinks.failure_of(lambda: stream.set_sinks(*sinks)) if sinks else ""
        except Exception as error:  # noqa: BLE001  # whatever the SDK raises for a sink
            failure = str(error)
        if failure:
            self._give_up(failure)
        if self.spent:
            # Without any sink, the SDK would keep all rows in memory.
            self._sinks.failure_of(lambda: stream.set_sinks(rr.FileSink(os.devnull)))

    def wait_for_credit(self) -> None:
        """Do what `OutboxWriter.wait_for_credit` does, but end this process if it is a worker and is `spent`.

        The exit code is then 71. If this process is `spent` and is no worker, raises `DeliveryError`. A process that is
        `spent` must not log, because `rr.log` could wait for ever for a viewer that has stopped reading.
        """
        if not self.spent:
            super().wait_for_credit()
        if self.spent and self._parts.worker:
            self._parts.connection.close(hand_over=True)
            os._exit(_LEFT)
        if self.spent:
            super().wait_for_credit()

    def push(self) -> None:
        """Make the SDK write all its rows to the sinks. If that fails or takes over 10 s, this process is `spent`.

        If only viewers fail and the file has all rows, this process instead continues with a new file, without these
        viewers.
        """
        if self.spent:
            return
        failure = self._bounded(lambda: self._parts.stream.flush(timeout_sec=DIRECT_FLUSH_SECS))
        lost = [url for url in self._urls if url in failure]
        if lost and self._folder:
            # The SDK has named a viewer, so only the connection to that viewer is broken. The file has all rows.
            for url in lost:
                self._lose_viewer(url, failure)
            left = Path(self._file)
            failure = self._bounded(self.roll)
            if not failure and not framing.is_finished(left):
                # The file is checked too, because the SDK names only one sink if several sinks fail together.
                failure = f"{left} could not be finished"
        if failure:
            self._give_up(failure)

    def detach(self) -> None:
        """Make the SDK close its sinks. If that fails or takes over 11 s, this process is `spent`."""
        if self.spent:
            return
        failure = self._bounded(self._disconnect)
        if failure:
            self._give_up(failure)

    def _disconnect(self) -> None:
        with internal():
            self._parts.stream.disconnect()

    # --- what goes wrong -----------------------------------------------------------------------------------------

    def _bounded(self, step: Callable[[], None]) -> str:
        """Run `step` in the thread `side`. Return an empty text if `step` succeeds, else the reason for the failure.

        A step that takes longer than 11 s (`DIRECT_FLUSH_SECS` plus one second) has failed, too.
        """
        try:
            # One second more than the limit of `flush`, so that the SDK can raise its own error before this wait ends.
            if self.side.do(step, DIRECT_FLUSH_SECS + 1):
                return ""
        except Exception as error:  # noqa: BLE001  # whatever the SDK raises for a sink
            return str(error) or type(error).__name__
        return f"it has taken nothing for {DIRECT_FLUSH_SECS:.0f} s"

    def _lose_viewer(self, url: str, reason: str) -> None:
        self._urls.remove(url)
        if self._folder:
            self.report(f"brings no more rows to {url} ({reason}); all are in its file", rows_are_lost=False)
        else:
            self._give_up(f"{url}: {reason}")

    def _give_up(self, reason: str) -> None:
        self.give_up(", ".join(filter(None, [self._file, *self._urls])) or "the sinks", reason)


def _listens(url: str) -> bool:
    """Return True as soon as a viewer listens at `url`; False if none does so within 10 s (`DIRECT_CONNECT_SECS`).

    This function is needed because the SDK gives up after five seconds and does not report that.
    """
    address = urlsplit(url)
    deadline = time.monotonic() + DIRECT_CONNECT_SECS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((address.hostname, address.port), timeout=1):
            return True
        time.sleep(_LOOK_EVERY_SECS)
    return False

"""The parent's half of a recording's live sinks: a thread that starts exporters, and tells them what there is to bring.

Covers: one exporter process per sink, its successors, what each has brought, the bounded end.
Does not cover: the viewer's side (`exporter.py`) and what there is to bring (`replay_log.py`).

The aggregator only says that something was accepted. Everything that can wait, hang or fail is in the exporters; this
thread exchanges messages of a few bytes with them, and never has one on its way to a exporter that has not answered.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from multiprocessing import connection as mp_connection
from multiprocessing import reduction
from typing import Any

from mpr.limits import LIVE_FAREWELL_SECS
from mpr.live.config import MAIN, ExporterConfig
from mpr.live.messages import Connected, Done, Finish, Load, Lost, SendSlice, SliceSent, Waiting
from mpr.live.replay_log import ReplayLog
from mpr.live.statistics import LiveSinkStatistics
from mpr.processes.launcher import Launcher, ctrl_c_blocked
from mpr.processes.start import check_start_method, make_launcher
from mpr.rrd.segment import Segment
from mpr.sinks.viewers import LiveSink

_log = logging.getLogger("mpr")

# What comes in small pieces is brought so often; a viewer draws 60 times a second, but workers need the CPU.
_SEND_EVERY_SECS = 0.05
# A exporter that ends is replaced after this, each time doubled.
_FIRST_RETRY_SECS = 0.1
_LAST_RETRY_SECS = 2.0
# How long the start of a process may take, where the fork server was killed and another one has to import everything.
_START_SECS = 30.0
# A viewer that has got nothing for so long is told of while there is time to do something about it.
_PATIENCE_SECS = 10.0
# How long a killed process may take to end.
_KILL_SECS = 1.0


class _State(enum.Enum):
    #: No exporter; one is started at `retry_at`.
    DOWN = "not running"
    #: The exporter is being started, or makes its connection.
    STARTING = "starting"
    #: The exporter waits for somebody to listen.
    WAITING = "waiting for a viewer"
    #: Rows are brought.
    CONNECTED = "connected"
    #: It was told that no more comes.
    FINISHING = "finishing"
    #: Everything was brought, and the exporter has ended.
    DONE = "done"


class _Viewer:
    """One live sink, as the thread sees it."""

    def __init__(self, number: int, sink: LiveSink) -> None:
        self.number = number
        self.sink = sink
        self.state = _State.DOWN
        self.pid: int | None = None
        self.pipe: Any = None
        self.started_before = False
        self.retry_at = 0.0
        self.retry_secs = _FIRST_RETRY_SECS
        #: Per file of the log: how far the present exporter has brought it.
        self.positions: dict[int, int] = {}
        #: Up to where the exporter was told to bring, until it says that it has.
        self.told: int | None = None
        self.sent_at = 0.0
        self.sent_chunks = 0
        self.connections = 0
        self.reason = "it was not ready in time"
        #: Since when it has had nothing of what there is; None while it has all.
        self.hungry_since: float | None = time.monotonic()
        self.told_of = False

    def forget_exporter(self) -> None:
        if self.pipe is not None:
            self.pipe.close()
        self.pipe = self.pid = self.told = None
        self.positions = {}


class LiveSupervisor:
    """All live sinks of a recording, at work.

    Parameters
    ----------
    sinks:
        With the ports that were chosen.
    replay log:
        What they get.
    application_id, recording_id:
        Of the recording.
    """

    def __init__(
        self, sinks: Sequence[LiveSink], replay_log: ReplayLog, application_id: str, recording_id: str
    ) -> None:
        self._replay_log = replay_log
        self._ids = (application_id, recording_id)
        self._viewers = [_Viewer(number, sink) for number, sink in enumerate(sinks)]
        self._launcher: Launcher | None = None
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        #: Whether the thread has nothing to bring, so that news has to wake it.
        self._idle = False
        #: When the end has to be over.
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="mpr-live", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def accepted(self, segment: Segment) -> None:
        """The aggregator's thread: the durable sinks have `segment`."""
        self._replay_log.accepted(segment)
        if self._idle:
            self._idle = False
            self._wake()

    def stats(self) -> list[LiveSinkStatistics]:
        """Any thread: what each sink has got until now."""
        return [
            LiveSinkStatistics(
                sink=viewer.sink._name(),
                state=viewer.state.value,
                sent_chunks=viewer.sent_chunks,
                missing_chunks=max(0, self._replay_log.chunks - viewer.sent_chunks),
                connections=viewer.connections,
            )
            for viewer in self._viewers
        ]

    def finish(self) -> list[str]:
        """Any other thread: bring what can be brought within some seconds, then end all exporters.

        Nothing may be accepted any more. Returns what was missed, in words; tells the user of it, too.
        """
        self._deadline = time.monotonic() + LIVE_FAREWELL_SECS
        self._wake()
        self._thread.join(LIVE_FAREWELL_SECS + _KILL_SECS + _START_SECS)
        if self._thread.is_alive():
            _log.error("mpr: live sinks cannot be ended; their processes end with this one")
        else:
            os.close(self._wake_reader)
            os.close(self._wake_writer)
            self._replay_log.close()
        total = self._replay_log.chunks
        missed = []
        for viewer, found in zip(self._viewers, self.stats(), strict=True):
            if not total or (viewer.state is _State.DONE and not found.missing_chunks):
                continue
            if viewer.state in (_State.CONNECTED, _State.FINISHING):
                # It has not said that it has read the last of them.
                missed.append(
                    f"{found.sink} stopped reading: it lacks {found.missing_chunks} of {total} chunks or more"
                )
            else:
                missed.append(f"{found.sink} lacks {found.missing_chunks} of {total} chunks: {viewer.reason}")
        return missed

    def _wake(self) -> None:
        # Full, it wakes too.
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_writer, b"x")

    # --- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._launcher = make_launcher(check_start_method(None), True, MAIN, None)
            while not self._is_over():
                timeout = self._step()
                mp_connection.wait(self._waitables(), timeout)
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_reader, 4096)
                for viewer in self._viewers:
                    self._listen(viewer)
                self._reap_the_dead()
        except Exception as error:  # noqa: BLE001  # rows are not concerned, only the viewers are dark
            _log.exception("mpr's live sinks have failed")
            for viewer in self._viewers:
                viewer.reason = f"{type(error).__name__}: {error}"
        finally:
            self._end_all()

    def _is_over(self) -> bool:
        if self._deadline is None:
            return False
        waiting = (viewer.state not in (_State.DONE, _State.WAITING, _State.DOWN) for viewer in self._viewers)
        return time.monotonic() > self._deadline or not any(waiting)

    def _waitables(self) -> list[Any]:
        assert self._launcher is not None
        pipes = [viewer.pipe for viewer in self._viewers if viewer.pipe is not None]
        return [self._wake_reader, *pipes, *self._launcher.waitables()]

    def _step(self) -> float | None:
        """Start and bring what is due; returns how long there is nothing else to do (seconds; None: for ever)."""
        self._idle = True
        now = time.monotonic()
        due = [] if self._deadline is None else [self._deadline]
        for viewer in self._viewers:
            if viewer.state is _State.DOWN and self._deadline is None:
                if now >= viewer.retry_at:
                    self._start_exporter(viewer)
                else:
                    due.append(viewer.retry_at)
            elif viewer.state is _State.CONNECTED and viewer.told is None and viewer.pipe is not None:
                at = self._send(viewer, now)
                if at is not None:
                    self._idle = False
                    due.append(at)
            if not viewer.told_of and self._deadline is None:
                due += self._tell_of(viewer, now)
        return max(0.0, min(due) - now) if due else None

    def _start_exporter(self, viewer: _Viewer) -> None:
        assert self._launcher is not None
        ours, exporters = multiprocessing.Pipe()
        config = ExporterConfig(
            sink=viewer.sink,
            application_id=self._ids[0],
            recording_id=self._ids[1],
            head=self._replay_log.head,
            first=not viewer.started_before,
            environ=dict(os.environ),
            pipe=exporters,
        )
        try:
            with ctrl_c_blocked():
                viewer.pid = self._launcher.start(viewer.number, config)
        except Exception as error:  # noqa: BLE001  # whatever keeps a process from starting
            ours.close()
            self._retry_later(viewer, f"its process cannot be started: {error}")
        else:
            viewer.pipe = ours
            viewer.state = _State.STARTING
            viewer.started_before = True
        finally:
            exporters.close()

    def _retry_later(self, viewer: _Viewer, reason: str) -> None:
        _log.info("mpr: %s: %s; trying again", viewer.sink._name(), reason)
        viewer.reason = reason
        viewer.state = _State.DOWN
        viewer.retry_at = time.monotonic() + viewer.retry_secs
        viewer.retry_secs = min(2 * viewer.retry_secs, _LAST_RETRY_SECS)

    def _send(self, viewer: _Viewer, now: float) -> float | None:
        """Tell the exporter what there is; returns when to do so where it is too early, None where there is nothing."""
        for number, source in enumerate(self._replay_log.sources):
            start = max(viewer.positions.get(number, 0), source.start)
            end = source.end
            if start >= end:
                continue
            at = viewer.sent_at + _SEND_EVERY_SECS
            if now < at and self._deadline is None:
                return at
            if number not in viewer.positions:
                self._tell(viewer, Load(number, source.is_memory))
                with contextlib.suppress(OSError):
                    reduction.send_handle(viewer.pipe, source.fd, viewer.pid)
            viewer.positions[number] = start
            viewer.told = end
            viewer.sent_at = now
            self._tell(viewer, SendSlice(number, start, end))
            return None
        if self._deadline is not None:
            viewer.state = _State.FINISHING
            self._tell(viewer, Finish())
        return None

    def _tell_of(self, viewer: _Viewer, now: float) -> list[float]:
        """Say once that a sink gets nothing; returns when to look again, if that has to be."""
        if viewer.state is _State.CONNECTED and viewer.told is None:
            viewer.hungry_since = None
            return []
        viewer.hungry_since = viewer.hungry_since or now
        at = viewer.hungry_since + _PATIENCE_SECS
        if now < at:
            return [at]
        viewer.told_of = True
        _log.warning(
            "mpr: %s has got nothing for %.0f s: %s. Results do not wait; it gets what there is when it reads again",
            viewer.sink._name(),
            _PATIENCE_SECS,
            "it reads no more" if viewer.state is _State.CONNECTED else viewer.reason,
        )
        return []

    def _tell(self, viewer: _Viewer, message: object) -> None:
        # Where it has died, that is heard of in a moment.
        with contextlib.suppress(OSError):
            viewer.pipe.send(message)

    def _listen(self, viewer: _Viewer) -> None:
        try:
            while viewer.pipe is not None and viewer.pipe.poll():
                self._hear(viewer, viewer.pipe.recv())
        except (EOFError, OSError):
            # Its end is told by the launcher.
            viewer.pipe.close()
            viewer.pipe = None

    def _hear(self, viewer: _Viewer, message: object) -> None:
        match message:
            case Waiting():
                viewer.state = _State.WAITING
                viewer.reason = "nobody listened there"
            case Connected():
                viewer.state = _State.CONNECTED
                viewer.connections += 1
                viewer.sent_chunks = 0
                viewer.reason = "the connection was lost"
            case SliceSent(number, end, chunks):
                viewer.positions[number] = end
                viewer.sent_chunks += chunks
                if viewer.told is not None and end >= viewer.told:
                    viewer.told = None
                viewer.retry_secs = _FIRST_RETRY_SECS
                viewer.hungry_since = time.monotonic()
            case Lost(reason):
                viewer.reason = reason
            case Done():
                viewer.state = _State.DONE

    def _reap_the_dead(self) -> None:
        assert self._launcher is not None
        for number, _ in self._launcher.ended():
            viewer = self._viewers[number]
            self._listen(viewer)
            viewer.forget_exporter()
            if viewer.state is not _State.DONE:
                self._retry_later(viewer, viewer.reason)

    def _end_all(self) -> None:
        if self._launcher is None:
            return
        deadline = time.monotonic() + _KILL_SECS
        left = {viewer.pid for viewer in self._viewers if viewer.pid is not None}
        while left and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            mp_connection.wait(self._launcher.waitables(), _KILL_SECS)
            for number, _ in self._launcher.ended():
                left.discard(self._viewers[number].pid)
        for viewer in self._viewers:
            viewer.forget_exporter()
        self._launcher.close()

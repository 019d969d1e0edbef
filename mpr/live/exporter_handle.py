"""Starts and replaces the exporters of one live sink, and tells them which rows to send. Runs in the parent.

A live sink is a viewer or a server. An exporter is the process that sends rows to it. The replay log is a list of files
with these rows (`replay_log.py`). A slice is a part of such a file that an exporter sends at a time.
"""

from __future__ import annotations

import contextlib
import enum
import multiprocessing
import os
import signal
import time
from multiprocessing import reduction
from typing import Any

from mpr.live.config import ExporterConfig
from mpr.live.messages import Connected, Done, Finish, Load, Lost, SendSlice, SliceSent, Waiting
from mpr.live.replay_log import ReplayLog
from mpr.live.statistics import LiveSinkStatistics
from mpr.processes.launcher import Launcher, ctrl_c_blocked
from mpr.sinks.viewers import LiveSink
from mpr.user_code import log as _log

# The shortest time between two slices, so that rows which come within this time are sent together. A viewer draws 60
# times a second, but sending so often would take CPU time from the workers.
_SEND_EVERY_SECS = 0.025
# The shortest and the longest time until an exporter that has ended is replaced. The time doubles with each attempt.
_FIRST_RETRY_SECS = 0.1
_LAST_RETRY_SECS = 2.0
# If a viewer gets nothing for this time, a warning is logged, so that the user can act while the run still goes on.
_PATIENCE_SECS = 10.0


class ExporterState(enum.Enum):
    """The states of a live sink. The values are the texts that users see in `LiveSinkStatistics.state`."""

    #: There is no exporter. While the recording is open, another attempt follows, unless mpr itself has failed.
    DOWN = "not running"
    #: The exporter is being started, or it connects.
    STARTING = "starting"
    #: The exporter waits until a viewer listens.
    WAITING = "waiting for a viewer"
    #: The exporter sends rows.
    CONNECTED = "connected"
    #: The exporter was told that no more rows follow.
    FINISHING = "finishing"
    #: All rows were sent, and the exporter has ended.
    DONE = "done"


class ExporterHandle:
    """Keeps the state of a live sink, and exchanges messages with its exporter.

    Any thread may call `stats` and `missed`. Only the thread of the `LiveSupervisor` calls the other methods.

    Parameters
    ----------
    number:
        The number of the sink in its recording.
    sink:
        The sink. If the user gave port 0, the sink has a free port instead.
    replay_log:
        The files with the rows to send.
    """

    def __init__(self, number: int, sink: LiveSink, replay_log: ReplayLog) -> None:
        self._number = number
        self._sink = sink
        self._replay_log = replay_log
        self._state = ExporterState.DOWN
        self._pid: int | None = None
        self._pipe: Any = None
        self._was_started = False
        self._backoff = _Backoff()
        # Per file of the replay log: the offset up to which the present exporter has sent the file.
        self._positions: dict[int, int] = {}
        # The end of the slice that the exporter sends now, or None.
        self._sending_until: int | None = None
        self._sent_at = 0.0
        self._sent_chunks = 0
        self._connections = 0
        # The reason why the sink last got no rows, in words for notes and warnings.
        self._reason = "it was not ready in time"
        self._starvation = _Starvation()

    @property
    def number(self) -> int:
        """The number of the sink in its recording."""
        return self._number

    @property
    def pipe(self) -> Any:
        """The connection to the exporter; None if there is none."""
        return self._pipe

    @property
    def has_process(self) -> bool:
        """True if an exporter was started, and `release` was not called after that."""
        return self._pid is not None

    @property
    def is_down(self) -> bool:
        """True if the state is `DOWN`: an exporter must be started, or `give_up` was called."""
        return self._state is ExporterState.DOWN

    @property
    def retry_at(self) -> float:
        """The earliest time at which to start the next exporter, in seconds of `time.monotonic`.

        It has a meaning only if `is_down` is True.
        """
        return self._backoff.at

    @property
    def is_ready(self) -> bool:
        """True if the exporter is connected, and has sent all slices that this object told it to send."""
        return self._is_fed() and self._pipe is not None

    @property
    def may_finish(self) -> bool:
        """True if the exporter may still send rows when the recording ends: it starts, is connected, or finishes.

        False if it has ended. Also False if it waits for a viewer, because this wait has no limit.
        """
        return self._state in (ExporterState.STARTING, ExporterState.CONNECTED, ExporterState.FINISHING)

    def _is_fed(self) -> bool:
        return self._state is ExporterState.CONNECTED and self._sending_until is None

    def stats(self) -> LiveSinkStatistics:
        """Return the progress of the sink until now."""
        return LiveSinkStatistics(
            sink=self._sink._name(),
            state=self._state.value,
            sent_chunks=self._sent_chunks,
            missing_chunks=max(0, self._replay_log.chunks - self._sent_chunks),
            connections=self._connections,
        )

    def missed(self) -> str | None:
        """Return a text that says how many chunks the sink lacks, and why.

        Returns None if the exporter has reported `Done` and no chunk is missing, or if the recording has no chunks.
        """
        total, found = self._replay_log.chunks, self.stats()
        if not total or (self._state is ExporterState.DONE and not found.missing_chunks):
            return None
        if self._state in (ExporterState.CONNECTED, ExporterState.FINISHING):
            # The exporter has not reported `Done`, so it is not known whether the viewer has read the last chunks.
            return f"{found.sink} stopped reading: it lacks {found.missing_chunks} of {total} chunks or more"
        return f"{found.sink} lacks {found.missing_chunks} of {total} chunks: {self._reason}"

    def start(self, launcher: Launcher, application_id: str, recording_id: str) -> None:
        """Start an exporter with `launcher`. If `launcher` fails, raise nothing, and set `retry_at` for a retry."""
        ours, exporters = multiprocessing.Pipe()
        config = ExporterConfig(
            sink=self._sink,
            application_id=application_id,
            recording_id=recording_id,
            head=self._replay_log.head,
            first=not self._was_started,
            environ=dict(os.environ),
            pipe=exporters,
        )
        try:
            with ctrl_c_blocked():
                self._pid = launcher.start(self._number, config)
        except Exception as error:  # noqa: BLE001  # any error may keep a process from starting
            ours.close()
            self._retry_later(f"its process cannot be started: {error}")
        else:
            self._pipe = ours
            self._state = ExporterState.STARTING
            self._was_started = True
        finally:
            exporters.close()

    def send(self, now: float, *, is_last: bool) -> float | None:
        """Tell the exporter to send a slice of new rows, if there are any. The caller checks `is_ready` before.

        If there are new rows, but the last slice was requested less than 25 ms before `now` (in seconds of
        `time.monotonic`), sends nothing, and returns the time at which to call this method again. In all other cases,
        returns None.

        If `is_last` is true, new rows are sent at once, without regard to the 25 ms. If `is_last` is true and there are
        no new rows, the exporter is told to finish.
        """
        for number, source in enumerate(self._replay_log.sources):
            start = max(self._positions.get(number, 0), source.start)
            end = source.end
            if start >= end:
                continue
            at = self._sent_at + _SEND_EVERY_SECS
            if now < at and not is_last:
                return at
            if number not in self._positions:
                self._write(Load(number, source.is_memory))
                with contextlib.suppress(OSError):
                    reduction.send_handle(self._pipe, source.fd, self._pid)
            self._positions[number] = start
            self._sending_until = end
            self._sent_at = now
            self._write(SendSlice(number, start, end))
            return None
        if is_last:
            self._state = ExporterState.FINISHING
            self._write(Finish())
        return None

    def _write(self, message: object) -> None:
        # An error means that the exporter has died. It is ignored, because the launcher reports each death.
        with contextlib.suppress(OSError):
            self._pipe.send(message)

    def check_starvation(self, now: float) -> float | None:
        """Log a warning if, for 10 s, the exporter was not connected, or has sent nothing of the slice that it got.

        At most one warning is logged. `now` is the present `time.monotonic()`. Returns the time at which to call this
        method again, or None if no call is needed before the state changes.
        """
        if self._starvation.is_reported:
            return None
        if self._is_fed():
            self._starvation.end()
            return None
        at = self._starvation.begin(now) + _PATIENCE_SECS
        if now < at:
            return at
        self._starvation.report()
        _log.warning(
            "mpr: %s has got nothing for %.0f s: %s. Results do not wait; it gets what there is when it reads again",
            self._sink._name(),
            _PATIENCE_SECS,
            "it reads no more" if self._state is ExporterState.CONNECTED else self._reason,
        )
        return None

    def listen(self) -> None:
        """Read all messages that the exporter has sent until now, without waiting.

        If the exporter has ended, close the connection to it. `pipe` is then None.
        """
        try:
            while self._pipe is not None and self._pipe.poll():
                self._read(self._pipe.recv())
        except (EOFError, OSError):
            # The exporter has ended, so its end of the connection is closed. The launcher reports this too. The
            # supervisor then calls `reap`.
            self._pipe.close()
            self._pipe = None

    def _read(self, message: object) -> None:
        match message:
            case Waiting():
                self._state = ExporterState.WAITING
                self._reason = "nobody listened there"
            case Connected():
                self._state = ExporterState.CONNECTED
                self._connections += 1
                self._sent_chunks = 0
                self._reason = "the connection was lost"
            case SliceSent(number, end, chunks):
                self._positions[number] = end
                self._sent_chunks += chunks
                if self._sending_until is not None and end >= self._sending_until:
                    self._sending_until = None
                self._backoff.reset()
                self._starvation.begin_again(time.monotonic())
            case Lost(reason):
                self._reason = reason
            case Done():
                self._state = ExporterState.DONE

    def reap(self) -> None:
        """Read the last messages of the exporter, which has ended, and close the connection to it.

        If the exporter has not reported `Done`, set `retry_at` for the next exporter.
        """
        self.listen()
        self.release()
        if self._state is not ExporterState.DONE:
            self._retry_later(self._reason)

    def _retry_later(self, reason: str) -> None:
        _log.info("mpr: %s: %s; trying again", self._sink._name(), reason)
        self._reason = reason
        self._state = ExporterState.DOWN
        self._backoff.wait()

    def give_up(self, reason: str) -> None:
        """Note that the sink gets no more rows. `missed` then names `reason`, a text.

        Does nothing if the exporter has reported `Done`. The exporter is not ended.
        """
        if self._state is not ExporterState.DONE:
            self._state = ExporterState.DOWN
            self._reason = reason

    def kill(self) -> None:
        """Send SIGKILL to the exporter, if there is one, without waiting for its end."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def release(self) -> None:
        """Close the connection to the exporter, and forget its process id and which rows it has sent.

        A next exporter then sends all rows of the replay log again.
        """
        if self._pipe is not None:
            self._pipe.close()
        self._pipe = self._pid = self._sending_until = None
        self._positions = {}


class _Backoff:
    """Says when to start the next exporter: at the time `at`, in seconds of `time.monotonic`.

    The delay doubles after each attempt that fails, from 0.1 s up to 2 s. When an exporter has sent rows, the delay is
    0.1 s again.
    """

    def __init__(self) -> None:
        self.at = 0.0
        self._secs = _FIRST_RETRY_SECS

    def wait(self) -> None:
        self.at = time.monotonic() + self._secs
        self._secs = min(2 * self._secs, _LAST_RETRY_SECS)

    def reset(self) -> None:
        self._secs = _FIRST_RETRY_SECS


class _Starvation:
    """Measures for how many seconds a sink has taken no rows. Remembers if the user was warned."""

    def __init__(self) -> None:
        self._since: float | None = time.monotonic()
        self.is_reported = False

    def begin(self, now: float) -> float:
        """Start the measurement at the time `now`, unless it runs already. Return the time at which it was started.

        All times are in seconds of `time.monotonic`.
        """
        self._since = self._since or now
        return self._since

    def begin_again(self, now: float) -> None:
        self._since = now

    def end(self) -> None:
        self._since = None

    def report(self) -> None:
        self.is_reported = True

"""Runs the live sinks of a recording, in the parent. A thread starts an exporter for each sink, and sends it messages.

A live sink is a viewer or a server. An exporter is the process that sends rows to one live sink. The replay log has
files with these rows. A slice is a part of such a file. The thread gives an exporter no further slice until the
exporter has sent the last one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from multiprocessing import connection as mp_connection
from typing import Any

from mpr.limits import LIVE_FAREWELL_SECS
from mpr.live.config import MAIN
from mpr.live.exporter_handle import ExporterHandle
from mpr.live.replay_log import ReplayLog
from mpr.live.statistics import LiveSinkStatistics
from mpr.processes.launcher import Launcher
from mpr.processes.start import check_start_method, make_launcher
from mpr.rrd.segment import Segment
from mpr.sinks.viewers import LiveSink
from mpr.threads import WakeupPipe
from mpr.user_code import log as _log

# The time that the start of an exporter may take, even if the fork server was killed and a new one must import all
# modules.
_START_SECS = 30.0
# The time that a killed exporter may take to end.
_KILL_SECS = 1.0


class LiveSupervisor:
    """Has a thread that keeps an exporter for each live sink of one recording, and tells the exporters what to send.

    Parameters
    ----------
    sinks:
        The sinks. The caller has replaced each port 0 by a free port (`LiveSink._with_ports`).
    replay_log:
        The files with the rows that the sinks get.
    application_id, recording_id:
        The ids of the recording.
    """

    def __init__(
        self, sinks: Sequence[LiveSink], replay_log: ReplayLog, application_id: str, recording_id: str
    ) -> None:
        self._replay_log = replay_log
        self._ids = (application_id, recording_id)
        self._handles = [ExporterHandle(number, sink, replay_log) for number, sink in enumerate(sinks)]
        self._launcher: Launcher | None = None
        self._wakeup = WakeupPipe()
        # Whether the thread has nothing to send, so that new rows must wake it.
        self._idle = False
        # The time by which all sinks must have finished, or None while the recording is open.
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="mpr-live", daemon=True)

    def start(self) -> None:
        """Start the thread, which then starts the exporters."""
        self._thread.start()

    def accepted(self, segment: Segment) -> None:
        """Make the rows of `segment` available to the exporters. This method never waits for an exporter.

        Only the aggregator's thread calls this method, after all durable sinks that still work have accepted these
        rows.
        """
        self._replay_log.accepted(segment)
        if self._idle:
            self._idle = False
            self._wakeup.wake()

    def stats(self) -> list[LiveSinkStatistics]:
        """Return the progress of each sink, in the order of `sinks`. Any thread may call this."""
        return [handle.stats() for handle in self._handles]

    def finish(self) -> list[str]:
        """Let the exporters send rows for up to `LIVE_FAREWELL_SECS` seconds more, and then end them and the thread.

        Exporters that wait for a viewer, or that still run after this time, are killed. Returns one text for each sink
        that may lack rows, with the number of chunks that it lacks. Any thread except the supervisor's own may call
        this method. Do not call `accepted` afterwards, because the replay log is closed.
        """
        self._deadline = time.monotonic() + LIVE_FAREWELL_SECS
        self._wakeup.wake()
        self._thread.join(LIVE_FAREWELL_SECS + _KILL_SECS + _START_SECS)
        if self._thread.is_alive():
            _log.error("mpr: live sinks cannot be ended; their processes end with this one")
        else:
            self._wakeup.close()
            self._replay_log.close()
        missed = (handle.missed() for handle in self._handles)
        return [words for words in missed if words is not None]

    # --- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._launcher = make_launcher(check_start_method(None), True, MAIN, None)
            while not self._is_over():
                timeout = self._step(self._launcher)
                mp_connection.wait(self._waitables(self._launcher), timeout)
                self._wakeup.clear()
                for handle in self._handles:
                    handle.listen()
                for number, _ in self._launcher.ended():
                    self._handles[number].reap()
        except Exception as error:  # noqa: BLE001  # the rows are safe, and only the viewers get nothing more
            _log.exception("mpr's live sinks have failed")
            for handle in self._handles:
                handle.give_up(f"{type(error).__name__}: {error}")
        finally:
            if self._launcher is not None:
                self._end_all(self._launcher)

    def _is_over(self) -> bool:
        if self._deadline is None:
            return False
        return time.monotonic() > self._deadline or not any(handle.may_finish for handle in self._handles)

    def _waitables(self, launcher: Launcher) -> list[Any]:
        pipes = [handle.pipe for handle in self._handles if handle.pipe is not None]
        return [self._wakeup.fileno(), *pipes, *launcher.waitables()]

    def _step(self, launcher: Launcher) -> float | None:
        """Start exporters whose `retry_at` has passed, unless the recording ends, and have ready ones send new rows.

        Returns the number of seconds until this method must be called again; None if it need not be called before an
        event, such as new rows or a message.
        """
        self._idle = True
        now = time.monotonic()
        is_ending = self._deadline is not None
        due = [self._deadline]
        for handle in self._handles:
            if handle.is_down and not is_ending:
                if now >= handle.retry_at:
                    handle.start(launcher, *self._ids)
                else:
                    due.append(handle.retry_at)
            elif handle.is_ready:
                at = handle.send(now, is_last=is_ending)
                if at is not None:
                    self._idle = False
                    due.append(at)
            if not is_ending:
                due.append(handle.check_starvation(now))
        times = [at for at in due if at is not None]
        return max(0.0, min(times) - now) if times else None

    def _end_all(self, launcher: Launcher) -> None:
        deadline = time.monotonic() + _KILL_SECS
        left = {handle.number: handle for handle in self._handles if handle.has_process}
        while left and time.monotonic() < deadline:
            for handle in left.values():
                handle.kill()
            mp_connection.wait(launcher.waitables(), _KILL_SECS)
            for number, _ in launcher.ended():
                left.pop(number, None)
        for handle in self._handles:
            handle.release()
        launcher.close()

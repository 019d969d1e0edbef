"""Notices that the recording of a producer is gone, and reports once that rows are lost because of that.

A recording is *gone* if it was closed, or if the process that has made it has ended.
"""

from __future__ import annotations

import os
import time

from mpr.errors import RecordingClosedError, RecordingError
from mpr.producer.log_counters import LogCounters
from mpr.transport import ipc_folder
from mpr.transport.connection_info import ConnectionInfo
from mpr.user_code import log as _log

#: How often (seconds) a thread that waits checks whether the recording is still there.
LOOK_SECS = 0.5


class RecordingWatch:
    """Watches the recording of `config`. Any thread may call the methods.

    Parameters
    ----------
    config:
        The recording.
    log_counters:
        Counts the logging calls of this process.

    Attributes
    ----------
    lost:
        The error for rows that come too late; None until this process has noticed that the recording is gone.
    """

    def __init__(self, config: ConnectionInfo, log_counters: LogCounters) -> None:
        self._config = config
        self._log_counters = log_counters
        self.lost: RecordingClosedError | None = None
        self._next_look = 0.0
        #: The number of logging calls whose rows are in all durable sinks.
        self._delivered = 0
        self._reported = False

    def is_gone(self) -> bool:
        """Whether the recording is gone. Checks that at most once per `LOOK_SECS`."""
        now = time.monotonic()
        if self.lost is None and now >= self._next_look:
            self._next_look = now + LOOK_SECS
            if not ipc_folder.is_owned(self._config.folder):
                self.lost = RecordingClosedError(
                    f"the recording {self._config.application_id!r} was closed, or its process has ended, before this "
                    f"process (pid {os.getpid()}) was told that all its rows are there"
                )
        return self.lost is not None

    def note_delivered(self, calls: int) -> None:
        """Note that all durable sinks have the rows of the first `calls` logging calls."""
        self._delivered = max(self._delivered, calls)

    def report_lost_rows(self) -> None:
        """Log once that rows of this process are lost, unless all of them were delivered."""
        if self._log_counters.logging_calls != self._delivered and not self._reported:
            self._reported = True
            _log.error("%s. Nothing that it logs from now on is kept.", self.lost)

    def note_leaving(self) -> None:
        """Note that this process leaves. If the recording is gone but has all rows, nothing is reported from now on.

        In this case, the producer can only not send the end of its outbox, and the end has no rows.
        """
        if self._log_counters.logging_calls == self._delivered and not ipc_folder.is_owned(self._config.folder):
            self._reported = True

    def report(self, error: RecordingError) -> None:
        """Log `error`, which says why the last rows are not delivered, unless lost rows were reported before."""
        if not self._reported:
            _log.error("%s", error)

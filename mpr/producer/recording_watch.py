"""Notices if the recording of a producer is gone, and then logs once that rows are lost.

A recording is *gone* if it was closed, or if the process that has made it has ended.

Covers: the check, and the errors in the log.
Does not cover: sending the rows (`producer.py`).
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
    """Checks if the recording of `config` is gone. Any thread may call the methods.

    Parameters
    ----------
    config:
        The connection info of the recording.
    log_counters:
        Counts the logging calls of this process.

    Attributes
    ----------
    lost:
        The error to raise for rows that can no longer be sent; None until this process has noticed that the recording
        is gone.
    is_leaving:
        True from the call of `note_leaving`. The leaving thread then reports rows that it cannot deliver.
    """

    def __init__(self, config: ConnectionInfo, log_counters: LogCounters) -> None:
        self._config = config
        self._log_counters = log_counters
        self.lost: RecordingClosedError | None = None
        self.is_leaving: bool = False
        self._next_look = 0.0
        #: The number of logging calls whose rows are in all durable sinks.
        self._delivered = 0
        self._reported = False

    def is_gone(self) -> bool:
        """Return True if the recording is gone. Checks this at most every 0.5 s, so True may come up to 0.5 s late."""
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
        """Note that all durable sinks have the rows of the first `calls` logging calls of this process."""
        self._delivered = max(self._delivered, calls)

    def check(self) -> None:
        """Raise `RecordingClosedError` if the recording is gone."""
        if self.is_gone():
            assert self.lost is not None
            raise self.lost

    def report_lost_rows(self) -> None:
        """Log an error, only once, which says that rows of this process are lost. Does nothing if all are delivered."""
        if self._log_counters.logging_calls != self._delivered and not self._reported:
            self._reported = True
            _log.error("%s. Nothing that it logs from now on is kept.", self.lost)

    def note_leaving(self) -> None:
        """Prepare for the end of this process. If the recording is gone but has all rows, log no loss from now on."""
        self.is_leaving = True
        if self._log_counters.logging_calls == self._delivered and not ipc_folder.is_owned(self._config.folder):
            self._reported = True

    def report(self, error: RecordingError) -> None:
        """Log `error`, which says why the last rows are not delivered.

        Does nothing if lost rows were logged before, or if `note_leaving` has found that no rows are lost.
        """
        if not self._reported:
            _log.error("%s", error)

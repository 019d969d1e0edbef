"""Sends all rows of a process that has joined, because the recording is about to close.

Covers: the answer to the parent's message `Flush`.
Does not cover: leaving the recording (`membership.py`).
"""

from __future__ import annotations

import threading

from mpr.producer.log_counters import LogCounters
from mpr.producer.outbox_writer import OutboxWriter
from mpr.producer.recording_watch import RecordingWatch
from mpr.transport.messages import Sync
from mpr.transport.sockets import Connection
from mpr.user_code import log as _log


def flush_aside(writer: OutboxWriter, connection: Connection, watch: RecordingWatch, log_counters: LogCounters) -> None:
    """Start a thread that sends all rows of this process, and then `Sync(0)`: the answer to the parent's `Flush`.

    A new thread does this because the calling thread must continue to receive messages. The parameters are parts of
    this process's producer. An error in the new thread is only logged, and then no `Sync` is sent. It is not logged if
    this process leaves the recording meanwhile.
    """

    def flush() -> None:
        calls = log_counters.logging_calls
        try:
            writer.write_out(in_any_case=True)
            writer.announcer.announce()
            connection.send(Sync(0))
        except Exception as error:  # noqa: BLE001  # the parent says that rows are missing
            # A process that leaves the recording at this moment closes its sockets, and sends the rows itself.
            if not watch.is_leaving:
                _log.error("rows of this process cannot be sent at the end of the recording: %r", error)
        else:
            watch.note_delivered(calls)

    threading.Thread(target=flush, name="mpr-flusher", daemon=True).start()

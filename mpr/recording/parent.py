"""The membership of the parent process in its own recording.

Covers: the parent's producer, which is made on first use, and the variable that child processes inherit.
Does not cover: processes that have joined (`producer/membership.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from mpr.producer import membership, propagation, router
from mpr.producer.producer import Producer
from mpr.transport.connection_info import ConnectionInfo


class ParentMembership:
    """The process that has made a recording, as one that logs into it and starts others that do.

    Parameters
    ----------
    connection_info:
        How this process joins. Its functions that run as tasks log into the recording from now on.
    """

    def __init__(self, connection_info: ConnectionInfo) -> None:
        self._connection_info = connection_info
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._propagation: propagation.Propagation | None = None
        membership.own_recording(connection_info, self.producer)

    def producer(self) -> Producer:
        """Any thread: the producer of this process, which the first call makes."""
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self._connection_info, 0, is_owner=True)
                router.guard(self._connection_info.recording_id, self._producer)
            return self._producer

    def flush(self) -> tuple[str, int, int] | None:
        """Send the rows that this process has logged; returns the position after them, or None if there are none."""
        if self._producer is None:
            return None
        self._producer.flush()
        return self._producer.position()

    def propagate(self, new_text: Callable[[], str]) -> None:
        """Let processes that are started from now on inherit how to join: the result of `new_text`."""
        if self._propagation is None:
            self._propagation = propagation.Propagation(new_text())

    def close(self) -> None:
        """Leave the recording; rows that this process has logged are sent before this returns."""
        membership.forget_owned(self._connection_info.secret)
        if self._propagation is not None:
            self._propagation.close()
        if self._producer is not None:
            router.release(self._producer)
            self._producer.close()

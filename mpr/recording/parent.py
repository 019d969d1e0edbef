"""Makes the parent process a member of its own recording.

Covers: the parent's producer, which is made on first use, and the environment variable that child processes inherit.
Does not cover: processes that have joined (`producer/membership.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from mpr.producer import exits, membership, propagation, router
from mpr.producer.producer import Producer
from mpr.threads import aside
from mpr.transport.connection_info import ConnectionInfo


class ParentMembership:
    """Lets the process that has made a recording log into this recording, and lets its child processes join.

    Parameters
    ----------
    connection_info:
        The data by which this process joins. From now on, functions that run as tasks in this process log into the
        recording.
    next_index:
        Reserves an index for a task of this process.
    """

    def __init__(self, connection_info: ConnectionInfo, next_index: Callable[[], int]) -> None:
        self._connection_info = connection_info
        self._next_index = next_index
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._propagation: propagation.Propagation | None = None
        membership.own_recording(connection_info, self.producer)

    def producer(self) -> Producer:
        """Return the producer of this process. The first call makes the producer. Any thread may call this."""
        # Aside, because a handler of a signal may use the recording while this process joins it.
        return aside(self._made) if self._producer is None else self._producer

    def _made(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self._connection_info, 0, own_next_index=self._next_index)
                router.guard(self._connection_info.recording_id, self._producer)
            return self._producer

    def flush(self) -> tuple[str, int, int] | None:
        """Send the rows that this process has logged. Returns the position after these rows, as `Producer.flush`.

        Returns None if this process has no producer, because then it has logged no rows.
        """
        if self._producer is None:
            return None
        return self._producer.flush()

    def propagate(self, new_text: Callable[[], str]) -> None:
        """From now on, let new child processes inherit the text that `new_text()` returns, by which they can join.

        Only the first call has an effect.
        """
        if self._propagation is None:
            exits.protect_pools()
            self._propagation = propagation.Propagation(new_text())

    def close(self) -> None:
        """Send the rest of the rows that this process has logged, and leave the recording."""
        membership.forget_owned(self._connection_info.secret)
        if self._propagation is not None:
            self._propagation.close()
        if self._producer is not None:
            router.release(self._producer)
            self._producer.close()

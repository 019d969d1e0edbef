"""Lets the parent log into its own recording, and lets its child processes join.

Covers: the parent's producer, and the environment variable that child processes inherit.
Does not cover: other processes that join (`producer/membership.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from mpr.producer import exits, membership, propagation, router
from mpr.producer.producer import Producer
from mpr.threads import aside, check_may_wait
from mpr.transport.connection_info import ConnectionInfo


class ParentMembership:
    """Lets the process that has made a recording log into this recording, and lets its child processes join.

    As long as this object is not closed, functions with `@mpr.task` log into the recording if they run in this process.

    Parameters
    ----------
    connection_info:
        The data by which this process joins.
    next_index:
        Returns an unused index for a task of this process.
    """

    def __init__(self, connection_info: ConnectionInfo, next_index: Callable[[], int]) -> None:
        self._connection_info = connection_info
        self._next_index = next_index
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._propagation: propagation.Propagation | None = None
        membership.own_recording(connection_info, self.producer)

    def producer(self) -> Producer:
        """Return the producer of this process. The first call makes the producer.

        Any thread may call this method. But in the aggregator's thread, it raises `RuntimeError` if there is no
        producer yet.
        """
        # Another thread makes the producer, and holds the lock. If the main thread held the lock, a signal handler that
        # uses the recording would wait for the lock for ever.
        if self._producer is None:
            check_may_wait()
            return aside(self._made)
        return self._producer

    def _made(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self._connection_info, 0, own_next_index=self._next_index)
                router.guard(self._producer)
            return self._producer

    def flush(self) -> tuple[str, int, int] | None:
        """Announce to the aggregator all rows that this process has logged.

        Returns (name of the producer in messages, number of its outbox, announced bytes of this outbox). An outbox is a
        file in memory with rows. Returns None if this process has no producer yet.
        """
        if self._producer is None:
            return None
        return self._producer.flush()

    def propagate(self, new_text: Callable[[], str]) -> None:
        """Let child processes that start from now on join the recording.

        Child processes inherit an environment variable with the text that `new_text()` returns. Workers of a
        `multiprocessing` pool then send the rows of a task before its result. Only the first call has an effect.
        """
        if self._propagation is None:
            exits.protect_pools()
            self._propagation = propagation.Propagation(new_text())

    def close(self) -> None:
        """Send the remaining rows of this process, and leave the recording.

        Child processes that start later cannot join.
        """
        membership.forget_owned(self._connection_info.secret)
        if self._propagation is not None:
            self._propagation.close()
        if self._producer is not None:
            router.release(self._producer)
            self._producer.close()

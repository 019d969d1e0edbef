"""Stores the parent's answers to deliveries, which say if rows of tasks are lost.

A *delivery* sends all rows of this process, and waits until every durable sink has them. The parent answers each
delivery with `Synced`.

Covers: the numbers of deliveries, the last answer, and the error of a task.
Does not cover: sending and waiting (`producer.py`).
"""

from __future__ import annotations

import os

from mpr.errors import DeliveryError
from mpr.transport.messages import NO_END, Synced


class Deliveries:
    """Stores the number of the last delivery of this process, and the parent's last answer.

    Attributes
    ----------
    last:
        The number of the last delivery that has begun; 0 if none has begun.
    """

    def __init__(self) -> None:
        self.last: int = 0
        self._answer = Synced(0)

    def begin(self) -> int:
        """Return the number of a new delivery. Only one thread at a time may call this."""
        self.last += 1
        return self.last

    def take(self, answer: Synced) -> None:
        """Store the parent's answer to a delivery."""
        self._answer = answer

    def is_answered(self, number: int) -> bool:
        """Return True if the parent has answered delivery `number`."""
        return self._answer.number >= number

    def is_whole(self, number: int) -> bool:
        """Return True if no rows of delivery `number` are lost: the last answer reports earlier losses, or none."""
        return self._answer.until < number

    @property
    def has_lost(self) -> bool:
        """True if rows were lost, but later rows can still reach the sinks.

        False if the last answer reports no loss, or says that all later rows are lost, too.
        """
        return 0 < self._answer.until < NO_END

    def check(self, began: int = 0) -> None:
        """Raise `DeliveryError` if rows of a task may be lost. `began` is the value of `last` when the task began.

        If `began` is 0, raise it if the parent has reported any loss of rows of this process.
        """
        if began < self._answer.until:
            raise DeliveryError(f"rows of this process (pid {os.getpid()}) are not in a sink: {self._answer.failure}")

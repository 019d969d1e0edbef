"""Says which tasks of this process have lost rows, by the parent's answers to deliveries.

A *delivery* is the wait, at the end of a task, until every durable sink has the rows of the task. The parent answers
each one with `Synced`.

Covers: the last answer, and the error of a task.
Does not cover: asking and waiting (`producer.py`). Tasks of a pool need no delivery, because their results follow their
rows.
"""

from __future__ import annotations

import os

from mpr.errors import DeliveryError
from mpr.transport.messages import NO_END, Synced


class Deliveries:
    """Keeps the numbers of the deliveries of this process, and the last answer. Any thread may call the methods.

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
        """Take an answer of the parent."""
        self._answer = answer

    def is_answered(self, number: int) -> bool:
        """Whether the parent has answered delivery `number`."""
        return self._answer.number >= number

    def is_whole(self, number: int) -> bool:
        """Whether no loss was noticed between the delivery before `number` and the last answer."""
        return self._answer.until < number

    @property
    def has_lost(self) -> bool:
        """Whether rows were lost, but later rows can still come. The parent then counts at the end of each task."""
        return 0 < self._answer.until < NO_END

    def check(self, began: int = 0) -> None:
        """Raise `DeliveryError` if rows may be lost of a task that began when `last` was `began`."""
        if began < self._answer.until:
            raise DeliveryError(f"rows of this process (pid {os.getpid()}) are not in a sink: {self._answer.failure}")

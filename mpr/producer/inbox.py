"""What the parent sends to a process: messages for its main thread, and answers for any thread that waits for one."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mpr.transport.messages import Downstream
from mpr.transport.sockets import Connection


class Inbox:
    """The receiving end of a producer.

    Parameters
    ----------
    connection:
        Where messages come from.
    take_answer:
        Takes a message where it is an answer to this process, and says whether it was one.
    """

    def __init__(self, connection: Connection, take_answer: Callable[[Downstream], bool]) -> None:
        self._connection = connection
        self._take_answer = take_answer
        self._reading = threading.Lock()
        #: Messages for the main thread that another one has met.
        self._kept: list[Downstream] = []
        # Whoever waits for an answer reads for all that wait.
        self._answered = threading.Condition()
        self._someone_waits = False

    def next_message(self, before_waiting: Callable[[], None]) -> Downstream:
        """The main thread's next message, as long as it takes; `before_waiting` is called where there is none yet."""
        while True:
            with self._reading:
                if self._kept:
                    return self._kept.pop(0)
                message = self._connection.receive(before_waiting=before_waiting)
            if message is not None and not self._take_answer(message):
                return message

    def take_answers(self, timeout_secs: float = 0) -> None:
        """Look for answers, and wait for one; what is for the main thread is kept."""
        if not self._reading.acquire(blocking=False):
            # Another thread reads, and takes them: the main thread, which waits for the next task.
            return
        try:
            while (message := self._connection.receive(timeout_secs)) is not None:
                timeout_secs = 0
                if not self._take_answer(message):
                    self._kept.append(message)
        finally:
            self._reading.release()

    def wait_until(self, done: Callable[[], bool], timeout_secs: float) -> bool:
        """Take answers until `done()`, or for `timeout_secs`; returns whether it is done, or may be early if not."""
        with self._answered:
            self._answered.wait_for(lambda: done() or not self._someone_waits, timeout_secs)
            if done() or self._someone_waits:
                return done()
            self._someone_waits = True
        try:
            self.take_answers(timeout_secs)
        finally:
            with self._answered:
                self._someone_waits = False
                self._answered.notify_all()
        return done()

"""Receives the parent's messages: tasks for the main thread, and answers for the threads that wait for them.

Covers: which thread receives, and the messages that one thread receives for another.
Does not cover: what follows from an answer (`producer.py`), the sockets (`transport/sockets.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from mpr.transport.messages import Downstream
from mpr.transport.sockets import Connection


class Inbox:
    """Receives the parent's messages for one producer.

    Parameters
    ----------
    connection:
        The sockets of the producer.
    take_answer:
        A function that gets each message. It returns False if the message is for the main thread, such as a task. It
        handles any other message, and returns True.
    is_in_task:
        A function that returns True while a worker runs code of a task.
    """

    def __init__(
        self, connection: Connection, take_answer: Callable[[Downstream], bool], is_in_task: Callable[[], bool]
    ) -> None:
        self._connection = connection
        self._take_answer = take_answer
        self._is_in_task = is_in_task
        self._reading = threading.Lock()
        # The main thread of a worker; None in a process that gets no tasks from the parent.
        self._main: int | None = None
        #: Messages for the main thread that another thread has received.
        self._kept: list[Downstream] = []
        # One of the threads that wait for answers reads messages. The others wait for this condition meanwhile.
        self._answered = threading.Condition()
        self._is_read = False

    def own_main_thread(self) -> None:
        """Note that the calling thread, the main thread of a worker, runs code of mpr from now on, except in tasks."""
        self._main = threading.get_ident()

    def next_message(self, before_waiting: Callable[[], None]) -> Downstream:
        """Return the next message for the main thread. Waits without a limit. Only the main thread calls this method.

        `before_waiting()` is called before each wait.
        """
        while True:
            with self._reading:
                if self._kept:
                    return self._kept.pop(0)
                message = self._connection.receive(before_waiting=before_waiting)
            if message is not None and not self._take_answer(message):
                return message

    def is_interrupted(self) -> bool:
        """Return True if the calling thread is the main thread of a worker, and no task runs in the worker.

        User code that then asks the parent, such as a signal handler, has interrupted code of mpr. This code may hold a
        lock that every message needs. So no answer may arrive before the user code has returned.
        """
        return self._main == threading.get_ident() and not self._is_in_task()

    def take_answers(self, timeout_secs: float = 0) -> None:
        """Receive the messages that have arrived. If none has arrived, wait up to `timeout_secs` seconds for one.

        Messages for the main thread are kept for `next_message`. Does nothing if another thread is receiving messages
        already.
        """
        if not self._reading.acquire(blocking=False):
            # The thread that reads takes the answers. It may be the main thread, which waits for the next task.
            return
        try:
            while (message := self._connection.receive(timeout_secs)) is not None:
                timeout_secs = 0
                if not self._take_answer(message):
                    self._kept.append(message)
        finally:
            self._reading.release()

    def wait_until(self, done: Callable[[], bool], timeout_secs: float) -> bool:
        """Wait until `done()` returns True, while this thread or another one receives messages.

        Returns the last value of `done()`. The wait may end with False before `timeout_secs` seconds, so the caller
        must repeat the call.
        """
        with self._answered:
            self._answered.wait_for(lambda: done() or not self._is_read, timeout_secs)
            if done() or self._is_read:
                return done()
            self._is_read = True
        try:
            self.take_answers(timeout_secs)
        finally:
            with self._answered:
                self._is_read = False
                self._answered.notify_all()
        return done()

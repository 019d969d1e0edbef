"""Finds the task to which the rows of a worker belong.

A *mark* is a note in the status page of a worker about its last task (`transport/task_mark.py`).
"""

from __future__ import annotations

from mpr.aggregator.listener import Listener
from mpr.rrd.segment import TaskInfo
from mpr.transport.messages import Hello, TaskBegan, TaskEnded
from mpr.transport.packing import MessageError
from mpr.transport.status_page import StatusPageReader
from mpr.transport.task_mark import TaskMark, read_mark

# The Rerun SDK takes times of 63 bits.
_NANOS_MAX = 2**63


class RowOwner:
    """Keeps the task to which the rows that now arrive from one worker belong. Only the aggregator's thread uses it.

    Parameters
    ----------
    hello:
        The first message of the worker.
    listener:
        Knows the tasks of the worker; None if the process is no worker of a pool.

    Attributes
    ----------
    task:
        The task; None if the rows belong to no task that the pool knows, or if no sink keeps the rows of each task
        apart.
    """

    def __init__(self, hello: Hello, listener: Listener | None) -> None:
        self._hello = hello
        self._listener = listener
        self.task: TaskInfo | None = None
        self._began: TaskBegan | None = None
        self._mark: TaskMark | None = None

    def begin(self, began: TaskBegan) -> None:
        """Note that the next rows belong to the task of the message `began`.

        Raises `MessageError` if the start time in `began` is impossible.
        """
        if began.started_nanos >= _NANOS_MAX:
            raise MessageError(f"a task that began at {began.started_nanos}")
        self._began = began
        self.task = None if self._listener is None else self._listener.task_info(self._hello, began)

    def end(self, ended: TaskEnded) -> None:
        """Note that the task has ended, with the duration and the error in the message `ended`.

        Rows that follow in the same outbox still belong to the task.
        """
        if self.task is not None:
            self.task.ended(ended.seconds, ended.error)

    def outbox_begins(self, number: int) -> None:
        """Note that the next rows come from outbox number `number`. If the task has ended, they belong to no task."""
        if self.task is not None and self.task.is_over:
            self.task = None
        self._apply_mark(number)

    def use_mark(self, status_page: StatusPageReader | None, outbox: int) -> None:
        """Read the worker's last task from its mark, because a dead worker may not have sent messages about this task.

        `status_page` is None if the parent cannot read the page. `outbox` is the number of the outbox that the parent
        reads now.
        """
        self._mark = None if status_page is None else read_mark(status_page)
        self._apply_mark(outbox)

    def _apply_mark(self, outbox: int) -> None:
        mark = self._mark
        if mark is None or outbox < mark.outbox:
            return
        if mark.began != self._began:
            self.begin(mark.began)
        if mark.ended is not None and self.task is not None and not self.task.is_over:
            self.end(mark.ended)

"""Writes a *mark* into the status page. The mark says to which task the rows of a worker's outbox belong.

If the worker is killed, the parent reads its mark. The messages `TaskBegan` and `TaskEnded` say the same, but a message
that was sent just before the kill may be lost.

Covers: the one mark of a worker, for the last task that it has begun. The mark is behind the counters.
Does not cover: the messages, and the use of the mark (`aggregator/row_owner.py`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mpr.transport.messages import TaskBegan, TaskEnded
from mpr.transport.status_page import PAGE_BYTES, StatusPage, StatusPageReader

# The offset of the mark in the page, in bytes. The counters end before this offset.
_START = 512
# The number of the outbox plus 1. If it is 0, the mark is not valid.
_VALID = struct.Struct("<Q")
# The fields of `TaskBegan`.
_BEGAN = struct.Struct("<QIIQ")
# Whether the task has ended, its duration in seconds, and the size of the text of its error in bytes (0: no error).
_ENDED = struct.Struct("<BdH")
_BEGAN_AT = _START + _VALID.size
_ENDED_AT = _BEGAN_AT + _BEGAN.size
_ERROR_AT = _ENDED_AT + _ENDED.size


@dataclass(frozen=True, slots=True)
class TaskMark:
    """The last task that a worker has begun.

    Attributes
    ----------
    outbox:
        The number of the first outbox with rows of the task.
    began:
        The message about the begin of the task.
    ended:
        The message about the end of the task; None if the task still ran.
    """

    outbox: int
    began: TaskBegan
    ended: TaskEnded | None


class TaskMarker:
    """Writes the mark, in the worker."""

    def __init__(self, status_page: StatusPage) -> None:
        self._page = status_page.counters.cast("B")

    def begin(self, outbox: int, began: TaskBegan) -> None:
        """Write a new mark: rows in outbox number `outbox`, and in later outboxes, belong to the task of `began`."""
        # Written in this order, so that a mark of which only a part was written is not valid.
        _VALID.pack_into(self._page, _START, 0)
        _BEGAN.pack_into(self._page, _BEGAN_AT, began.work_item, began.task, began.attempt, began.started_nanos)
        _ENDED.pack_into(self._page, _ENDED_AT, 0, 0.0, 0)
        _VALID.pack_into(self._page, _START, outbox + 1)

    def end(self, ended: TaskEnded) -> None:
        """Add to the mark that the task has ended. A text of an error that does not fit into the page is cut."""
        error = (ended.error or "").encode(errors="replace")[: PAGE_BYTES - _ERROR_AT]
        self._page[_ERROR_AT : _ERROR_AT + len(error)] = error
        _ENDED.pack_into(self._page, _ENDED_AT, 1, ended.seconds, len(error))


def read_mark(status_page: StatusPageReader) -> TaskMark | None:
    """Return the mark in the page of a worker that has died; None if there is no valid mark."""
    page = status_page.counters.cast("B")
    (valid,) = _VALID.unpack_from(page, _START)
    if not valid:
        return None
    began = TaskBegan(*_BEGAN.unpack_from(page, _BEGAN_AT))
    is_over, seconds, size = _ENDED.unpack_from(page, _ENDED_AT)
    error = bytes(page[_ERROR_AT : _ERROR_AT + size]).decode(errors="replace") or None
    return TaskMark(valid - 1, began, TaskEnded(seconds, error) if is_over else None)

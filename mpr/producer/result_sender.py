"""Sends the results of a worker, each after the rows of its tasks. Results of short tasks are sent together.

Covers: which results wait for later ones, and writing each result into the journal first.
Does not cover: announcing the rows (`announcer.py`), the journal (`transport/result_journal.py`).
"""

from __future__ import annotations

from mpr import failpoints, limits
from mpr.transport.messages import Result, ResultInMemory, SegmentReady
from mpr.transport.result_journal import ResultJournal
from mpr.transport.sockets import Connection

# The largest number of results that are sent together, and the longest time that the first of them waits. Results of
# short tasks are sent together, because a message wakes two threads of ZeroMQ and one of the parent. Measured with
# tasks of one row: 350 us of CPU per task if results are sent alone, 280 us if together.
_TOGETHER = limits.WORK_ITEMS_MAX // 2
TOGETHER_MICROS = 1_000


class ResultSender:
    """Keeps results until they are sent. The caller of `add` and `send` must hold the lock of the `Announcer`.

    Parameters
    ----------
    connection:
        Sends the results. The rows are announced on the same connection.
    journal:
        Keeps the last results in memory, which remains after the death of this process.
    parent_reads:
        True if the parent can read this process's files in memory: the outbox and the journal. If False, no result
        waits.

    Attributes
    ----------
    end:
        The number of bytes of the outbox that the caller must announce before it calls `send`. The rows of all waiting
        results lie before this offset.
    """

    def __init__(self, connection: Connection, journal: ResultJournal, *, parent_reads: bool) -> None:
        self._connection = connection
        self._journal = journal
        self._parent_reads = parent_reads
        self._waiting: list[Result | ResultInMemory] = []
        # The value of `Connection.needed_count` when the last result was added: the number of messages that carry rows,
        # or say that rows are lost. The parent must have these messages before the result.
        self._needed_before = 0
        #: When the first of the waiting results was ready (`time.monotonic_ns()`).
        self._since_nanos = 0
        self.end: int = 0

    def __bool__(self) -> bool:
        """Return True if at least one result waits to be sent."""
        return bool(self._waiting)

    def add(self, result: Result, behind: SegmentReady, *, may_wait: bool) -> bool:
        """Add `result` to the results that wait. Return False if the caller must call `send` now, else True.

        `result` is also written into the journal, if the journal can keep it. Its rows are in the outbox before byte
        `behind.end`. If `may_wait` is false, the method always returns False.
        """
        # `needed` is 0 if `Connection.send_needed` has sent no message since the last result.
        latest = self._connection.needed_count
        needed = latest if latest != self._needed_before else 0
        self._needed_before = latest
        sent, journaled = self._journal.write(
            result, behind, self._connection.sent_count, needed=needed, parent_reads=self._parent_reads
        )
        failpoints.reach("worker.noted")
        if not self._waiting:
            self._since_nanos = result.ended_nanos
        self._waiting.append(sent)
        self.end = behind.end
        waited_ns = result.ended_nanos - self._since_nanos
        enough = len(self._waiting) >= _TOGETHER or waited_ns >= 1000 * TOGETHER_MICROS
        return may_wait and journaled and sent is result and self._parent_reads and not enough

    def send(self) -> None:
        """Send all results that wait. The caller must have announced their rows before."""
        for result in self._waiting:
            self._connection.send(result)
        self._waiting.clear()

"""Reads the memory that a producer shares with the parent: the status page and, for a worker, the result journal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from mpr.transport.messages import Hello, Result, ResultInMemory, SegmentReady
from mpr.transport.result_journal import ResultJournalReader
from mpr.transport.status_page import StatusPageReader

# A journaled result that has not arrived is overdue if its worker began its last work item longer ago than this
# (nanoseconds). A worker sends each result within 0.01 s after the entry in the journal, unless a task keeps the GIL.
_LATE_NANOS = 200_000_000


class WorkerMemory:
    """Reads the status page and the journal of one process that logs, in the parent.

    Parameters
    ----------
    hello:
        The first message of the process. It has the address of the memory.
    folder:
        The private folder of the recording.

    Attributes
    ----------
    page:
        The status page; None if the process has none, if the parent cannot open it, or after `close`.
    is_readable:
        False if the process has a status page that the parent could not open. All rows and results then come in
        messages.
    """

    def __init__(self, hello: Hello, folder: Path) -> None:
        self.page: StatusPageReader | None = None
        if hello.status_page:
            with contextlib.suppress(OSError):
                self.page = StatusPageReader(hello.status_page, folder)
        # A worker that need not send its rows in messages leaves large results in the file of the page. So if the
        # parent cannot open the page, it does not read the outboxes either, and the worker sends all in messages. A
        # process without a page may still have an outbox that the parent can read.
        self.is_readable: bool = self.page is not None or not hello.status_page

    def load(self, message: ResultInMemory) -> Result:
        """Return the result of `message`, with its payload from the journal.

        Raises `OSError` or `ValueError` if the payload cannot be read.
        """
        if self.page is None:
            raise OSError("it cannot be opened")
        return ResultJournalReader(self.page).take(message)

    def results(self) -> Iterator[tuple[SegmentReady, int, Result]]:
        """Yield (segment, number of messages, result) for each result in the journal, the oldest first.

        The rows of the result are in the outboxes up to the end of the segment. The parent may use the result only
        after this number of messages has arrived. Yields nothing if the memory cannot be read, or if the journal is
        damaged.
        """
        if self.page is not None:
            with contextlib.suppress(OSError, ValueError):
                yield from ResultJournalReader(self.page).results()

    def overdue_result(self, last_result: int, message_count: int) -> int:
        """Return the number of the last journaled result if it is overdue; 0 if it is not. Any thread may call this.

        A result is overdue if it has not arrived 0.2 s after the worker began its last work item, although all messages
        that the worker sent before the result have arrived. `last_result` is the number of the last result that has
        arrived. `message_count` is the number of messages that have arrived.
        """
        # `ValueError` means that another thread is just closing the status page.
        with contextlib.suppress(ValueError):
            page = self.page
            journaled, behind = (0, 0) if page is None else ResultJournalReader(page).journaled()
            if page is not None and journaled > last_result and behind <= message_count:
                return journaled if time.monotonic_ns() - page.at().begun_ns > _LATE_NANOS else 0
        return 0

    def rows_logged(self) -> int:
        """Return the number of rows that the process has logged to any recording, as far as it is known.

        Returns 0 if the status page cannot be read, and after `close`. Any thread may call this.
        """
        # `ValueError` means that another thread is just closing the status page. `Aggregator` has read the number
        # before.
        with contextlib.suppress(ValueError):
            page = self.page
            return 0 if page is None else page.rows()
        return 0

    def close(self) -> None:
        """Close this process's descriptor of the memory. The worker has its own descriptor."""
        page, self.page = self.page, None
        if page is not None:
            page.close()

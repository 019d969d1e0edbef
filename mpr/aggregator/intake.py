"""What the aggregator knows of each producer, and whom it tells of its workers."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mpr.errors import DeliveryError
from mpr.rrd.segment import TaskInfo
from mpr.transport.messages import Hello, Result, ResultInMemory, SegmentReady
from mpr.transport.outbox import OutboxReader
from mpr.transport.result_journal import ResultJournalReader
from mpr.transport.status_page import StatusPageReader

_log = logging.getLogger("mpr")

# Results wait in a worker for 0.01 s at most, where its task lets other threads run.
_LATE_NANOS = 200_000_000


class ProducerIntake:
    """What the parent knows of one producer."""

    def __init__(self, hello: Hello, outbox: int) -> None:
        self.hello = hello
        #: The number by which all others know its outbox.
        self.outbox = outbox
        #: None where the outbox cannot be opened from here; the bytes then come in the messages.
        self.reader: OutboxReader | None = None
        #: How far the writers have this outbox, how many chunks of it, and how many when the last result came.
        self.consumed = 0
        self.chunks = 0
        self.settled_chunks: int | None = 0
        #: How many messages came, its hello among them, and the number of the last result.
        self.message_count = 1
        self.last_result = 0
        #: `time.monotonic()` when rows came.
        self.last_rows_at: float | None = None
        #: The producer's own number of it.
        self.number = 0
        #: Whether its footer has come; what follows are the closing bytes of the stream.
        self.complete = False
        #: The outbox that comes next, once the producer has asked for it.
        self.next_reader: OutboxReader | None = None
        #: Bytes of a frame whose rest comes with the next message.
        self.incomplete = b""
        #: Bytes of recordings that tasks have made themselves, all that came until now.
        self.task_recording_bytes = 0
        #: Whose rows come, where a sink keeps those of each task apart.
        self.task: TaskInfo | None = None
        self.said_goodbye = False
        self.failure: BaseException | None = None
        #: What the worker writes down of itself; usable until `worker_ended` was told.
        self.status_page: StatusPageReader | None = None

    def open(self, address: str, folder: Path) -> OutboxReader | None:
        """Its outbox at `address`; None where the bytes of it have to come in messages."""
        try:
            return OutboxReader(address, folder)
        except OSError as error:
            _log.debug("outbox of worker %d travels in messages: %s", self.hello.worker, error)
            return None

    def rows_logged(self) -> int:
        """Any thread: how many rows its process has logged; 0 where nobody can tell."""
        # A status page that is being closed at this moment has been counted, or will be.
        with contextlib.suppress(ValueError):
            status_page = self.status_page
            return 0 if status_page is None else status_page.rows()
        return 0

    def lives(self) -> bool:
        """Whether there is a process with its id, or may be."""
        try:
            os.kill(self.hello.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
        return True

    def overdue_result(self) -> int:
        """Any thread: the number of the last result on its status page that it should have sent long ago, 0 if there is
        none.

        What was sent is still on its way, perhaps, and comes first: results, rows, the tasks that they are of.
        """
        # A status page that is being closed at this moment has none.
        with contextlib.suppress(ValueError):
            status_page = self.status_page
            journaled, behind = (0, 0) if status_page is None else ResultJournalReader(status_page).journaled()
            if status_page is not None and journaled > self.last_result and behind <= self.message_count:
                return journaled if time.monotonic_ns() - status_page.at().begun_ns > _LATE_NANOS else 0
        return 0

    def journaled_results(self) -> Iterable[tuple[SegmentReady, Result]]:
        """As `ResultJournalReader.results`; none where all have come, or the rows before them are in messages alone."""
        if self.status_page is None or self.reader is None or self.said_goodbye:
            return ()
        return ResultJournalReader(self.status_page).results()

    def rows_since_result(self, rows_after: Callable[[int, int], int | None]) -> int | None:
        """How many rows came after its last result: `rows_after(outbox, chunks)` counts. None where nobody can tell."""
        return None if self.settled_chunks is None else rows_after(self.outbox, self.settled_chunks)

    def begin_outbox(self, outbox: int) -> None:
        """What comes from now on is in a new one."""
        self.outbox = outbox
        self.consumed = 0
        # Rows of a task in two outboxes are not counted.
        self.settled_chunks = 0 if self.chunks == self.settled_chunks else None
        self.chunks = 0
        self.complete = False
        self.incomplete = b""

    def loaded(self, message: ResultInMemory) -> Result:
        """The result with the payload that it has left in the journal; a `failure` where that cannot be read."""
        try:
            if self.status_page is None:
                raise OSError("it cannot be opened")
            return ResultJournalReader(self.status_page).take(message)
        except (OSError, ValueError, IndexError) as error:
            who = f"worker {self.hello.worker} (pid {self.hello.pid})"
            self.failure = DeliveryError(f"results of {who} cannot be read from its memory: {error}")
            return message.result

    def may_lack_rows(self) -> bool:
        """Whether it has ended, or been left, in the middle: without a goodbye, and with rows that nobody has seen."""
        return not self.said_goodbye and (self.status_page is None or self.status_page.unflushed() > 0)

    def told_of_loss(self) -> str:
        """What to say of rows that have ended with the process; empty where there were none.

        The SDK keeps those of recordings without a sink in the memory of the process that has made them.
        """
        rows = 0 if self.status_page is None or self.said_goodbye else self.status_page.unsent_rows()
        if not rows:
            return ""
        who = f"worker {self.hello.worker}" if self.hello.worker else "a process"
        return (
            f"{who} (pid {self.hello.pid}) ended with {rows} {'row' if rows == 1 else 'rows'} in recordings that its "
            "tasks had made themselves, and they are lost: such rows are taken at the end of each task"
        )

    def close(self) -> None:
        for reader in (self.reader, self.next_reader):
            if reader is not None:
                reader.close()
        self.reader = self.next_reader = None
        if self.status_page is not None:
            self.status_page.close()
            self.status_page = None

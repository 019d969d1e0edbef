"""Takes rows to all sinks, and keeps the failures. The aggregator's thread calls it.

Covers: writing a segment to every durable sink and announcing it to the live ones, sinks that fail, notes of the
parent's own, conflicts of types.
Does not cover: where segments come from (`outbox_intake.py`), what a sink does with them (`sinks`).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence

from mpr import failpoints
from mpr.aggregator.type_conflicts import ColumnTypes
from mpr.errors import SinkError
from mpr.rrd import framing
from mpr.rrd.segment import PREAMBLE, MessageBytes, Segment
from mpr.sinks.base import LiveFeed, Observer, Writer
from mpr.transport.messages import Hello

_log = logging.getLogger("mpr")


class Fanout:
    """All sinks of one recording.

    Parameters
    ----------
    writers:
        The durable sinks, already open; none if logging is switched off.
    feed:
        Takes segments to the live sinks; None if there are none.
    encode_notes:
        Makes a stream of the recording with notes of the parent in it.
    observer:
        Looks at all rows.
    apart:
        Whether no sink has the rows of two tasks in one recording, so that tasks may differ in their types.
    has_all:
        Whether all rows pass here when they are logged. With `route="direct"` workers write them to the sinks.

    Attributes
    ----------
    conflicts:
        A sentence for each column to which two workers have given different types.
    failure:
        Why rows were lost, if they were. Every later result has it as its error.
    accepted_bytes, accepted_chunks:
        What the sinks have taken until now.
    """

    def __init__(
        self,
        writers: Sequence[Writer],
        feed: LiveFeed | None,
        encode_notes: Callable[[Sequence[str]], bytes],
        observer: Observer,
        *,
        apart: bool = False,
        has_all: bool = True,
    ) -> None:
        self._writers = list(writers)
        self._feed = feed
        self._encode_notes = encode_notes
        self._apart = apart
        self._observer = observer
        self._outboxes = itertools.count(PREAMBLE + 1)
        self._columns = ColumnTypes()
        self.conflicts: list[str] = []
        self.failure: BaseException | None = None
        self._on_failure: Callable[[SinkError], None] = lambda _error: None
        self.accepted_bytes = 0
        self.accepted_chunks = 0
        # `time.monotonic()` when the sinks got the present segment.
        self._writing_since: float | None = None
        self._has_all = has_all

    @property
    def writers(self) -> list[Writer]:
        """The durable sinks that have not failed."""
        return list(self._writers)

    def watch_failures(self, on_failure: Callable[[SinkError], None]) -> None:
        """Call `on_failure` for each sink that fails, in the aggregator's thread."""
        self._on_failure = on_failure

    def new_outbox(self) -> int:
        """Return a number for one more outbox, which no other one of the recording has."""
        return next(self._outboxes)

    def write(self, segment: Segment) -> int:
        """Write `segment` to all sinks. When this returns, the durable ones have it. Returns its number of chunks."""
        failpoints.reach("parent.segment")
        chunks = sum(frame.kind == framing.ARROW_MSG for frame in segment.frames)
        self._writing_since = time.monotonic()
        for writer in list(self._writers):
            with self._failing(writer):
                writer.accept(segment, published=chunks > 0 and not segment.telemetry)
        if self._feed is not None:
            self._feed.accepted(segment)
        self._observer.peek(segment)
        self._writing_since = None
        self.accepted_chunks += chunks
        self.accepted_bytes += sum(frame.end - frame.start for frame in segment.frames)
        return chunks

    def add_manifests(self, hello: Hello, outbox: int, footer: bytes, *, of_task: bool = False) -> None:
        """Give the manifests in `footer` to all durable sinks, and look for conflicts in them.

        With `of_task` its chunks are of one task, and a sink keeps the recordings of tasks apart.
        """
        self._add_manifests(outbox, footer)
        self._observer.note(footer)
        if of_task and self._apart:
            return
        who = f"worker {hello.worker} (pid {hello.pid})" if hello.worker else "the parent"
        for conflict in self._columns.note(who, footer):
            _log.info("%s", conflict)
            self.conflicts.append(conflict)

    def note(self, texts: Sequence[str]) -> None:
        """Write `texts` into the recording."""
        stream = self._encode_notes(texts) if texts and self._writers else b""
        if stream:
            self.write_stream(stream)

    def write_stream(self, stream: bytes, *, telemetry: bool = False) -> None:
        """Write `stream`, a whole stream that the parent itself has made, to all sinks."""
        outbox = self.new_outbox()
        frames = framing.frames_of(stream)
        last = frames.pop()
        self.write(Segment(outbox, MessageBytes(0, stream), frames, telemetry=telemetry))
        self._add_manifests(outbox, stream[last.payload : last.end])

    def rows_after(self, outbox: int, chunks: int) -> int | None:
        """How many rows of `outbox` came after its first `chunks` chunks; None if no sink can tell."""
        if not self._has_all:
            return None
        counts = (each.rows_of(outbox, chunks) for each in self._writers)
        return next((count for count in counts if count is not None), None)

    def stop_feeding(self) -> None:
        """Write to the durable sinks alone from now on: the live ones have ended."""
        self._feed = None

    def fail(self, error: SinkError) -> None:
        """Rows are lost, but not by a sink that is open."""
        _log.error("%s", error)
        self.failure = self.failure or error

    def give_up(self, error: BaseException) -> BaseException:
        """Nothing comes to the sinks any more, because of `error`. Returns the first reason why rows are lost."""
        self.failure = self.failure or error
        return self.failure

    def stalled_secs(self) -> float:
        """Any thread: for how long the sinks have had the same segment (seconds)."""
        since = self._writing_since
        return 0.0 if since is None else time.monotonic() - since

    def stuck(self) -> SinkError:
        """Make the error for a sink that hangs."""
        names = ", ".join(writer.name for writer in self._writers)
        return SinkError(f"a sink has taken nothing for {self.stalled_secs():.0f} s: {names}")

    def _add_manifests(self, outbox: int, footer: bytes) -> None:
        for writer in list(self._writers):
            with self._failing(writer):
                writer.add_manifests(outbox, footer)

    @contextlib.contextmanager
    def _failing(self, writer: Writer) -> Iterator[None]:
        """Abort `writer` if it fails within. The others go on, and outboxes are emptied, so that no worker waits."""
        try:
            yield
        except SinkError as error:
            _log.error("%s", error)
            self.failure = self.failure or error
            self._writers.remove(writer)
            writer.abort()
            self._on_failure(error)

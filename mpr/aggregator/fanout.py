"""Passes rows to all sinks of a recording, and keeps the reason if rows are lost.

A *column* is a timeline, or a component of an entity. A *note* is a sentence of the parent in the recording, for
example about lost rows.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence

from mpr import failpoints
from mpr.aggregator.type_conflicts import ColumnTypes
from mpr.errors import FormatError, SinkError, describe_process
from mpr.rrd import framing, manifest
from mpr.rrd.segment import PREAMBLE, MessageBytes, Segment
from mpr.sinks.base import LiveFeed, Observer, Writer
from mpr.transport.messages import Hello
from mpr.user_code import log as _log


class Fanout:
    """Holds all sinks of one recording, and passes rows to them.

    While the aggregator's thread runs, only this thread calls the methods, except for those that say otherwise.

    Parameters
    ----------
    writers:
        The durable sinks, already open. There are none if logging is switched off, or if all sinks are live.
    feed:
        Gives segments to the live sinks; None if there are no live sinks.
    encode_notes:
        Turns notes into an encoded Rerun stream, which is empty if logging is switched off.
    observer:
        Looks at all segments, and at the manifests of producers, without keeping them.
    store:
        The encoded store id of the shared recording (`rrd/store_id.py`).
    apart:
        True if every sink writes the rows of each task to a separate recording. A column may then have different types
        in two tasks.
    has_all:
        True if all rows pass through this object. It is False with `route="direct"`, because workers then write rows to
        the sinks themselves.

    Attributes
    ----------
    conflicts:
        One sentence for each type of a column that differs from the first type of this column.
    failure:
        The first error. It is an error of a durable sink, or one that `fail` or `give_up` got. None if there is no
        error. Every later result of a worker has this error as its outcome.
    accepted_bytes, accepted_chunks:
        How many bytes and chunks were passed to the sinks until now.
    """

    def __init__(
        self,
        writers: Sequence[Writer],
        feed: LiveFeed | None,
        encode_notes: Callable[[Sequence[str]], bytes],
        observer: Observer,
        store: bytes,
        *,
        apart: bool = False,
        has_all: bool = True,
    ) -> None:
        self._writers = list(writers)
        self._feed = feed
        self._encode_notes = encode_notes
        self._apart = apart
        self._observer = observer
        self._store = store
        self._outboxes = itertools.count(PREAMBLE + 1)
        self._columns = ColumnTypes()
        self.conflicts: list[str] = []
        self.failure: BaseException | None = None
        self._on_failure: Callable[[SinkError], None] = lambda _error: None
        self.accepted_bytes: int = 0
        self.accepted_chunks: int = 0
        # `time.monotonic()` when the sinks began to write a segment; None if no segment is being written now.
        self._writing_since: float | None = None
        self._has_all = has_all

    @property
    def writers(self) -> list[Writer]:
        """The durable sinks that have not failed."""
        return list(self._writers)

    def watch_failures(self, on_failure: Callable[[SinkError], None]) -> None:
        """From now on, call `on_failure` with the error of each durable sink that cannot write rows or manifests.

        The aggregator's thread makes these calls.
        """
        self._on_failure = on_failure

    def new_outbox(self) -> int:
        """Return a number for a new outbox. No other outbox of the recording has this number."""
        return next(self._outboxes)

    def write(self, segment: Segment) -> int:
        """Write `segment` to all durable sinks, and pass it to the live sinks and the observer.

        Returns the number of chunks in `segment`. A durable sink that raises `SinkError` gets no more segments. Raises
        `FormatError` if a sink that decodes rows finds damaged rows.
        """
        failpoints.reach("parent.segment")
        chunks = sum(frame.kind == framing.ARROW_MSG for frame in segment.frames)
        self._writing_since = time.monotonic()
        try:
            for writer in list(self._writers):
                with self._failing(writer):
                    writer.accept(segment, published=chunks > 0 and not segment.telemetry)
            if self._feed is not None:
                self._feed.accepted(segment)
            self._observer.peek(segment)
        finally:
            self._writing_since = None
        self.accepted_chunks += chunks
        self.accepted_bytes += sum(frame.end - frame.start for frame in segment.frames)
        return chunks

    def add_manifests(self, hello: Hello, outbox: int, footer: bytes, *, of_task: bool = False) -> int | None:
        """Give the manifests in `footer` to all durable sinks, and note columns with two types in `conflicts`.

        `footer` is the payload of the last frame of outbox number `outbox`, which the producer of `hello` has written.
        `of_task` is True if all chunks are of one task. If `apart` is true, too, types are not compared. Returns how
        many rows of the shared recording the manifests list; None if the manifests cannot be read.
        """
        self._add_manifests(outbox, footer)
        self._observer.note(footer)
        rows = self.rows_in(footer, self._store)
        if of_task and self._apart:
            return rows
        who = "the parent" if hello.is_owner else describe_process(hello.worker, hello.pid)
        for conflict in self._columns.note(who, footer):
            _log.info("%s", conflict)
            self.conflicts.append(conflict)
        return rows

    def distrust(self) -> None:
        """Tell each durable sink that a producer has sent damaged bytes (see `Writer.distrust`)."""
        for writer in self._writers:
            writer.distrust()

    def note(self, texts: Sequence[str]) -> None:
        """Write the sentences `texts` into the recording. Does nothing without a durable sink, or if logging is off."""
        stream = self._encode_notes(texts) if texts and self._writers else b""
        if stream:
            self.write_stream(stream)

    def write_stream(self, stream: bytes, *, telemetry: bool = False) -> None:
        """Write `stream`, a complete Rerun stream that the parent itself has made, to all sinks.

        `telemetry` is True if the stream has only telemetry of a pool, or the layout for it. Such a stream does not
        give a file its final name.
        """
        outbox = self.new_outbox()
        frames = framing.frames_of(stream)
        last = frames.pop()
        self.write(Segment(outbox, MessageBytes(0, stream), frames, telemetry=telemetry))
        self._add_manifests(outbox, stream[last.payload : last.end])

    def all_rows(self, outbox: int) -> int | None:
        """Return the number of rows in outbox number `outbox`, as counted by a durable sink. None if no sink can count.

        Call this only if the manifest of this outbox has not come. Sinks cannot count rows that a manifest lists.
        """
        counts = (each.rows_of(outbox, 0, users_only=False) for each in self._writers)
        return next((count for count in counts if count is not None), None)

    def rows_after(self, outbox: int, chunks: int) -> int | None:
        """Return the number of the user's rows in outbox number `outbox` after its first `chunks` chunks.

        Returns None if no durable sink can count the rows, or if `has_all` is false.
        """
        if not self._has_all:
            return None
        counts = (each.rows_of(outbox, chunks) for each in self._writers)
        return next((count for count in counts if count is not None), None)

    def stop_feeding(self) -> None:
        """Pass no more segments to the live sinks, because they have ended."""
        self._feed = None

    def fail(self, error: SinkError) -> None:
        """Log `error`, and set `failure` to `error` unless `failure` has an earlier error. Closes no sink."""
        _log.error("%s", error)
        self.failure = self.failure or error

    def give_up(self, error: BaseException) -> BaseException:
        """Set `failure` to `error` unless `failure` has an earlier error. Returns `failure`."""
        self.failure = self.failure or error
        return self.failure

    def stalled_secs(self) -> float:
        """Return for how many seconds the sinks have been writing the current segment; 0 if they write none.

        Any thread may call this.
        """
        since = self._writing_since
        return 0.0 if since is None else time.monotonic() - since

    def stuck(self) -> SinkError:
        """Return an error for a sink that hangs. Any thread may call this.

        The text of the error has the names of the durable sinks, and the seconds of `stalled_secs`.
        """
        names = ", ".join(writer.name for writer in self._writers)
        return SinkError(f"a sink has taken nothing for {self.stalled_secs():.0f} s: {names}")

    def _add_manifests(self, outbox: int, footer: bytes) -> None:
        for writer in list(self._writers):
            with self._failing(writer):
                writer.add_manifests(outbox, footer)

    def rows_in(self, footer: bytes, store: bytes) -> int | None:
        """Return how many rows of the recording `store` the manifests in `footer` list; None if they cannot be read."""
        try:
            return manifest.all_rows(footer, store)
        except (FormatError, KeyError, ValueError) as error:
            _log.debug("the rows of a manifest cannot be counted: %r", error)
            return None

    @contextlib.contextmanager
    def _failing(self, writer: Writer) -> Iterator[None]:
        """If `writer` raises `SinkError` in the `with` block, log the error, abort `writer` and use it no more.

        Sets `failure` unless it has an earlier error, and calls the function that `watch_failures` got. The error does
        not leave the block, because the other sinks continue.
        """
        try:
            yield
        except SinkError as error:
            _log.error("%s", error)
            self.failure = self.failure or error
            self._writers.remove(writer)
            writer.abort()
            self._on_failure(error)

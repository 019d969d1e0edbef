"""Passes the complete frames of one outbox to the sinks, and frees their memory in the outbox."""

from __future__ import annotations

from mpr.aggregator.fanout import Fanout
from mpr.errors import FormatError
from mpr.rrd import checks, framing
from mpr.rrd.checks import FrameCheck
from mpr.rrd.framing import Frame
from mpr.rrd.segment import MessageBytes, Segment, SegmentSource, TaskInfo
from mpr.transport.messages import Hello, SegmentReady
from mpr.transport.outbox import OutboxReader


class OutboxIntake:
    """Reads one outbox of a producer, in the parent. Only the aggregator's thread changes this object.

    Parameters
    ----------
    hello:
        The first message of the producer.
    number:
        The number of this outbox among those of the producer, counted from 0.
    reader:
        Reads the outbox; None if the bytes of the outbox come in messages.
    fanout:
        Passes segments to the sinks.
    keeps_blueprint:
        True if a blueprint in this outbox does not replace the blueprint of the parent.
    counts_rows:
        True if all rows since the worker's last result are in this outbox. If False, these rows cannot be counted.
    """

    def __init__(
        self,
        hello: Hello,
        number: int,
        reader: OutboxReader | None,
        fanout: Fanout,
        *,
        keeps_blueprint: bool,
        counts_rows: bool = True,
    ) -> None:
        self._hello = hello
        self.number = number
        self._reader = reader
        self._fanout = fanout
        self._keeps_blueprint = keeps_blueprint
        # The number by which all sinks know this outbox.
        self._id = fanout.new_outbox()
        #: The outbox was processed up to this offset: the sinks have the rows before it, or these rows were dropped.
        self.consumed: int = 0
        self._chunks = 0
        #: The number of rows of the recording in this outbox; None until the manifest of the outbox has come.
        self.rows: int | None = None
        # The number of chunks when the last result came; None if rows since that result are in an earlier outbox.
        self._settled_chunks: int | None = 0 if counts_rows else None
        # Whether the footer of the outbox has come. If so, only the closing bytes of the stream follow.
        self._is_complete = False
        # The first bytes of a frame whose rest comes with the next message.
        self._incomplete = b""
        self._knows_format = checks.knows_format()
        self._check = FrameCheck()

    @property
    def is_inline(self) -> bool:
        """True if the bytes of the outbox come in messages, because the parent cannot read the producer's memory."""
        return self._reader is None

    @property
    def is_settled(self) -> bool:
        """True if certainly no rows have arrived since the last result of the worker, else False."""
        return self._chunks == self._settled_chunks

    def note_result(self) -> None:
        """Note that a result has arrived. All rows that have arrived until now belong to tasks with a result."""
        self._settled_chunks = self._chunks

    def rows_since_result(self) -> int | None:
        """Return how many of the user's rows have arrived since the last result; None if they cannot be counted."""
        return None if self._settled_chunks is None else self._fanout.rows_after(self._id, self._settled_chunks)

    def count_rows(self) -> int | None:
        """Return the number of rows of the shared recording in this outbox; None if they cannot be counted.

        The manifest at the end of the outbox has this number. If the manifest is missing, a sink counts the rows.
        """
        return self._fanout.all_rows(self._id) if self.rows is None else self.rows

    def consume(self, announced: SegmentReady, task: TaskInfo | None, *, wanted: bool) -> bool:
        """Pass complete frames to all sinks, up to the byte `announced.end`, and free their memory in the outbox.

        `task` is the task that has logged the rows; None if the task is unknown or there is none. If `wanted` is False,
        the frames are dropped. Returns True if the sinks have got frames. Raises `FormatError` if the bytes are damaged
        or missing.
        """
        if self._reader is not None:
            return self._consume(self._reader, announced.end, task, wanted=wanted)
        known = self.consumed + len(self._incomplete)
        if wanted and announced.start > known:
            raise FormatError(f"the bytes from {known} to {announced.start} are missing")
        if announced.end <= known:
            return False
        if announced.data is None:
            raise FormatError("bytes that should be in a message are not there")
        # Some bytes come a second time if an exception interrupts the producer after it has sent a message.
        data = self._incomplete + announced.data[known - announced.start :]
        came = self._consume(MessageBytes(self.consumed, data), announced.end, task, wanted=wanted)
        self._incomplete = data[len(data) - (announced.end - self.consumed) :]
        return came

    def consume_rest(self, task: TaskInfo | None, *, wanted: bool) -> bool:
        """Pass all complete frames in the outbox to the sinks, also frames that the producer has not announced.

        `task`, `wanted`, the returned value and the error are as for `consume`. Does nothing and returns False if the
        outbox is inline.
        """
        return self._reader is not None and self._consume(self._reader, self._reader.size(), task, wanted=wanted)

    def _consume(self, source: SegmentSource, end: int, task: TaskInfo | None, *, wanted: bool) -> bool:
        start = self.consumed
        if end <= start:
            return False
        if self._is_complete or not wanted:
            # The memory is freed even if the frames are dropped, because the producer may wait for room.
            self._accept(end)
            return False
        if self._reader is not None and not self._reader.is_whole(start, end):
            # Bytes that are missing are read as zeros, and zeros look like the last frame of a stream. A producer that
            # only logs leaves no byte out.
            raise FormatError(f"its memory has not all bytes from {start} to {end}")
        frames, footer, consumed = self._scan(source, end)
        if consumed == start:
            return False
        if self._keeps_blueprint:
            # The rows of the blueprint stay in the recording, but the blueprint does not become the active one.
            frames = [frame for frame in frames if frame.kind != framing.BLUEPRINT_ACTIVATION]
        if frames:
            self._chunks += self._fanout.write(Segment(self._id, source, frames, task=task))
        if footer is not None:
            if self._knows_format:
                checks.check_footer(footer)
            self._is_complete = True
            self.rows = self._fanout.add_manifests(self._hello, self._id, footer, of_task=task is not None)
        self._accept(consumed)
        return bool(frames)

    def _scan(self, source: SegmentSource, end: int) -> tuple[list[Frame], bytes | None, int]:
        """Find the complete frames between the offsets `consumed` and `end`.

        Returns the frames without the footer, the footer (None: not there yet), and the offset up to which all bytes
        were used. Raises `FormatError` if the bytes are no Rerun stream.
        """
        first = self.consumed
        if first == 0:
            framing.check_header(source.read(0, framing.HEADER_SIZE))
            first = framing.HEADER_SIZE
        frames, consumed = framing.scan(source.read, first, end)
        footer: bytes | None = None
        if frames and frames[-1].kind == framing.END:
            last = frames.pop()
            # If the bytes that close the stream are not there yet, the last frame is read again later, with them.
            read_footer = checks.closed_footer if self._knows_format else checks.unknown_footer
            footer = read_footer(source.read, last, end)
            consumed = last.start if footer is None else end
        if self._knows_format:
            self._check.check(source.read, frames)
        return frames, footer, consumed

    def _accept(self, end: int) -> None:
        if self._reader is not None:
            self._reader.release(self.consumed, end)
        self.consumed = end

    def close(self) -> None:
        """Close this process's descriptor of the outbox. The producer has its own descriptor."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

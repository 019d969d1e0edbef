"""Defines the interface of sinks: `Sink`, which a user gives to mpr, and `Writer`, which a durable sink opens.

A segment is some whole frames from one outbox (`rrd/segment.py`). An outbox is the file in memory in which a process
that logs leaves its rows for the parent. The `END` frame is the last frame of an outbox. Its payload has the manifests
of the outbox, which are tables of its chunks.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TypeAlias

from mpr.errors import SinkError
from mpr.rrd import store_id
from mpr.rrd.byte_log import ByteLog
from mpr.rrd.segment import Segment, TaskCall


@dataclass(frozen=True, kw_only=True)
class OpenContext:
    """Holds the values that a durable sink gets when it is opened.

    Attributes
    ----------
    application_id, recording_id:
        The ids of the shared recording.
    format_is_known:
        True if mpr knows the file format of the installed Rerun SDK, so that it can copy frames without decoding them.
    """

    application_id: str
    recording_id: str
    format_is_known: bool

    @property
    def store(self) -> bytes:
        """The store id of the shared recording, encoded as in the file format (`rrd/store_id.py`)."""
        return store_id.store_id(self.application_id, self.recording_id)

    def check_format(self, who_needs: str) -> None:
        """Raise `SinkError` if mpr does not know the file format of the installed Rerun SDK.

        The text of the error begins with `who_needs`, for example "a DirectorySink needs".
        """
        if not self.format_is_known:
            raise SinkError(f"{who_needs} to know the Rerun SDK's file format: see `mpr doctor`")


class Sink(ABC):
    """The base class of all sinks: destinations for the rows of a recording, with their settings.

    A subclass must define `_places`, and must set each class attribute below whose default is wrong for it. A durable
    sink must also define `open`. A live sink derives from `LiveSink` (`viewers.py`) instead. The settings of an object
    must never change.
    """

    #: Whether a separate process feeds the sink (see `mpr.live`). No result waits for such a sink.
    is_live: ClassVar[bool] = False
    #: Whether each task has its own recording in the sink. Workers then begin a new outbox after each task that has
    #: logged.
    keeps_tasks_apart: ClassVar[bool] = False
    #: Whether the user's program reads the recording from this object while rows come.
    is_readable: ClassVar[bool] = False
    #: Whether workers can write to the sink without the parent (`route="direct"`). A durable sink then has a file in
    #: `Writer.paths`.
    takes_direct_rows: ClassVar[bool] = False

    @property
    def needs_digests(self) -> bool:
        """True if the tasks that the sink expects must have digests (see `datasets/digest.py`)."""
        return False

    @abstractmethod
    def _places(self) -> tuple[str, ...]:
        """Return names of the files and ports that this sink needs for itself.

        If two sinks need the same file or port, both return the same name for it. mpr then refuses the two sinks.
        """

    def open(self, context: OpenContext) -> Writer:
        """Open the sink for a new recording, and return its writer. Only mpr itself calls this.

        Raises `SinkError` if the sink cannot be opened. If the sink is a live sink, which has no writer, raises
        `TypeError`.
        """
        raise TypeError(f"no writer for {self!r}")

    def check_direct(self) -> None:  # noqa: B027  # most have nothing to check
        """Raise `ConfigError` if `takes_direct_rows` is true, but a setting of this sink does not allow direct rows."""

    def described(self) -> str:
        """Return a short description of this sink for the text of an error, such as 'a FileSink'."""
        return f"a {type(self).__name__}"


#: A value that a user may give as a sink: a sink, the URL of a viewer, or a path.
SinkLike: TypeAlias = Sink | str | os.PathLike[str]


class Writer(ABC):
    """The base class of writers. A writer keeps the rows of one recording in a durable sink.

    mpr calls `open` first, then `accept` and `add_manifests` any number of times, and at last either `close` or
    `abort`. Only one thread at a time calls the methods. But any thread may call `expect`, at any time.

    A subclass must define the abstract methods. It must keep all rows that `accept` has taken, even if a later call
    fails. If `accept` or `add_manifests` raises `SinkError`, mpr calls `abort`, and then only the other sinks get rows.
    All later results have this error as their outcome, and closing the recording raises it.
    """

    #: If mpr cannot read rows back from this sink: a text for errors that says how a user can see the rows. Else empty.
    replay_hint: ClassVar[str] = ""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the sink in errors and notes: its path, or a short description if the sink has no path."""

    @property
    def paths(self) -> Sequence[Path]:
        """The files of the shared recording, and then `other_files`. Empty if the sink has no files."""
        return ()

    @property
    def other_files(self) -> Sequence[Path]:
        """The files of other recordings, which tasks have made themselves with the SDK."""
        return ()

    @property
    def published(self) -> bool:
        """True if the file of the sink has its final name already, or if another program may have read rows.

        If True, mpr calls `close` at the end, even if the code of the user has failed. If False, mpr may call `abort`
        instead, and an older file with the same name stays.
        """
        return False

    @property
    def log(self) -> ByteLog | None:
        """The log by which other threads read the written bytes; None if the bytes cannot be read as one stream."""
        return None

    @abstractmethod
    def open(self, preamble: bytes) -> None:
        """Write `preamble`, the stream with which a file begins. Raises `SinkError` if this fails."""

    def expect(self, calls: Sequence[TaskCall]) -> Sequence[bool]:
        """Note that a call of the pool will submit the tasks `calls`. Returns one bool for each task.

        The bool is True if the task need not run, because the sink already has its complete recording. Raises
        `ConfigError` if the sink cannot take one of the tasks. The thread of the caller calls this method, perhaps in a
        handler of a signal, while another thread calls the other methods.
        """
        return [False] * len(calls)

    @abstractmethod
    def accept(self, segment: Segment, *, published: bool) -> None:
        """Keep the frames of `segment`. Raises `SinkError` if this fails.

        A writer that decodes rows raises `FormatError` if the rows are damaged. In this case, mpr uses no more rows
        from the process that has sent them, and the sink continues.

        `published` is True if some frames have rows that are not telemetry of a pool. A file gets its final name in the
        first such call.
        """

    def add_manifests(self, outbox: int, footer: bytes) -> None:  # noqa: B027  # not every sink needs them
        """Keep the manifests at the end of outbox number `outbox` for the footer of the file, if the sink has one.

        `footer` is the payload of the `END` frame of the outbox.
        """

    def distrust(self) -> None:  # noqa: B027  # not every sink can drop rows at its end
        """Note that a process has sent damaged bytes, so that `close` drops the rows that the SDK cannot decode.

        Does nothing if the sink cannot drop rows.
        """

    def rows_of(self, outbox: int, skip: int, *, users_only: bool = True) -> int | None:
        """Return the number of rows in the chunks of outbox number `outbox`, which has no manifest.

        The first `skip` chunks are not counted. If `users_only` is true, rows of mpr itself and properties of the
        recording are not counted. Returns None if the sink cannot count the rows, or cannot count them quickly.
        """
        return None

    def timed_rows(self) -> int | None:
        """Return the number of rows that have times; None if the sink cannot count them.

        Static rows have no times. They are not counted, because the SDK drops a static row if a later one replaces it.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Finish the sink: for example, write the footer of a file. Raises `SinkError` if this fails."""

    @abstractmethod
    def abort(self) -> None:
        """End the sink without finishing it. A file that does not have its final name is removed."""


class Observer(Protocol):
    """The interface of an object that looks at all rows of a recording, for example to list the entities.

    An observer gets the rows after the durable sinks, and need not keep them.
    """

    def peek(self, segment: Segment) -> None:
        """Look at `segment`. Must not wait, and must not raise."""

    def note(self, footer: bytes) -> None:
        """Look at the manifests at the end of an outbox. `footer` is the payload of its `END` frame."""


class LiveFeed(Protocol):
    """The interface by which the live sinks of a recording get rows.

    `LiveSupervisor` (`live/supervisor.py`) implements the interface for all live sinks together.
    """

    def accepted(self, segment: Segment) -> None:
        """Make `segment` available to all live sinks. Must not wait, and must not raise.

        mpr calls this method after each durable sink has accepted the segment or has failed.
        """

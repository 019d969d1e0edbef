"""The interface of a sink: the value that a user gives, and the writer that a durable sink opens.

A sink gets rows as segments (`rrd/segment.py`): whole frames from one outbox. An outbox is the file in memory in which
a process that logs leaves its rows for the parent. A manifest is a table of chunks (`rrd/manifest.py`).

Covers: everything that the rest of mpr may ask a sink or its writer. No other module checks the class of a sink.
Does not cover: the sinks themselves, each in a file of this package.
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
from mpr.rrd.segment import Segment


@dataclass(frozen=True, kw_only=True)
class OpenContext:
    """The facts that a durable sink gets when it is opened.

    Attributes
    ----------
    application_id, recording_id:
        Ids of the shared recording.
    format_is_known:
        Whether mpr knows the file format of the installed Rerun SDK, so that frames can be copied as they are.
    """

    application_id: str
    recording_id: str
    format_is_known: bool

    @property
    def store(self) -> bytes:
        """The encoded store id of the shared recording."""
        return store_id.store_id(self.application_id, self.recording_id)

    def check_format(self, who_needs: str) -> None:
        """Raise `SinkError` if the format is unknown.

        The text of the error begins with `who_needs`, such as "an XSink needs".
        """
        if not self.format_is_known:
            raise SinkError(f"{who_needs} to know the Rerun SDK's file format: see `mpr doctor`")


class Sink(ABC):
    """A destination for the data of a recording. Each kind of sink is a frozen value that can be pickled.

    A durable sink has `open`. A live sink derives from `LiveSink` (`viewers.py`).
    """

    #: Whether a separate process feeds the sink (see `mpr.live`). No result waits for such a sink.
    is_live: ClassVar[bool] = False
    #: Whether each task has its own recording in the sink. Workers then end an outbox with each task.
    keeps_tasks_apart: ClassVar[bool] = False
    #: Whether the user reads the recording from the sink while rows come.
    is_readable: ClassVar[bool] = False
    #: Whether workers can write to the sink without the parent (`route="direct"`). A durable sink then has a file in
    #: `Writer.paths`.
    takes_direct_rows: ClassVar[bool] = False

    @abstractmethod
    def _places(self) -> tuple[str, ...]:
        """Return names for the files and ports that the sink needs for itself.

        If two sinks need the same file or port, both return the same name.
        """

    def open(self, context: OpenContext) -> Writer:
        """Open the sink for a new recording. Raises `SinkError` if this fails."""
        raise TypeError(f"no writer for {self!r}")

    def check_direct(self) -> None:  # noqa: B027  # most have nothing to check
        """Raise `ConfigError` if `takes_direct_rows` is true, but a setting of this sink does not allow direct rows."""

    def described(self) -> str:
        """Return the words for this sink in the texts of errors, such as 'a FileSink'."""
        return f"a {type(self).__name__}"


#: A value that a user may give as a sink: a sink, the URL of a viewer, or a path.
SinkLike: TypeAlias = Sink | str | os.PathLike[str]


class Writer(ABC):
    """An open durable sink. Only one thread at a time calls its methods.

    Rows that `accept` has taken are kept, even if a later call fails.
    """

    #: If this sink cannot be read: a text for errors that says how a user can see the rows. Else empty.
    replay_hint: ClassVar[str] = ""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the sink in errors and notes: a path, or words."""

    @property
    def paths(self) -> Sequence[Path]:
        """All files that the writer writes."""
        return ()

    @property
    def other_files(self) -> Sequence[Path]:
        """The files in `paths` that hold recordings which tasks made themselves."""
        return ()

    @property
    def published(self) -> bool:
        """Whether the sink must be finished even if the recording fails.

        That is so if its file has the final name already, or if somebody may have read its rows. If it is not so, the
        sink may be aborted, and an older file stays.
        """
        return False

    @property
    def log(self) -> ByteLog | None:
        """The accepted bytes of the shared recording, or None if they cannot be read as one stream."""
        return None

    @abstractmethod
    def open(self, preamble: bytes) -> None:
        """Begin with `preamble`, a whole stream of a header, a store info and the properties of the recording."""

    @abstractmethod
    def accept(self, segment: Segment, *, published: bool) -> None:
        """Keep the frames of `segment`. Raises `SinkError` if this fails.

        `published` says whether some frames have rows that are not telemetry. A file gets its final name then.
        """

    def add_manifests(self, outbox: int, footer: bytes) -> None:  # noqa: B027  # not every sink needs them
        """Add the manifests that the SDK wrote at the end of `outbox`. `footer` is the payload of the `END` frame."""

    def distrust(self) -> None:  # noqa: B027  # not every sink can drop rows at its end
        """Check all rows at the end, and drop those that the SDK cannot decode, because a producer was cut off."""

    def rows_of(self, outbox: int, skip: int, *, users_only: bool = True) -> int | None:
        """Count the rows in the chunks of an outbox that has no footer. The first `skip` chunks are not counted.

        With `users_only`, rows of mpr itself and properties of the recording are not counted.
        Returns None if the sink cannot count the rows, or cannot count them quickly.
        """
        return None

    def timed_rows(self) -> int | None:
        """Count the rows of the shared recording that have times; None if the sink cannot count them.

        `mpr verify` checks a file against this number. Static rows are left out, because the SDK drops a static row if
        a later one replaces it.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Finish the sink. Raises `SinkError` if this fails."""

    @abstractmethod
    def abort(self) -> None:
        """End the sink without finishing it. Raises nothing."""


class Observer(Protocol):
    """Looks at the rows of a recording, without keeping them."""

    def peek(self, segment: Segment) -> None:
        """Look at `segment`, which all durable sinks have accepted. Never waits and never raises."""

    def note(self, footer: bytes) -> None:
        """Look at the manifests at the end of an outbox. `footer` is the payload of the `END` frame."""


class LiveFeed(Protocol):
    """All open live sinks of a recording. Each live sink tracks which rows it has not sent to its viewer yet."""

    def accepted(self, segment: Segment) -> None:
        """Let the live sinks send `segment`, which every durable sink that still works has accepted.

        Never waits and never raises.
        """

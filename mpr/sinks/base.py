"""The interface of a sink: the value that a user gives, and the writer that a durable one opens.

Covers: everything that the rest of mpr may ask a sink or its writer; no other module asks for the class of a sink.
Does not cover: the sinks themselves, each in a file of this package.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from mpr.errors import SinkError
from mpr.rrd import store_id
from mpr.rrd.byte_log import ByteLog
from mpr.rrd.segment import Segment


@dataclass(frozen=True, kw_only=True)
class OpenContext:
    """The facts that a durable sink gets when it opens.

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
        """Raise `SinkError` if the format is unknown; its text begins with `who_needs`, such as "an XSink needs"."""
        if not self.format_is_known:
            raise SinkError(f"{who_needs} to know the Rerun SDK's file format: see `mpr doctor`")


class Sink(ABC):
    """A destination for the data of a recording; each kind is a frozen value that pickles.

    A durable sink has `open`. A live sink derives from `LiveSink` (`viewers.py`).
    """

    #: A process of its own feeds it (see `mpr.live`), and no result waits for it.
    is_live: ClassVar[bool] = False
    #: Each task has a recording of its own there, so workers end an outbox with each task.
    keeps_tasks_apart: ClassVar[bool] = False
    #: The user reads the recording from it while rows come.
    is_readable: ClassVar[bool] = False
    #: Workers can write to it without the parent (`route="direct"`). A durable one then has a file in `Writer.paths`.
    takes_direct_rows: ClassVar[bool] = False

    @abstractmethod
    def _places(self) -> tuple[str, ...]:
        """Files and ports that it needs for itself, in words that are the same for two sinks in each other's way."""

    def open(self, context: OpenContext) -> Writer:
        """Open it for a recording that begins. Raises `SinkError`."""
        raise TypeError(f"no writer for {self!r}")

    def check_direct(self) -> None:  # noqa: B027  # most have nothing to check
        """Raise `ConfigError` if it takes direct rows in general, but not with its settings."""

    def described(self) -> str:
        """Return how errors call it in a sentence, with an article."""
        return f"a {type(self).__name__}"


class Writer(ABC):
    """An open durable sink. One thread at a time calls it. Rows that `accept` took are kept, whatever happens."""

    #: For an error: how a user can see the rows, if this sink cannot be read.
    replay_hint: ClassVar[str] = ""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the sink in errors and notes: a path, or words."""

    @property
    def paths(self) -> Sequence[Path]:
        """All files that it writes."""
        return ()

    @property
    def other_files(self) -> Sequence[Path]:
        """Those of `paths` that hold recordings which tasks made themselves."""
        return ()

    @property
    def published(self) -> bool:
        """Whether it replaced a file that was there before, so that it has to be finished."""
        return False

    @property
    def log(self) -> ByteLog | None:
        """The accepted bytes of the shared recording, for readers; None if they cannot be read in one piece."""
        return None

    @abstractmethod
    def open(self, preamble: bytes) -> None:
        """Begin with `preamble`, a whole stream: its header, its store info and the recording's properties."""

    @abstractmethod
    def accept(self, segment: Segment, *, published: bool) -> None:
        """Keep the frames of `segment`; `published` says that there are rows among them. Raises `SinkError`."""

    def add_manifests(self, outbox: int, footer: bytes) -> None:  # noqa: B027  # not every sink needs them
        """Take the manifests that the SDK wrote at the end of `outbox`: `footer` is the payload of its `END` frame."""

    def rows_of(self, outbox: int, skip: int) -> int | None:
        """Count the rows in the chunks of an outbox without a footer, without the first `skip` chunks.

        Returns None if this sink does not know, or not quickly.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Finish. Raises `SinkError`."""

    @abstractmethod
    def abort(self) -> None:
        """End without finishing; raises nothing."""


class Observer(Protocol):
    """Looks at the rows of a recording, without keeping them."""

    def peek(self, segment: Segment) -> None:
        """Look at `segment`, which all durable sinks have. Never waits, never raises."""

    def note(self, footer: bytes) -> None:
        """Look at the manifests at the end of an outbox: `footer` is the payload of its `END` frame."""


class LiveFeed(Protocol):
    """All open live sinks. They keep track themselves of the rows that they have not got yet."""

    def accepted(self, segment: Segment) -> None:
        """Note that all durable sinks which have not failed have `segment`. Never waits, never raises."""

"""What all sinks, as the user names them, have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mpr.rrd.segment import Segment


class Sink(ABC):
    """Where the data of a recording goes; each kind is a frozen value that pickles."""

    @abstractmethod
    def _places(self) -> tuple[str, ...]:
        """Files and ports that it needs for itself, in words that are the same for two sinks in each other's way."""


class Writer(Protocol):
    """A durable sink at work. One thread at a time calls it; what its `accept` has taken is kept, whatever comes."""

    @property
    def name(self) -> str:
        """What errors and notes call it: a path, or words."""

    @property
    def paths(self) -> Sequence[Path]:
        """The files that it writes."""

    @property
    def published(self) -> bool:
        """Whether a file that was there before has been replaced, so that this one has to be finished."""

    def open(self, preamble: bytes) -> None:
        """Begin with `preamble`, a whole stream: its header, its store info and the recording's properties."""

    def accept(self, segment: Segment, *, published: bool) -> None:
        """Keep the frames of `segment`; `published` says that there are rows among them. Raises `SinkError`."""

    def add_manifests(self, outbox: int, footer: bytes) -> None:
        """Take the manifests that the SDK wrote at the end of `outbox`: `footer` is the payload of its `END` frame."""

    def rows_of(self, outbox: int, skip: int) -> int | None:
        """How many rows there are in the chunks of an outbox without a footer, without the first `skip` chunks.

        None where this sink cannot tell, or not quickly.
        """

    def close(self) -> None:
        """Finish. Raises `SinkError`."""

    def abort(self) -> None:
        """End without finishing; raises nothing."""


class Observer(Protocol):
    """Who looks at what is recorded."""

    def peek(self, segment: Segment) -> None:
        """All durable sinks have `segment`. Never waits, never raises."""

    def note(self, footer: bytes) -> None:
        """An outbox of a producer has ended with manifests: `footer` is the payload of its `END` frame."""


class LiveFeed(Protocol):
    """Live sinks at work, all of them: what they have not got yet is their business."""

    def accepted(self, segment: Segment) -> None:
        """All durable sinks have `segment`, those that have not failed. Never waits, never raises."""

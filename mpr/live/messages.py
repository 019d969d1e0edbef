"""The messages between a recording and the exporters of its live sinks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """To the exporter: the descriptor of the replay log's file `number` follows this message."""

    number: int
    is_memory: bool


@dataclass(frozen=True, slots=True)
class SendSlice:
    """To the exporter: send the frames within `[start, end)` of the replay log's file `number`."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Finish:
    """To the exporter: no more rows follow."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """From the exporter: no viewer listens yet."""


@dataclass(frozen=True, slots=True)
class Connected:
    """From the exporter: the viewer is connected, or the server runs."""


@dataclass(frozen=True, slots=True)
class SliceSent:
    """From the exporter: the replay log's file `number` was sent up to the offset `end`, or is lost up to there.

    `chunks` is the number of chunks that were sent since the previous message of this kind.
    """

    number: int
    end: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Lost:
    """From the exporter: it cannot connect, or the connection has broken, so the exporter ends."""

    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """From the exporter: everything was sent, so the exporter ends."""

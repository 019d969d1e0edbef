"""The messages between a recording and the exporters of its live sinks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """To the exporter: the descriptor of file `number` of the replay log follows."""

    number: int
    is_memory: bool


@dataclass(frozen=True, slots=True)
class SendSlice:
    """To the exporter: send the frames within `[start, end)` of file `number` of the replay log."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Finish:
    """To the exporter: nothing more follows."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """From the exporter: no viewer listens yet."""


@dataclass(frozen=True, slots=True)
class Connected:
    """From the exporter: the viewer or the server is there."""


@dataclass(frozen=True, slots=True)
class SliceSent:
    """From the exporter: file `number` of the replay log up to `end` was sent or is lost; `chunks` more were sent."""

    number: int
    end: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Lost:
    """From the exporter: it cannot connect, or the connection has broken. It ends."""

    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """From the exporter: everything was sent. It ends."""

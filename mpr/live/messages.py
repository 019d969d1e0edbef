"""What a recording and the exporters of its live sinks tell each other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """To the exporter: the descriptor of file of the log `number` follows."""

    number: int
    is_memory: bool


@dataclass(frozen=True, slots=True)
class SendSlice:
    """To the exporter: bring the frames of file of the log `number` within `[start, end)`."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Finish:
    """To the exporter: that was all."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """From the exporter: nobody listens there, yet."""


@dataclass(frozen=True, slots=True)
class Connected:
    """From the exporter: the viewer is there, or the server."""


@dataclass(frozen=True, slots=True)
class SliceSent:
    """From the exporter: file of the log `number` up to `end` is brought or gone for ever; `chunks` more have been
    brought."""

    number: int
    end: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Lost:
    """From the exporter: the connection cannot be made, or has broken. It ends."""

    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """From the exporter: everything was brought. It ends."""

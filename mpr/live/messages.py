"""What a recording and the couriers of its live sinks tell each other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """To the courier: the descriptor of reel `number` follows."""

    number: int
    is_spool: bool


@dataclass(frozen=True, slots=True)
class Bring:
    """To the courier: bring the frames of reel `number` within `[start, end)`."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Finish:
    """To the courier: that was all."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """From the courier: nobody listens there, yet."""


@dataclass(frozen=True, slots=True)
class Connected:
    """From the courier: the viewer is there, or the server."""


@dataclass(frozen=True, slots=True)
class Brought:
    """From the courier: reel `number` up to `end` is brought or gone for ever; `chunks` more have been brought."""

    number: int
    end: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Lost:
    """From the courier: the connection cannot be made, or has broken. It ends."""

    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """From the courier: everything was brought. It ends."""

"""The messages between the parent process and the exporters of its live sinks.

An exporter is the process that sends rows to one live sink, such as a viewer. The replay log (`replay_log.py`) is a
list of files with these rows. Each of these files has a number. All offsets are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """To the exporter: the descriptor of the replay log's file `number` follows this message on the same connection.

    `is_memory` says whether the file is a memory ring, which drops its oldest bytes.
    """

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
    """To the exporter: no more rows follow, so it has to close the connection and end."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """From the exporter: no viewer listens yet."""


@dataclass(frozen=True, slots=True)
class Connected:
    """From the exporter: it is connected to the viewer, or its server runs."""


@dataclass(frozen=True, slots=True)
class SliceSent:
    """From the exporter: the bytes before the offset `end` of the replay log's file `number` were sent, or are lost.

    `chunks` is the number of chunks (units of rows) that were sent since the previous message of this kind.
    """

    number: int
    end: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Lost:
    """From the exporter: it ends, because it cannot connect, or the connection is broken. `reason` says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """From the exporter: it ends, because everything was sent and the connection is closed."""

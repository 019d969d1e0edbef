"""Defines the messages between the parent process and the exporters of its live sinks.

An exporter is the process that sends rows to one live sink, such as a viewer. The replay log (`replay_log.py`) is a
list of files with these rows. Each of these files has a number. All offsets are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """To the exporter: the replay log's file `number` is now in use. Its descriptor follows on the same connection.

    `is_memory` is True if the file is a memory ring: a file in memory that drops its oldest segments.
    """

    number: int
    is_memory: bool


@dataclass(frozen=True, slots=True)
class SendSlice:
    """To the exporter: send the frames in the bytes `[start, end)` of the replay log's file `number`."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Finish:
    """To the exporter: no more rows follow. The exporter has to close its connection to the live sink and end."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """From the exporter: no viewer listens yet, so the exporter cannot connect."""


@dataclass(frozen=True, slots=True)
class Connected:
    """From the exporter: the exporter is connected to the viewer, or its server runs."""


@dataclass(frozen=True, slots=True)
class SliceSent:
    """From the exporter: the bytes before the offset `end` of the replay log's file `number` were sent, or are lost.

    `chunks` is the number of chunks (some rows of one entity each) that were sent since the previous message of this
    kind.
    """

    number: int
    end: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Lost:
    """From the exporter: the exporter ends because of an error, for example because the connection is broken.

    `reason` is the text of the error.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """From the exporter: everything was sent, the connection is closed, and the exporter ends."""

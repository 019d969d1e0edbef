"""Defines the statistics of a live sink (a viewer or a server), which `SharedRecording.stats()` returns.

Covers: the values for one live sink.
Does not cover: counting them (`exporter_handle.py`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LiveSinkStatistics:
    """Says how many chunks one live sink has got. A chunk is some rows of one entity.

    An exporter is the process that sends rows to the sink.

    Attributes
    ----------
    sink:
        The kind and the URL of the sink.
    state:
        One of 'connected', 'waiting for a viewer', 'starting', 'not running' (a new attempt follows), 'finishing' and
        'done'.
    sent_chunks:
        The number of chunks that were sent over the present connection, or over the last one if there is none now. It
        is certain that the viewer or server has read these chunks only if the state is 'done'.
    missing_chunks:
        The number of chunks of the recording that were not sent. While the recording is open, these chunks may still be
        sent. When the recording is closed, they are missing in the viewer or server.
    connections:
        How often an exporter has connected to a viewer, or has started a server.
    """

    sink: str
    state: str
    sent_chunks: int
    missing_chunks: int
    connections: int

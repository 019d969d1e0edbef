"""Defines the statistics of a live sink (a viewer or a server), which `SharedRecording.stats()` returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LiveSinkStatistics:
    """Says how many chunks one live sink has got. A chunk is some rows of one entity.

    An exporter is the process that sends rows to the sink. If its connection breaks, mpr starts another exporter, which
    sends the rows again: from the beginning if the recording has a `FileSink`, else the last 256 MiB.

    Attributes
    ----------
    sink:
        The kind and the URL of the sink.
    state:
        The state of the exporter. After the recording is closed, the state does not change.

        - 'starting': its process starts, or it connects to the viewer.
        - 'waiting for a viewer': no viewer listens at the URL yet.
        - 'connected': it is connected to the viewer, or its server runs. It sends rows as they come.
        - 'finishing': the recording is being closed, and all rows were sent. The viewer may not have read all of them.
        - 'done': the viewer or server has read all rows that were sent, and the exporter ends.
        - 'not running': there is no exporter now. While the recording is open, mpr tries within 2 s to start
          another one, unless mpr itself has failed.
    sent_chunks:
        The number of chunks that were sent over the present connection, or over the last one if there is none now.
    missing_chunks:
        The number of chunks of the recording that were not sent over this connection. While the recording is open, they
        may still be sent.
    connections:
        How often an exporter has connected to a viewer, or has started a server.
    """

    sink: str
    state: str
    sent_chunks: int
    missing_chunks: int
    connections: int

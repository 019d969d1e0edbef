"""Defines the values with which an exporter starts. An exporter is the process that sends rows to one live sink.

A live sink is a viewer or a server. This module does not import the Rerun SDK, because only the exporter needs the SDK.
"""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.connection import Connection

from mpr.sinks.viewers import LiveSink

#: The function that an exporter runs, in the form `module:function` (see `processes/launcher.py`).
MAIN = "mpr.live.exporter:main"


@dataclass(frozen=True, kw_only=True)
class ExporterConfig:
    """Holds the values with which an exporter starts.

    Attributes
    ----------
    sink:
        The live sink. If the user gave port 0, the sink has a free port instead.
    application_id, recording_id:
        The ids of the recording.
    head:
        An encoded Rerun stream that the exporter sends before all other data: store infos, properties and blueprint.
    first:
        True if this is the first exporter of the sink. Only the first one opens the viewer of a `SpawnViewerSink`.
    environ:
        The environment variables of the parent, which the exporter sets, because a fork server has older ones.
    pipe:
        The connection to the parent.
    """

    sink: LiveSink
    application_id: str
    recording_id: str
    head: bytes
    first: bool
    environ: dict[str, str]
    pipe: Connection

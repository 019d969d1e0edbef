"""What a exporter is started with, importable without the Rerun SDK, which only the exporter itself needs."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.connection import Connection

from mpr.sinks.viewers import LiveSink

#: The entry function of a exporter, for a launcher.
MAIN = "mpr.live.exporter:main"


@dataclass(frozen=True, kw_only=True)
class ExporterConfig:
    """What a exporter is started with.

    Attributes
    ----------
    sink:
        What it serves, with the ports that were chosen.
    application_id, recording_id:
        Of the recording.
    head:
        What comes before all data.
    first:
        Whether no exporter for this sink was there before.
    environ:
        The parent's environment; a fork server was started with an older one.
    pipe:
        To the parent.
    """

    sink: LiveSink
    application_id: str
    recording_id: str
    head: bytes
    first: bool
    environ: dict[str, str]
    pipe: Connection

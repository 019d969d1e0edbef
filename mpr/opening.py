"""From the sinks that the user named to writers at work."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from mpr import relabel, sdk
from mpr.decoding_writer import DecodingWriter
from mpr.file_writer import FileWriter
from mpr.sinks import FileSink, Sink
from mpr.writers import Writer

_log = logging.getLogger("mpr")


def open_writers(chosen: tuple[Sink, ...], application_id: str, recording_id: str) -> list[Writer]:
    """The writers of all sinks, each with the recording's properties in it; none where logging is switched off."""
    prologue = sdk.prologue(time.time_ns())
    if not prologue:
        # RERUN=off: tasks run, and nothing is recorded.
        return []
    unknown = sdk.format_is_known()
    if unknown is None:
        prologue = relabel.relabelled(prologue, relabel.store_id(application_id, recording_id), sdk.store_info())
    else:
        _log.warning("mpr does not know the file format of this Rerun SDK (%s): it decodes, which is slower", unknown)
    writers: list[Writer] = []
    try:
        for sink in chosen:
            writer = _writer(sink, application_id, recording_id, reframes=unknown is None)
            writers.append(writer)
            writer.open(prologue)
    except BaseException:
        for writer in writers:
            writer.abandon()
        raise
    return writers


def _writer(sink: Sink, application_id: str, recording_id: str, *, reframes: bool) -> Writer:
    match sink:
        case FileSink():
            path = Path(sink.path)
            return FileWriter(path) if reframes else DecodingWriter(path, application_id, recording_id)
    raise TypeError(f"no writer for {sink!r}")

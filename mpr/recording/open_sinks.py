"""Opens the sinks that the user has named, with the properties and the blueprint of the recording in them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpr.live.replay_log import ReplayLog
from mpr.live.supervisor import LiveSupervisor
from mpr.rrd import compat, framing, relabel, store_id
from mpr.rrd.segment import PREAMBLE, MessageBytes, Segment
from mpr.sdk import encoder
from mpr.sinks.base import OpenContext, Sink, Writer
from mpr.sinks.viewers import is_live

_log = logging.getLogger("mpr")


@dataclass(frozen=True, kw_only=True)
class OpenSinks:
    """The open sinks of a recording.

    Attributes
    ----------
    writers:
        The writers of the durable sinks.
    live:
        The live sinks; None if there are none.
    urls:
        The address that a person opens to see each live sink: a viewer, a server or a page.
    served:
        Those of `urls` that the user has to learn, because mpr starts the server or page.
    open_to_senders:
        The URL at which a process can send to each live sink itself.
    """

    writers: list[Writer]
    live: LiveSupervisor | None
    urls: list[str]
    served: list[str]
    open_to_senders: tuple[str, ...] = ()


def open_sinks(
    chosen: Sequence[Sink], application_id: str, recording_id: str, blueprint: Any, folder: Path
) -> OpenSinks:
    """Open all sinks, or none; `folder` is a private folder for files. Raises `SinkError`.

    If logging is switched off, no sink is opened.
    """
    preamble = encoder.preamble(time.time_ns())
    if not preamble:
        # RERUN=off: tasks run, and nothing is recorded.
        return OpenSinks(writers=[], live=None, urls=[], served=[])
    unknown = compat.format_is_known()
    if unknown is None:
        preamble = relabel.relabelled(preamble, store_id.store_id(application_id, recording_id), compat.store_info())
    else:
        _log.warning("mpr does not know the file format of this Rerun SDK (%s): it decodes, which is slower", unknown)
    layout = b"" if blueprint is None else encoder.encoded_blueprint(application_id, blueprint)
    live = [sink._with_ports() for sink in chosen if is_live(sink)]
    context = OpenContext(application_id=application_id, recording_id=recording_id, format_is_known=unknown is None)
    writers: list[Writer] = []
    try:
        for sink in chosen:
            if not sink.is_live:
                writer = sink.open(context)
                writers.append(writer)
                writer.open(preamble)
                if layout:
                    append(writer, layout)
    except BaseException:
        for writer in writers:
            writer.abort()
        raise
    if not live:
        return OpenSinks(writers=writers, live=None, urls=[], served=[])
    logs = (writer.log for writer in writers)
    file = next((log for log in logs if log is not None and log.shared_fd is not None), None)
    # Without the recording's id, the properties would be another recording in a viewer.
    first = [preamble, layout] if unknown is None else [layout]
    head = preamble[: framing.HEADER_SIZE] + b"".join(_messages(stream) for stream in first if stream)
    feed = LiveSupervisor(live, ReplayLog(head, file, folder), application_id, recording_id)
    return OpenSinks(
        writers=writers,
        live=feed,
        urls=[sink._reached_at() for sink in live],
        served=[sink._reached_at() for sink in live if sink.is_server],
        open_to_senders=tuple(sink._url() for sink in live),
    )


def append(writer: Writer, stream: bytes, *, telemetry: bool = False) -> None:
    """Write `stream`, a whole stream of the parent itself, to `writer`; `telemetry` has the meaning of `Segment`."""
    frames = framing.frames_of(stream)
    last = frames.pop()
    writer.accept(Segment(PREAMBLE, MessageBytes(0, stream), frames, telemetry=telemetry), published=False)
    writer.add_manifests(PREAMBLE, stream[last.payload : last.end])


def encoded_notes(entity_path: str, application_id: str, recording_id: str, notes: Sequence[str]) -> bytes:
    """Return a stream of the recording with `notes` as warnings under `entity_path`; empty if logging is off."""
    stream = encoder.warnings_by_sdk(entity_path, notes)
    return relabel.relabelled(stream, store_id.store_id(application_id, recording_id)) if stream else b""


def _messages(stream: bytes) -> bytes:
    """Return the frames of `stream` without its header and its end."""
    frames = framing.frames_of(stream)
    return stream[framing.HEADER_SIZE : frames[-1].start]

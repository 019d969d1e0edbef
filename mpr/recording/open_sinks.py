"""Opens the sinks that the user has named, and writes the recording's properties and blueprint to each sink."""

from __future__ import annotations

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
from mpr.user_code import log as _log


@dataclass(frozen=True, kw_only=True)
class OpenSinks:
    """The open sinks of a recording.

    Attributes
    ----------
    writers:
        The writers of the durable sinks.
    live:
        The supervisor of the live sinks. None if there are no live sinks.
    urls:
        The address of each live sink, at which a person sees the rows: of a viewer, a server or a page.
    served:
        The part of `urls` that mpr shows to the user, because mpr itself starts these servers and pages.
    open_to_senders:
        The URL of each live sink, to which a process can send rows directly.
    """

    writers: list[Writer]
    live: LiveSupervisor | None
    urls: list[str]
    served: list[str]
    open_to_senders: tuple[str, ...] = ()


def open_sinks(
    chosen: Sequence[Sink], application_id: str, recording_id: str, blueprint: Any, folder: Path
) -> OpenSinks:
    """Open all sinks. If one sink cannot be opened, close the others, and raise `SinkError`.

    `folder` is a private folder for files. If logging is switched off, no sink is opened.
    """
    preamble = encoder.preamble(time.time_ns())
    if not preamble:
        # With RERUN=off, tasks run, but nothing is recorded.
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
    # A preamble without the recording's id is left out, because a viewer would show another recording for it.
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
    """Write `stream`, a whole stream that the parent has made, to `writer`.

    `telemetry` says that the rows are telemetry of a pool, and not data of the user.
    """
    frames = framing.frames_of(stream)
    last = frames.pop()
    writer.accept(Segment(PREAMBLE, MessageBytes(0, stream), frames, telemetry=telemetry), published=False)
    writer.add_manifests(PREAMBLE, stream[last.payload : last.end])


def encoded_notes(entity_path: str, application_id: str, recording_id: str, notes: Sequence[str]) -> bytes:
    """Return a stream of the recording with `notes` as warnings under `entity_path`, or b"" if logging is off."""
    stream = encoder.warnings_by_sdk(entity_path, notes)
    return relabel.relabelled(stream, store_id.store_id(application_id, recording_id)) if stream else b""


def _messages(stream: bytes) -> bytes:
    """Return the frames of `stream` without the header and the end."""
    frames = framing.frames_of(stream)
    return stream[framing.HEADER_SIZE : frames[-1].start]

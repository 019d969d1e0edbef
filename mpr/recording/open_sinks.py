"""Opens the sinks that the user has named, and writes the first rows to each sink.

The first rows are the preamble (the properties of the recording, such as its start time) and the user's blueprint.

Covers: opening all sinks or none, and writing streams that the parent makes itself.
Does not cover: the rows of processes (`aggregator`), and closing the sinks (`runtime.py`).
"""

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
        For each live sink, the URL at which a person sees the rows.
    served:
        The URLs of servers and web pages that mpr itself starts. Each of them is also in `urls`.
    open_to_senders:
        For each live sink, the URL to which a process can send rows with `route="direct"`.
    """

    writers: list[Writer]
    live: LiveSupervisor | None
    urls: list[str]
    served: list[str]
    open_to_senders: tuple[str, ...] = ()


def open_sinks(
    chosen: Sequence[Sink], application_id: str, recording_id: str, blueprint: Any, folder: Path
) -> OpenSinks:
    """Open all durable sinks and write the first rows to them. Prepare the live sinks.

    Parameters
    ----------
    chosen:
        The sinks that the user has named.
    application_id, recording_id:
        The ids of the recording.
    blueprint:
        The user's blueprint, or None.
    folder:
        A folder of this recording for temporary files. Only this user can open it.

    Returns
    -------
    The sinks. There are none if logging is off (`RERUN=off`).

    Raises
    ------
    SinkError
        If a sink cannot be opened. The sinks that are open already are then aborted (`Writer.abort` of
        `sinks/base.py`): their unfinished files are removed.
    """
    preamble = encoder.preamble(time.time_ns())
    if not preamble:
        # The user has switched logging off (`RERUN=off`). Tasks run, but nothing is recorded.
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
    # If mpr does not know the format, the preamble has a placeholder instead of the recording's id. It is left out
    # then, because a viewer would show a second recording for this id.
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
    """Write `stream`, a whole encoded stream from its header to its footer, to the sink of `writer`.

    `telemetry` is true if the rows are not data of the user. Raises `SinkError` if the sink fails.
    """
    frames = framing.frames_of(stream)
    last = frames.pop()
    writer.accept(Segment(PREAMBLE, MessageBytes(0, stream), frames, telemetry=telemetry), published=False)
    writer.add_manifests(PREAMBLE, stream[last.payload : last.end])


def encoded_notes(entity_path: str, application_id: str, recording_id: str, notes: Sequence[str]) -> bytes:
    """Return an encoded stream with `notes` as text logs of level WARN at `entity_path`.

    The stream is empty (b"") if there are no notes, or if logging is off.
    """
    stream = encoder.warnings_by_sdk(entity_path, notes)
    return relabel.relabelled(stream, store_id.store_id(application_id, recording_id)) if stream else b""


def _messages(stream: bytes) -> bytes:
    """Return the bytes of `stream` without its header and without its footer (the last frame)."""
    frames = framing.frames_of(stream)
    return stream[framing.HEADER_SIZE : frames[-1].start]

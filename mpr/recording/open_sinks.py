"""From the sinks that the user named to sinks at work."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpr.errors import SinkError
from mpr.live.replay_log import ReplayLog
from mpr.live.supervisor import LiveSupervisor
from mpr.rrd import compat, framing, relabel, store_id
from mpr.rrd.segment import PREAMBLE, MessageBytes, Segment
from mpr.rrd.writer import FileWriter
from mpr.sdk import encoder
from mpr.sinks.active_recording import ActiveRecordingSink, ActiveRecordingWriter
from mpr.sinks.base import Sink, Writer
from mpr.sinks.binary_stream import BinaryStreamSink, ByteStream, StreamFile, StreamWriter
from mpr.sinks.decoding import DecodingWriter
from mpr.sinks.directory import DirectorySink, DirectoryWriter
from mpr.sinks.file import FileSink
from mpr.sinks.per_recording import NewFile, PerRecordingWriter
from mpr.sinks.viewers import GrpcServerSink, LiveSink, WebViewerSink, with_ports

_log = logging.getLogger("mpr")


@dataclass(frozen=True, kw_only=True)
class OpenSinks:
    """Sinks at work.

    Attributes
    ----------
    writers:
        Of the durable sinks, each with the recording's properties and blueprint in it.
    live:
        Of the live ones; None where there are none.
    urls:
        What a person opens to see each live sink: a viewer, a server or a page.
    served:
        Those of them that nobody knows who did not start them: of servers and pages.
    open_to_senders:
        Where a process can send to each live sink itself.
    """

    writers: list[Writer]
    live: LiveSupervisor | None
    urls: list[str]
    served: list[str]
    open_to_senders: tuple[str, ...] = ()


def open_sinks(
    chosen: Sequence[Sink], application_id: str, recording_id: str, blueprint: Any, folder: Path
) -> OpenSinks:
    """Open all sinks, or none; `folder` is for files that nobody else sees. Raises `SinkError`.

    Where logging is switched off, there are none.
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
    live = [with_ports(sink) for sink in chosen if isinstance(sink, LiveSink)]
    writers: list[Writer] = []
    try:
        for sink in chosen:
            if not isinstance(sink, LiveSink):
                writer = _writer(sink, application_id, recording_id, reframes=unknown is None)
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
    files = (writer.file for writer in writers if isinstance(writer, PerRecordingWriter))
    file = next((file for file in files if file is not None), None)
    # Properties that cannot be given the recording's id would be another recording in a viewer.
    first = [preamble, layout] if unknown is None else [layout]
    head = preamble[: framing.HEADER_SIZE] + b"".join(_messages(stream) for stream in first if stream)
    feed = LiveSupervisor(live, ReplayLog(head, file, folder), application_id, recording_id)
    return OpenSinks(
        writers=writers,
        live=feed,
        urls=[sink._reached_at() for sink in live],
        served=[sink._reached_at() for sink in live if isinstance(sink, GrpcServerSink | WebViewerSink)],
        open_to_senders=tuple(sink._url() for sink in live),
    )


def append(writer: Writer, stream: bytes, *, telemetry: bool = False) -> None:
    """Let `writer` take `stream`, a whole stream that the parent itself has made; `telemetry` as in `Segment`."""
    frames = framing.frames_of(stream)
    last = frames.pop()
    writer.accept(Segment(PREAMBLE, MessageBytes(0, stream), frames, telemetry=telemetry), published=False)
    writer.add_manifests(PREAMBLE, stream[last.payload : last.end])


def encoded_notes(entity_path: str, application_id: str, recording_id: str, notes: Sequence[str]) -> bytes:
    """A stream of the recording with `notes` as warnings under `entity_path`; empty where logging is switched off."""
    stream = encoder.warnings_by_sdk(entity_path, notes)
    return relabel.relabelled(stream, store_id.store_id(application_id, recording_id)) if stream else b""


def _messages(stream: bytes) -> bytes:
    """The frames of `stream` without its header and its end."""
    frames = framing.frames_of(stream)
    return stream[framing.HEADER_SIZE : frames[-1].start]


def _writer(sink: Sink, application_id: str, recording_id: str, *, reframes: bool) -> Writer:
    new_file: NewFile = DecodingWriter
    match sink:
        case DirectorySink() | BinaryStreamSink() if not reframes:
            raise SinkError(f"a {type(sink).__name__} needs to know the Rerun SDK's file format: see `mpr doctor`")
        case BinaryStreamSink():
            memory_ring = StreamFile(sink.memory_bytes)
            stream = ByteStream(memory_ring)
            sink._use(stream)
            return StreamWriter(memory_ring, stream)
        case DirectorySink():
            folder = DirectoryWriter(Path(sink.path), sink.name, application_id, recording_id)
            new_file = _reframing(FileSink(path=folder.path))
            return PerRecordingWriter(folder, store_id.store_id(application_id, recording_id), new_file)
        case ActiveRecordingSink():
            return ActiveRecordingWriter(sink)
        case FileSink():
            if reframes:
                new_file = _reframing(sink)
            elif sink.compact or not sink.write_footer:
                raise SinkError("compact and write_footer need to know the Rerun SDK's file format: see `mpr doctor`")
            main = new_file(Path(sink.path), application_id, recording_id)
            return PerRecordingWriter(main, store_id.store_id(application_id, recording_id), new_file)
    raise TypeError(f"no writer for {sink!r}")


def _reframing(sink: FileSink) -> NewFile:
    """Files as `sink` wants them; the ids stand in what they get."""
    return lambda path, _application_id, _recording_id: FileWriter(
        path, write_footer=sink.write_footer, compact=sink.compact
    )

"""Adds rows to an `.rrd` file that no process is writing.

Covers: appending logged rows or an encoded stream to a file.
Does not cover: repairing the file (`recover.py`).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mpr import errors
from mpr.errors import SinkError
from mpr.rrd import compat, framing, manifest, protobuf, recover, relabel, store_id
from mpr.rrd.footer import ManifestMaker
from mpr.rrd.manifest import OffsetMap
from mpr.sdk import encoder

if TYPE_CHECKING:
    import rerun as rr


def append(path: Path, application_id: str, write: Callable[[rr.RecordingStream], None]) -> None:
    """Add rows to the first recording in the file at `path`, and make the file valid.

    `write` is called with an `rr.RecordingStream`, and logs the rows to it. If `write` logs nothing, it may be called
    once more. If the file has no recording, the rows become a new one with `application_id`. An incomplete message at
    the end of the file is dropped. No other process may write the file meanwhile.

    Raises `SinkError` if the file is missing, is damaged, or cannot be made valid, and if the disk reports an error. If
    `write` raises an exception, this function raises the same exception, and the file is unchanged.
    """
    added = encoder.encoded_by_sdk(write)
    if added:
        try:
            with path.open("r+b") as file:
                _append(file.fileno(), application_id, added)
        except (errors.FormatError, OSError) as error:
            raise SinkError(getattr(error, "errno", None), f"cannot add to {path}: {error}") from error
    recover.recover(path)


def _append(fd: int, application_id: str, added: bytes) -> None:
    """Cut the file behind its last whole message, and append the messages of the stream `added`.

    `fd` is a descriptor of the file, for reading and writing. The messages get the store id of the file's first
    recording. If the file has no store info of a recording, they get a new store id with `application_id`.

    Raises `FormatError` if the file has more than 12 bytes and is damaged or no Rerun file. Raises `OSError` if the
    disk reports an error.
    """

    def read(offset: int, size: int) -> bytes:
        return os.pread(fd, size, offset)

    size = os.fstat(fd).st_size
    frames: list[framing.Frame] = []
    if size > framing.HEADER_SIZE:
        framing.check_header(read(0, framing.HEADER_SIZE))
        frames, _ = framing.scan(read, framing.HEADER_SIZE, size)
    store = _recording(read, frames)
    fresh = store is None
    if store is None:
        store = store_id.store_id(application_id, secrets.token_hex(16))
    stream = relabel.relabelled(added, store, compat.store_info() if fresh else b"")
    own = framing.frames_of(stream)
    end = next((frame.start for frame in frames if frame.kind == framing.END), frames[-1].end if frames else 0)
    start = framing.HEADER_SIZE if end else 0
    os.ftruncate(fd, end)
    os.lseek(fd, end, os.SEEK_SET)
    view = memoryview(stream)[start : own[-1].start]
    while view:
        view = view[os.write(fd, view) :]


def _recording(read: framing.Read, frames: list[framing.Frame]) -> bytes | None:
    """Return the encoded store id of the first recording in the store infos among `frames`; None if there is none.

    `read` reads the file of `frames`.
    """
    for frame in frames:
        if frame.kind == framing.SET_STORE_INFO:
            store = store_id.store_id_of_info(read(frame.payload, frame.size))
            if store_id.is_recording(store):
                return store
    return None


def add_stream(path: Path, stream: bytes, store: bytes | None = None) -> None:
    """Add the encoded stream `stream`, such as a blueprint, to the file at `path`.

    `stream` and the file must have a footer. If `store` is given, which is the encoded id of a store in the file,
    `stream` is first relabelled to this store, and its store infos are left out. No other process may write the file
    meanwhile.

    Raises `FormatError` if the footer of the file or `stream` cannot be read, and `OSError` if the disk reports an
    error. To merge the manifests, the SDK may read chunks of the file. If it cannot read one, it raises an error of any
    type.
    """
    if store is not None:
        stream = relabel.relabelled(stream, store)
    *frames, last = framing.frames_of(stream)
    infos = [stream[each.payload : each.end] for each in frames if each.kind == framing.SET_STORE_INFO]
    if store is not None:
        frames = [each for each in frames if each.kind != framing.SET_STORE_INFO]
    with path.open("r+b") as file:
        maker = ManifestMaker(fd=file.fileno(), header=file.read(framing.HEADER_SIZE))
        for info in infos:
            maker.add_store(store_id.store_id_of_info(info), info)
        start, size = framing.footer_span(file)
        file.seek(start)
        manifests = manifest.parse(file.read(size))
        end = start - framing.FRAME_HEADER_SIZE
        file.seek(end)
        offsets = OffsetMap()
        for frame in frames:
            payload = stream[frame.payload : frame.end]
            if store is not None and frame.kind == framing.BLUEPRINT_ACTIVATION:
                # A viewer copies a blueprint when it becomes the active one. So it becomes the active one again.
                payload = protobuf.replace_field(payload, 1, store)
            offsets.add(frame.start, end)
            end += file.write(framing.frame_header(frame.kind, len(payload)) + payload)
        file.flush()
        added = [manifest.moved(each, offsets) for each in manifest.parse(stream[last.payload : last.end])]
        file.write(maker.closing(end, [*manifests, *added]))
        file.truncate()

"""Adds rows to an `.rrd` file that no process writes any more, and makes the file valid.

The file may be incomplete: its footer may be missing, or the end of its last message. A message is one frame of the
file (`framing.py`).

Covers: removing the footer or an incomplete message at the end, and appending messages.
Does not cover: making the new footer (`recover.py`).
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
from mpr.rrd.manifest import OffsetMap
from mpr.sdk import encoder

if TYPE_CHECKING:
    import rerun as rr


def append(path: Path, application_id: str, write: Callable[[rr.RecordingStream], None]) -> None:
    """Add the rows that `write` logs to the recording in the file at `path`. The file is valid afterwards.

    This function calls `write` with an `rr.RecordingStream`, to which `write` logs. If the file has no recording, for
    example because it is empty, the rows become a new recording with the application id `application_id`. No process
    may write the file meanwhile, because this function takes no lock while it adds rows.

    Raises `SinkError` if the file is missing or is not a Rerun file, or if the disk reports an error. If `write` raises
    an exception, this function raises the same exception, and the file is unchanged.
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

    `fd` is a descriptor of the file, for reading and writing. The footer of the file is removed, too. The appended
    messages get the store id of the file's recording. If the file has no recording, they get a new store id with
    `application_id`.

    Raises `FormatError` if the file is not a Rerun file, and `OSError` if the disk reports an error.
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
    """Return the encoded store id in the first store info among `frames`, or None if there is no store info."""
    for frame in frames:
        if frame.kind == framing.SET_STORE_INFO:
            payload = read(frame.payload, frame.size)
            return store_id.store_id_of_info(payload)
    return None


def add_stream(path: Path, stream: bytes) -> None:
    """Add the stores of the encoded stream `stream`, such as a blueprint, to the file at `path`.

    The file must have a footer, and `stream` too. The file must have none of these stores. No process may write the
    file meanwhile. Raises `FormatError` if the file or `stream` cannot be read, and `OSError` if the disk reports an
    error.
    """
    *frames, end = framing.frames_of(stream)
    with path.open("r+b") as file:
        start, size = framing.footer_span(file)
        file.seek(start)
        own = [each for number, each in protobuf.fields(file.read(size)) if number == 1 and isinstance(each, bytes)]
        start -= framing.FRAME_HEADER_SIZE
        offsets = OffsetMap()
        offsets.add(framing.HEADER_SIZE, start)
        added = [manifest.moved(each, offsets) for each in manifest.parse(stream[end.payload : end.end])]
        body = stream[framing.HEADER_SIZE : frames[-1].end]
        file.seek(start)
        file.write(body + framing.closing(start + len(body), [*own, *map(manifest.encode, added)]))
        file.truncate()


def add_to_store(path: Path, stream: bytes, store: bytes) -> None:
    """Add the chunks of the encoded stream `stream` to the store with the encoded id `store` in the file at `path`.

    The file must have a footer. No process may write the file meanwhile. Raises `FormatError` if the file or `stream`
    cannot be read, `OSError` if the disk reports an error, and `SinkError` if the file cannot be made valid again.
    """
    added = relabel.relabelled(stream, store)
    chunks = [added[each.start : each.end] for each in framing.frames_of(added) if each.kind == framing.ARROW_MSG]
    with path.open("r+b") as file:
        start, _ = framing.footer_span(file)
        file.seek(start - framing.FRAME_HEADER_SIZE)
        file.write(b"".join(chunks))
        file.truncate()
    recover.recover(path)

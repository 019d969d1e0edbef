"""Reads `.rrd` streams with the SDK's own reader."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr.sdk.memory_file import memory_file, path_of

if TYPE_CHECKING:
    import rerun as rr


def quiet_reader(path: str | Path) -> Any:
    """The SDK's reader of the file at `path`, which needs no footer. Raises where it does not like the file."""
    import rerun as rr

    with warnings.catch_warnings():
        # A missing footer, which is what this warns of, is no loss: the chunks are there.
        warnings.simplefilter("ignore", rr.error_utils.RerunWarning)
        return rr.chunk.RrdReader(path)


def chunks_of(data: bytes, *, blueprints: bool = True) -> Iterator[Any]:
    """The chunks of every store in `data`, the bytes of a stream with or without a footer."""
    for stream in _streams_of(data, blueprints=blueprints):
        yield from stream


def send_decoded(data: bytes, stream: rr.RecordingStream, *, blueprints: bool = True) -> None:
    """Log `chunks_of(data)` to `stream`, without that they pass through Python one by one."""
    import rerun as rr

    for chunks in _streams_of(data, blueprints=blueprints):
        rr.send_chunks(chunks, recording=stream)


def _streams_of(data: bytes, *, blueprints: bool) -> Iterator[Any]:
    """The SDK's stream of the chunks of each store."""
    with ReadableFile(data) as path:
        reader = quiet_reader(path)
        for entry in [*reader.recordings(), *(reader.blueprints() if blueprints else ())]:
            yield reader.stream(store=entry)


class ReadableFile:
    """`data` under a path that the SDK's reader can open, without touching a disk where the system allows that."""

    def __init__(self, data: bytes) -> None:
        import tempfile

        fd = memory_file("mpr-reader")
        self._unlink = fd is None
        self._fd, self._path = tempfile.mkstemp(suffix=".rrd") if fd is None else (fd, path_of(fd))
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def __enter__(self) -> str:
        return self._path

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        if self._unlink:
            os.unlink(self._path)


def refusal(path: Path) -> str | None:
    """What the SDK's reader has against the manifest of the file at `path`; None where it opens it."""
    try:
        reader = quiet_reader(path)
        for entry in reader.recordings():
            reader.store(store=entry)
    except Exception as error:  # noqa: BLE001  # whatever the SDK raises for a file that it does not like
        return str(error)
    return None

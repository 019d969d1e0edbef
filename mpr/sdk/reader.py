"""Reads `.rrd` streams with the SDK's own reader.

A stream has one or several stores. A store is one recording or one blueprint. A chunk is a table with rows of one
entity. The manifest is a table of the chunks of a store, at the end of a file.

Covers: reading in this process, which a broken file may abort.
Does not cover: reading in another process (`programs.py`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr import files
from mpr.sdk.internal import internal

if TYPE_CHECKING:
    import rerun as rr


def quiet_reader(path: str | Path) -> Any:
    """Return an `rr.chunk.RrdReader` of the file at `path`. The SDK prints no warning if the file has no footer.

    Raises the errors of the SDK. Raises `OSError` if `path` does not lead to a regular file, because the SDK would wait
    without limit at a FIFO.
    """
    import rerun as rr

    files.check_regular(Path(path), follow=True)
    with warnings.catch_warnings():
        # The reader warns of a missing footer, but it finds all chunks of a file without a footer.
        warnings.simplefilter("ignore", rr.error_utils.RerunWarning)
        return rr.chunk.RrdReader(path)


def chunks_of(data: bytes, *, blueprints: bool = True) -> Iterator[Any]:
    """Yield the chunks of every store in `data`, the bytes of a stream with or without a footer.

    If `blueprints` is false, the chunks of blueprints are left out. Raises the errors of the SDK's reader.
    """
    for stream in _streams_of(data, blueprints=blueprints):
        yield from stream


def send_decoded(data: bytes, stream: rr.RecordingStream, *, blueprints: bool = True) -> None:
    """Log the chunks of every store in `data` to `stream`, without a Python object for each chunk.

    If `blueprints` is false, the chunks of blueprints are left out. Raises the errors of the SDK's reader.
    """
    import rerun as rr

    with internal():
        for chunks in _streams_of(data, blueprints=blueprints):
            rr.send_chunks(chunks, recording=stream)


def _streams_of(data: bytes, *, blueprints: bool) -> Iterator[Any]:
    """Yield an iterator of the SDK over the chunks of each store in `data`, the bytes of an `.rrd` stream.

    Use each iterator before this generator ends. If `blueprints` is false, the stores of blueprints are left out.
    Raises the errors of the SDK's reader.
    """
    with ReadableFile(data) as path:
        reader = quiet_reader(path)
        for entry in [*reader.recordings(), *(reader.blueprints() if blueprints else ())]:
            yield reader.stream(store=entry)


def damage(data: bytes) -> str | None:
    """Return the error that the SDK raises when it decodes the stream `data`, as text; None if there is none.

    A `PanicException` of the SDK, which is no subclass of `Exception`, is not caught.
    """
    try:
        for _ in chunks_of(data):
            pass
    except Exception as error:  # noqa: BLE001  # the SDK raises errors of many types for a broken stream
        return str(error)
    return None


class ReadableFile:
    """A context manager that holds `data` as a file, because the SDK's reader can only open a path.

    `with ... as path` gives the path. The file is in memory if possible, and is closed at the end of the block.
    """

    def __init__(self, data: bytes) -> None:
        self._file = files.MemoryFile("mpr-reader")
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file.fd, view) :]
        except OSError:
            self._file.close()
            raise

    def __enter__(self) -> str:
        return self._file.path

    def __exit__(self, *_: object) -> None:
        self._file.close()


def refusal(path: Path) -> str | None:
    """Return the error that the SDK's reader raises for the manifest of the file at `path`; None if there is none.

    The error is a text. Only recordings are read, and not blueprints.
    """

    def read(reader: Any) -> None:
        for entry in reader.recordings():
            reader.store(store=entry)

    return _failure(path, read)


def unreadable(path: Path) -> str | None:
    """Return the error that the SDK's reader raises for the chunks of the file at `path`; None if there is none.

    The error is a text. Only recordings are read, and not blueprints.
    """

    def read(reader: Any) -> None:
        for entry in reader.recordings():
            for chunk in reader.stream(store=entry):
                chunk.to_record_batch()

    return _failure(path, read)


def _failure(path: Path, read: Callable[[Any], None]) -> str | None:
    try:
        read(quiet_reader(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  # the SDK raises errors of many types, also its `PanicException`
        return str(error) or type(error).__name__
    return None

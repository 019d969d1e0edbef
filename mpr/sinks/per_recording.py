"""The writer of a sink that is one file: that file, and a sibling for each recording that tasks made themselves.

Covers: which file a segment belongs to, the siblings' names, how many are open at a time.
Does not cover: how a file is written (`rrd/writer.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from mpr.errors import SinkError
from mpr.rrd import framing, store_id
from mpr.rrd.byte_log import ByteLog
from mpr.rrd.segment import Segment
from mpr.sinks.base import Writer

# What a file name that is made of a recording id has none of.
_UNUSUAL = re.compile(r"[^A-Za-z0-9_\-\[\].]")
_NAME_LENGTH = 100
# Each open file costs the parent a descriptor, of which it may have 1024 or fewer.
_OPEN_FILES_MAX = 64


class FileOfOneRecording(Protocol):
    """A writer of one file; its members are those of a `Writer` and `begin`."""

    @property
    def path(self) -> Path: ...

    @property
    def log(self) -> ByteLog | None: ...

    @property
    def name(self) -> str: ...

    @property
    def paths(self) -> Sequence[Path]: ...

    @property
    def published(self) -> bool: ...

    def open(self, preamble: bytes) -> None: ...

    def begin(self, header: bytes) -> None:
        """Begin without any properties, with nothing but a stream's header."""

    def accept(self, segment: Segment, *, published: bool) -> None: ...

    def add_manifests(self, outbox: int, footer: bytes) -> None: ...

    def rows_of(self, outbox: int, skip: int) -> int | None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


NewFile = Callable[[Path, str, str], FileOfOneRecording]
"""`new_file(path, application_id, recording_id)` opens a file for that recording."""


class PerRecordingWriter(Writer):
    """Writes the shared recording to `main`, and every other recording to a file beside it.

    Parameters
    ----------
    main:
        The writer of the shared recording.
    store:
        The encoded store id of the shared recording.
    new_file:
        Opens a sibling.
    """

    def __init__(self, main: FileOfOneRecording, store: bytes, new_file: NewFile) -> None:
        self._main = main
        self._store = store
        self._new_file = new_file
        self._header = b""
        self._open: dict[bytes, FileOfOneRecording] = {}
        self._by_outbox: dict[int, FileOfOneRecording] = {}
        # Also those that are finished.
        self._other_files: list[Path] = []
        self._names: dict[str, int] = {}

    @property
    def log(self) -> ByteLog | None:
        return self._main.log

    @property
    def name(self) -> str:
        return self._main.name

    @property
    def paths(self) -> Sequence[Path]:
        return [*self._main.paths, *self.other_files]

    @property
    def other_files(self) -> Sequence[Path]:
        return self._other_files

    @property
    def published(self) -> bool:
        return self._main.published

    def open(self, preamble: bytes) -> None:
        self._header = preamble[: framing.HEADER_SIZE]
        self._main.open(preamble)

    def accept(self, segment: Segment, *, published: bool) -> None:
        if segment.store is None or segment.store == self._store:
            self._main.accept(segment, published=published)
            return
        other_file = self._file_of(segment.store)
        self._by_outbox[segment.outbox] = other_file
        other_file.accept(segment, published=published)

    def add_manifests(self, outbox: int, footer: bytes) -> None:
        self._by_outbox.pop(outbox, self._main).add_manifests(outbox, footer)

    def rows_of(self, outbox: int, skip: int) -> int | None:
        return self._main.rows_of(outbox, skip)

    def close(self) -> None:
        failure = None
        for writer in (*self._open.values(), self._main):
            try:
                writer.close()
            except SinkError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def abort(self) -> None:
        for writer in (*self._open.values(), self._main):
            # What tasks have put into siblings is as good as ever.
            writer.abort()

    def _file_of(self, store: bytes) -> FileOfOneRecording:
        other_file = self._open.pop(store, None)
        if other_file is None:
            if len(self._open) >= _OPEN_FILES_MAX:
                # The one that has had no rows for longest; should more come for it, they get a file of their own.
                self._open.pop(next(iter(self._open))).close()
            application_id, recording_id = store_id.ids_of_store(store)
            path = self._path(recording_id)
            other_file = self._new_file(path, application_id, recording_id)
            other_file.begin(self._header)
            self._other_files.append(path)
        self._open[store] = other_file
        return other_file

    def _path(self, recording_id: str) -> Path:
        """A name beside the main file that no other sibling has."""
        main = self._main.path
        name = f"{main.stem}-{_UNUSUAL.sub('_', recording_id)[:_NAME_LENGTH]}"
        count = self._names[name] = self._names.get(name, 0) + 1
        return main.with_name(f"{name}-{count}{main.suffix}" if count > 1 else f"{name}{main.suffix}")

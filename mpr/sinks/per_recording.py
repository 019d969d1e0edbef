"""Writes the shared recording to one file or folder, and each recording that tasks make themselves to another file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from mpr.rrd import framing, store_id
from mpr.rrd.byte_log import ByteLog
from mpr.rrd.segment import Segment
from mpr.sinks.base import Writer
from mpr.sinks.file_router import FileRouter, RoutedFile

# The characters of a recording id that are replaced in a file name.
_UNUSUAL = re.compile(r"[^A-Za-z0-9_\-\[\].]")
# A recording id takes up to this many characters of a file name.
_NAME_LENGTH = 100
# The most files of other recordings that are open at the same time. Each open file takes a descriptor, and the parent
# may be allowed to have only 1024 descriptors or fewer.
_OPEN_FILES_MAX = 64


class MainFile(RoutedFile, Protocol):
    """The interface of the file or folder of the shared recording. All members but `path` are as in a `Writer`.

    `path` is the path of this file. For a folder, it is the file in the folder with the rows that belong to no task.
    The files of other recordings are beside the file `path`, and their names begin with its name.
    """

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

    def rows_of(self, outbox: int, skip: int, *, users_only: bool = True) -> int | None: ...

    def timed_rows(self) -> int | None: ...

    def distrust(self) -> None: ...


class OneFile(MainFile, Protocol):
    """The interface of a file for the shared recording, or for another recording.

    For the shared recording, `open` is called first. For another recording, `begin` is called first, because the
    preamble has only the properties of the shared recording.
    """

    def begin(self, header: bytes) -> None:
        """Begin the file with `header`, the header of a stream, and without properties of a recording."""


NewFile = Callable[[Path, str, str], OneFile]
"""The type of a function `new_file(path, application_id, recording_id)`, which opens a file for that recording."""


class PerRecordingWriter(Writer):
    """Writes the shared recording to `main`, and every other recording to at least one other file in the same folder.

    At most 64 other files are open at the same time. If another recording gets rows after its file was closed, it gets
    one more file.

    Parameters
    ----------
    main:
        The file or folder of the shared recording.
    store:
        The encoded store id of the shared recording.
    new_file:
        Opens the file of another recording.
    """

    def __init__(self, main: MainFile, store: bytes, new_file: NewFile) -> None:
        self._main = main
        self._store = store
        self._new_file = new_file
        self._header = b""
        self._router = FileRouter(main, self._other_store, self._open_file, open_max=_OPEN_FILES_MAX)
        # The files of other recordings, also those that are closed.
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
        return [*self._main.paths, *self._other_files]

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
        self._router.accept(segment, published=published)

    def add_manifests(self, outbox: int, footer: bytes) -> None:
        self._router.add_manifests(outbox, footer)

    def rows_of(self, outbox: int, skip: int, *, users_only: bool = True) -> int | None:
        return self._main.rows_of(outbox, skip, users_only=users_only)

    def timed_rows(self) -> int | None:
        return self._main.timed_rows()

    def distrust(self) -> None:
        self._main.distrust()

    def close(self) -> None:
        self._router.close()

    def abort(self) -> None:
        self._router.abort()

    def _other_store(self, segment: Segment) -> bytes | None:
        return None if segment.store == self._store else segment.store

    def _open_file(self, store: bytes) -> OneFile:
        application_id, recording_id = store_id.ids_of_store(store)
        path = self._path(recording_id)
        file = self._new_file(path, application_id, recording_id)
        try:
            file.begin(self._header)
        except BaseException:
            file.abort()
            raise
        self._other_files.append(path)
        return file

    def _path(self, recording_id: str) -> Path:
        """Return a new path for the file of the recording `recording_id`, in the folder of the main file.

        A number is added to the name if an earlier file has this name.
        """
        main = self._main.path
        name = f"{main.stem}-{_UNUSUAL.sub('_', recording_id)[:_NAME_LENGTH]}"
        count = self._names[name] = self._names.get(name, 0) + 1
        return main.with_name(f"{name}-{count}{main.suffix}" if count > 1 else f"{name}{main.suffix}")

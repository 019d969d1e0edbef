"""Gives each segment to one of several files, by a key: the recording or the task that the segment belongs to.

A segment is a piece of an encoded Rerun stream (`rrd/segment.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from mpr.errors import SinkError
from mpr.rrd.segment import Segment

K = TypeVar("K", bound=Hashable)


class RoutedFile(Protocol):
    """The interface of a file that gets some of the segments. The methods do the same as in a `Writer` (`base.py`)."""

    def accept(self, segment: Segment, *, published: bool) -> None: ...

    def add_manifests(self, outbox: int, footer: bytes) -> bool | None:
        """Add the manifests at the end of outbox number `outbox`. `footer` is the payload of its `END` frame.

        Returns True if the file is complete and has to be closed, and False or None if not.
        """

    def close(self) -> None: ...

    def abort(self) -> None: ...


class FileRouter(Generic[K]):
    """Gives each segment to one of several files. The key of the segment decides which file.

    Parameters
    ----------
    main:
        The file for segments without a key.
    key_of:
        Returns the key of a segment, or None if the segment has no key.
    new_file:
        Opens the file for a key.
    open_max:
        The largest number of files that may be open besides `main`, or None for any number. At this limit, the file
        that has got no segment for the longest time is closed before another one is opened. If a later segment has the
        key of the closed file, `new_file` opens another file for this key.
    """

    def __init__(
        self,
        main: RoutedFile,
        key_of: Callable[[Segment], K | None],
        new_file: Callable[[K], RoutedFile],
        *,
        open_max: int | None = None,
    ) -> None:
        self._main = main
        self._key_of = key_of
        self._new_file = new_file
        self._open_max = open_max
        # The open files. The file that has got nothing for the longest time comes first.
        self._open: dict[K, RoutedFile] = {}
        # Per outbox: the files that its segments went to, by the key of the segments. None if one of these files is
        # closed. The manifests of the outbox then describe no other file alone, and the SDK makes new ones.
        self._by_outbox: dict[int, dict[K | None, RoutedFile | None]] = {}

    def accept(self, segment: Segment, *, published: bool) -> None:
        """Give `segment` to the file of its key. If the file is not open, open it first.

        Raises `SinkError` if the file cannot be opened or written, or if another file has to be closed for it and
        cannot be finished.
        """
        key = self._key_of(segment)
        file = self._main if key is None else self._file_of(key)
        files = self._by_outbox.setdefault(segment.outbox, {})
        if files.setdefault(key, file) is not file:
            files[key] = None
        file.accept(segment, published=published)

    def add_manifests(self, outbox: int, footer: bytes) -> None:
        """Give the manifests of outbox number `outbox` to each file that has segments of this outbox.

        `footer` is the payload of the `END` frame of the outbox. If a file for a key was closed meanwhile, no file for
        this key gets the manifests. Files that are now complete are closed.
        """
        for key, file in self._by_outbox.pop(outbox, {}).items():
            if file is not None and file.add_manifests(outbox, footer) and key is not None:
                self._close(key)

    def close(self) -> None:
        """Close all files, even if one of them raises `SinkError`. Afterwards, raise the first such error, if any."""
        failure = None
        for file in (*self._open.values(), self._main):
            try:
                file.close()
            except SinkError as error:
                failure = failure or error
        self._open.clear()
        if failure is not None:
            raise failure

    def abort(self) -> None:
        """End all files without finishing them. Files that do not have their final names yet are removed."""
        for file in (*self._open.values(), self._main):
            file.abort()
        self._open.clear()

    def _file_of(self, key: K) -> RoutedFile:
        file = self._open.pop(key, None)
        if file is None:
            if self._open_max is not None and len(self._open) >= self._open_max:
                self._close(next(iter(self._open)))
            file = self._new_file(key)
        self._open[key] = file
        return file

    def _close(self, key: K) -> None:
        for files in self._by_outbox.values():
            if key in files:
                files[key] = None
        self._open.pop(key).close()

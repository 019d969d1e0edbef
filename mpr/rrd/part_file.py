"""Gives a new file its first name, `.<name>.part`, a lock, and later its final name.

Covers: the interface of a file for `FileWriter`, and the file on the disk.
Does not cover: the contents of the file (`writer.py`), and a file that is in memory at first
(`sinks/binary_stream.py`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import weakref
from pathlib import Path
from typing import Protocol

from mpr import files
from mpr.errors import SinkError
from mpr.rrd import framing


class OutputFile(Protocol):
    """The interface of a file to which a `FileWriter` writes. `fd` is a descriptor for reading and writing."""

    fd: int

    @property
    def stays(self) -> bool:
        """True if `fd` leads to the same file until `close`. False if the bytes may move to another file.

        If True, another process can read the file by a copy of `fd`.
        """

    def reader(self) -> tuple[framing.Read, int | None]:
        """Return a function that reads the file, and the size of the file in bytes.

        The function works also after `close`. The size is None, unless the file is closed and may have been written
        anew. Raises `OSError` if the file cannot be opened.
        """

    @property
    def published(self) -> bool:
        """True if the file has its final name, or if other code may already read the file in another way."""

    def publish(self) -> None:
        """Give the file its final name. Do nothing if the file has its final name already, or gets none.

        Raises `OSError` if the file cannot get the name.
        """

    def check(self, size: int) -> None:
        """Raise `OSError` if it is known that the file does not have the `size` bytes that were written.

        A file in memory may move to the disk in this call. Also raises `OSError` if the move fails.
        """

    def cut(self, size: int) -> None:
        """Drop all bytes behind the first `size` bytes, if possible. Later bytes are written there. Raises nothing."""

    def close(self) -> None:
        """Close the descriptor, release the lock, and remove the file if it has not got its final name.

        The file of a `BinaryStreamSink` does nothing in this call, because readers still need it. Raises `OSError` if
        the file cannot be removed.
        """


class TakenAwayError(OSError):
    """Raised if another program has removed or replaced the file that is being written, or has changed its size.

    `FileWriter` raises `SinkError` in its place.
    """


class PartFile:
    """An `OutputFile` that is named `.<name>.part` until it gets its final name. Other recordings of mpr cannot use it.

    A `.part` file that a killed process has left is used again, and its contents are lost.

    Parameters
    ----------
    path:
        The final path. If it is a link, the file that the link leads to is replaced, and the link stays.

    Attributes
    ----------
    path:
        The final path. If the given path is a link, this is the path of the file that the link leads to.
    part:
        The path of the file until it gets its final name.

    Raises
    ------
    SinkError
        If the file cannot be made, if the file at `path` cannot be opened for writing, if another recording writes
        it, or if `.<name>.part` is no regular file or has another name (a hard link).
    """

    stays = True

    def __init__(self, path: Path) -> None:
        try:
            self.path: Path = files.without_link(path)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                files.check_regular(self.path, follow=False)
        except OSError as error:
            raise SinkError(error.errno, f"cannot replace {path}: {error.strerror}") from error
        self.part: Path = self.path.with_name(f".{self.path.name}.part")
        self.published: bool = False
        self._is_closed = False
        self.fd: int = self._open_part()
        try:
            self._check_target()
            if os.fstat(self.fd).st_size:
                # A new file is not truncated. ext4 treats a truncated file as a replacement, and writes its data to the
                # disk at `close`, which takes time.
                os.ftruncate(self.fd, 0)
        except BaseException:
            fd, self.fd = self.fd, -1
            os.close(fd)
            raise

    def _open_part(self) -> int:
        """Open and lock the `.part` file, and return its descriptor. Make the file if it is missing.

        Raises `SinkError` if the file cannot be used, or if another recording has locked it.
        """
        while True:
            try:
                fd = files.open_regular(self.part, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise self._no_part(error) from error
            try:
                self._lock(fd)
                found = os.fstat(fd)
                if found.st_nlink > 1:
                    raise self._no_part(OSError(errno.EEXIST, "it has a second name, whose contents would be lost"))
                # Another process may have given the file its final name, or removed it, before it was locked here.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(found, os.lstat(self.part)):
                        return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _no_part(self, error: OSError) -> SinkError:
        if os.path.lexists(self.part):
            text = f"cannot use {self.part} for writing {self.path.name}: {error.strerror}; remove it"
        else:
            text = f"cannot write into the folder of {self.path}: {error.strerror}"
        return SinkError(error.errno, text)

    def _lock(self, fd: int) -> None:
        try:
            files.lock(fd)
        except BlockingIOError as error:
            raise SinkError(
                error.errno, f"{self.path} is being written by another recording: give each its own path"
            ) from error
        except OSError as error:
            raise SinkError(error.errno, f"cannot write {self.path}: {error.strerror}") from error

    def _check_target(self) -> None:
        """Raise `SinkError` if the file at the final path cannot be opened, or if another recording writes it.

        The file is opened for reading and writing. A missing file is no error. Before the error is raised, the `.part`
        file is removed.
        """
        try:
            target = files.open_regular(self.path, os.O_RDWR)
        except FileNotFoundError:
            return
        except OSError as error:
            self.part.unlink(missing_ok=True)
            raise SinkError(error.errno, f"cannot replace {self.path}: {error.strerror}") from error
        try:
            self._lock(target)
        except SinkError:
            self.part.unlink(missing_ok=True)
            raise
        finally:
            os.close(target)

    def publish(self) -> None:
        if not self.published:
            with contextlib.suppress(FileNotFoundError):
                # Another program may have put something else there meanwhile, such as a folder, which must not be
                # replaced.
                files.check_regular(self.path, follow=False)
            os.replace(self.part, self.path)
            self.published = True

    def check(self, size: int) -> None:
        """Raise `TakenAwayError` if another program has removed the file, has replaced it, or has changed its size.

        `size` is the number of bytes that were written.
        """
        found = os.fstat(self.fd)
        if not found.st_nlink:
            raise TakenAwayError(errno.ENOENT, "it was removed or replaced while it was written")
        if found.st_size != size:
            raise TakenAwayError(errno.EIO, f"of the {size} bytes that were written, it has {found.st_size}")

    def cut(self, size: int) -> None:
        """Drop all bytes behind the first `size` bytes, if the disk allows this. Raises nothing."""
        # If another program has cut the file shorter, it must not grow again, because zeros would fill the gap.
        with contextlib.suppress(OSError):
            if os.fstat(self.fd).st_size > size:
                os.ftruncate(self.fd, size)
            os.lseek(self.fd, size, os.SEEK_SET)

    def reader(self) -> tuple[framing.Read, int | None]:
        is_closed = self._is_closed
        # The reader has its own descriptor, because `close` closes `fd`. After `close`, the file is opened by its path,
        # because a compact file may have replaced it.
        held = _HeldFile(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC) if is_closed else os.dup(self.fd))
        return held.read, os.fstat(held.fd).st_size if is_closed else None

    def close(self) -> None:
        self._is_closed = True
        try:
            if not self.published:
                self.part.unlink(missing_ok=True)
        finally:
            self._release()

    def _release(self) -> None:
        fd, self.fd = self.fd, -1
        # Errors are ignored, because the rows are in the file already, and a disk that has failed once may fail again.
        with contextlib.suppress(OSError):
            # Unlock explicitly, because a process that was forked meanwhile has the descriptor too.
            fcntl.flock(fd, fcntl.LOCK_UN)
        with contextlib.suppress(OSError):
            os.close(fd)


class _HeldFile:
    """Reads the file of the descriptor `fd`, and closes `fd` when nothing refers to this object any more.

    At the exit of the interpreter, `fd` stays open.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        # Not at the exit of the interpreter, because a recording that is closed at the exit may still read.
        weakref.finalize(self, os.close, fd).atexit = False

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.fd, size, offset)

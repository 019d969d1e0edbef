"""Makes outboxes: files in memory, into which a producer's SDK writes rows, and from which the parent copies them.

The parent *releases* the bytes that it has read: it frees their memory, but the file keeps its size. If the system has
no files in memory (see `files.py`), an outbox is an ordinary file in the recording's private folder.

Covers: making an outbox, its size, reading it from another process, releasing bytes that were read.
Does not cover: the frames in an outbox (`rrd/framing.py`), and how far it was written (`producer/outbox_writer.py`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

from mpr.errors import FormatError, ReleasedError
from mpr.transport import shared_file

# The size of a page of memory (bytes).
_PAGE = 4096
# linux/falloc.h: FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_PUNCH_HOLE = 0x01 | 0x02
# An offset behind the end of every outbox.
_BEYOND = 1 << 40


class Outbox:
    """A new outbox, in the process that writes it: a file, into which the SDK's file sink writes rows.

    Parameters
    ----------
    folder:
        The private folder of the recording. If the system has no files in memory, the file is made there.

    Attributes
    ----------
    path:
        The path that the SDK uses in this process.
    address:
        The address by which another process of the same user opens the file.
    fd:
        The descriptor of the file; -1 after `close`.
    """

    def __init__(self, folder: Path) -> None:
        self._file, address = shared_file.new_shared(folder)
        self.address: str = address
        self.fd: int = self._file.fd
        self.path: str = self._file.path
        # The offset up to which bytes were released, if the system cannot free their memory. None if it can.
        self._released: int | None = None

    def size(self) -> int:
        """Return the number of bytes written until now, also released ones. The last frame may be incomplete."""
        return os.fstat(self.fd).st_size

    def held_bytes(self) -> int:
        """Return how many bytes were written and not yet released. The number may be rounded to whole pages."""
        found = os.fstat(self.fd)
        return found.st_blocks * 512 if self._released is None else found.st_size - self._released

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on. Raises `ReleasedError` if the byte at `offset` was released."""
        data = os.pread(self.fd, size, offset)
        # Checked after the read, because the parent may release bytes at any moment.
        if data and self.is_released(offset):
            raise ReleasedError(f"the bytes from {offset} on were released")
        return data

    def release(self, start: int, end: int) -> None:
        """Release the memory of the bytes from `start` to `end`, in whole pages (see `punch_hole`).

        If the system cannot free this memory, `held_bytes` no longer counts the bytes before `end`.
        """
        if not punch_hole(self.fd, start, end):
            # The bytes stay until the file is closed, but `held_bytes` no longer counts them.
            self._released = max(end, self._released or 0)

    def is_released(self, offset: int) -> bool:
        """Return True if the byte at `offset` was released, by this process or another one, or was never written."""
        try:
            return os.lseek(self.fd, offset, os.SEEK_DATA) > offset
        except OSError:
            # ENXIO: there is no data from `offset` on.
            return True

    def close(self) -> None:
        """Close the file in this process. Its memory remains as long as another process has the file open."""
        self.fd = -1
        self._file.close()


class OutboxReader:
    """Reads an outbox of another process, in the parent.

    The kernel returns zeros for released bytes. So this object remembers which bytes it has released, and raises
    `ReleasedError` if they are read.
    """

    # The end of the released bytes. A subclass that releases nothing need not set it.
    _released = 0

    def __init__(self, address: str, folder: Path) -> None:
        """Open the outbox at `address`. `folder` is the private folder of the recording.

        Raises `OSError` if this process cannot open the file, or if the system cannot release bytes of it.
        """
        self.fd: int = shared_file.open_shared(address, folder)
        # Try whether memory can be released, behind the end of the file, because the file may already have rows.
        if not punch_hole(self.fd, _BEYOND, _BEYOND + _PAGE):
            self.close()
            raise OSError(errno.EOPNOTSUPP, "the system cannot release a part of a file")

    def size(self) -> int:
        """Return the number of bytes written until now, also released ones. The last frame may be incomplete."""
        return os.fstat(self.fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on. Raises `ReleasedError` if the byte at `offset` was released."""
        self._check(offset)
        return os.pread(self.fd, size, offset)

    def copy(self, target: int, offset: int, size: int) -> None:
        """Have the kernel copy `size` bytes, from `offset` on, to the file descriptor `target`.

        Raises `FormatError` if the outbox has fewer bytes, `ReleasedError` if the byte at `offset` was released, and
        `OSError` if `target` cannot be written.
        """
        self._check(offset)
        while size:
            try:
                # At most 32 MiB per call, because a signal cannot interrupt the kernel during a call.
                done = os.sendfile(target, self.fd, offset, min(size, 32 << 20))
            except OSError as error:
                # Copy through Python if this system or `target` does not support `sendfile` from a file.
                if error.errno not in _NO_SENDFILE:
                    raise
                done = os.write(target, os.pread(self.fd, min(size, 1 << 20), offset))
            if not done:
                raise FormatError(f"an outbox ends {size} bytes too early")
            offset += done
            size -= done

    def is_whole(self, start: int, end: int) -> bool:
        """Return True if the outbox has all bytes from `start` up to, but without, `end`, and none of them is released.

        If the system cannot find released bytes, only the size of the file is checked.
        """
        return shared_file.is_whole(self.fd, start, end)

    def held_bytes(self) -> int:
        """Return how many bytes were written and not yet released. The number may be rounded to whole pages."""
        return os.fstat(self.fd).st_blocks * 512

    def release(self, start: int, end: int) -> None:
        """Release the memory of the bytes from `start` to `end`, in whole pages (see `punch_hole`).

        All bytes before `end` count as released, also those in the last page.
        """
        punch_hole(self.fd, start, end)
        self._released = max(self._released, end)

    def _check(self, offset: int) -> None:
        if offset < self._released:
            raise ReleasedError(f"the bytes from {offset} to {self._released} were released")

    def close(self) -> None:
        """Close the parent's descriptor of the file. The memory remains if the producer still has the file open."""
        fd, self.fd = self.fd, -1
        os.close(fd)


def punch_hole(fd: int, start: int, end: int) -> bool:
    """Free the memory of the file `fd` from byte `start` to byte `end`, in whole pages of 4096 bytes.

    The page with byte `end` is not freed. The page with byte `start` is freed completely, unless byte `end` is in it.
    The size of the file does not change. Returns False if the system cannot free a part of a file, and else True.
    """
    first = start & ~(_PAGE - 1)
    last = end & ~(_PAGE - 1)
    if _fallocate is None:
        return False
    return last <= first or _fallocate(fd, _PUNCH_HOLE, first, last - first) == 0


def _load_fallocate() -> ctypes._NamedFuncPointer | None:
    if sys.platform != "linux":
        return None
    # Python has no binding for fallocate(2) with flags. `CDLL` releases the GIL during the call.
    function = ctypes.CDLL(None, use_errno=True).fallocate
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return function


_fallocate = _load_fallocate()
# The errors by which `sendfile` says that it is not supported. Sandboxes answer EPERM, EACCES or ENOSYS.
_NO_SENDFILE = {getattr(errno, name) for name in ("EINVAL", "ENOSYS", "ENOTSOCK", "EOPNOTSUPP", "EPERM", "EACCES")}

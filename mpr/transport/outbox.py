"""Makes outboxes: files in memory that a worker's SDK writes, and from which the parent copies.

Covers: making an outbox, its size, reading it from another process, releasing bytes that were read.
Does not cover: the frames in an outbox (`rrd/framing.py`), and how far it was written (`producer/outbox_writer.py`).

The SDK encodes in a thread of its own and writes each message with one `write`. So no byte of a row passes through
Python in the worker. The parent opens the same file (`shared_file.py`), and lets the kernel copy from the file
(`sendfile`). Then the parent punches holes where it has read. The bytes that the file still holds in memory are on the
way to the sinks. These bytes count against the worker's credit. If a worker is killed, the bytes that it has written
remain. On a system without memory files (macOS) an outbox is an ordinary file in the recording's private folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

from mpr.errors import FormatError
from mpr.transport import shared_file

_PAGE = 4096
# linux/falloc.h: FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_PUNCH_HOLE = 0x01 | 0x02


class Outbox:
    """The worker's end of an outbox: a file for the SDK's file sink.

    Attributes
    ----------
    path:
        The path that the SDK uses in this process.
    address:
        The address by which another process of the same user opens the file, and proves that it is this file.
    """

    def __init__(self, folder: Path) -> None:
        if sys.platform == "linux":
            self.fd, self.address = shared_file.new_memory_file()
            self.path = f"/proc/self/fd/{self.fd}"
        else:
            self.path = self.address = str(folder / f"outbox-{os.getpid()}-{os.urandom(4).hex()}.rrd")
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def size(self) -> int:
        """Return the number of bytes written until now. The last message may still be incomplete."""
        return os.fstat(self.fd).st_size

    def held_bytes(self) -> int:
        """Return the number of bytes that the file occupies: those written and not yet released."""
        return os.fstat(self.fd).st_blocks * 512

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on. Released bytes are returned as zeros."""
        return os.pread(self.fd, size, offset)

    def release(self, start: int, end: int) -> None:
        """Release the memory of the whole pages within `[start, end)`."""
        punch_hole(self.fd, start, end)

    def is_released(self, offset: int) -> bool:
        """Whether the memory at `offset` was released, by this process or by another one."""
        try:
            return os.lseek(self.fd, offset, os.SEEK_DATA) > offset
        except OSError:
            # ENXIO: there is no data from `offset` on.
            return True

    def close(self) -> None:
        """Close the file. Its memory remains as long as another process has the file open."""
        fd, self.fd = self.fd, -1
        os.close(fd)
        if sys.platform != "linux":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)


class OutboxReader:
    """The parent's end of an outbox: reads the file of another process."""

    def __init__(self, address: str, folder: Path) -> None:
        """Open the outbox at `address`. Raises `OSError` if this process may not or cannot open it."""
        self.fd = shared_file.open_shared(address, folder)

    def size(self) -> int:
        """Return the number of bytes written until now. The last message may still be incomplete."""
        return os.fstat(self.fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on. Released bytes are returned as zeros."""
        return os.pread(self.fd, size, offset)

    def copy(self, target: int, offset: int, size: int) -> None:
        """Have the kernel copy `size` bytes, from `offset` on, to the file descriptor `target`.

        Raises `FormatError` if the outbox has fewer bytes, because its producer has damaged it.
        """
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
        """Whether the file has bytes everywhere in `[start, end)`, none of which was released."""
        return shared_file.is_whole(self.fd, start, end)

    def held_bytes(self) -> int:
        """Return the number of bytes that the file occupies: those written and not yet released."""
        return os.fstat(self.fd).st_blocks * 512

    def release(self, start: int, end: int) -> None:
        """Release the memory of the whole pages within `[start, end)`."""
        punch_hole(self.fd, start, end)

    def close(self) -> None:
        """Close the parent's end."""
        fd, self.fd = self.fd, -1
        os.close(fd)


def punch_hole(fd: int, start: int, end: int) -> None:
    """Free the whole pages within `[start, end)` of a memory file. Does nothing on systems other than Linux."""
    first = start & ~(_PAGE - 1)
    last = end & ~(_PAGE - 1)
    if _fallocate is not None and last > first:
        _fallocate(fd, _PUNCH_HOLE, first, last - first)


def _load_fallocate() -> ctypes._NamedFuncPointer | None:
    if sys.platform != "linux":
        return None
    # Python has no binding for fallocate(2) with flags. `CDLL` releases the GIL during the call.
    function = ctypes.CDLL(None, use_errno=True).fallocate
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return function


_fallocate = _load_fallocate()
# EINVAL, ENOSYS, ENOTSOCK: the errors by which `sendfile` says that it is not supported.
_NO_SENDFILE = (22, 38, 88)

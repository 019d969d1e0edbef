"""Makes files in memory that another process opens, and checks that this process has opened the right file.

The address of a file in memory is a path such as `/proc/7/fd/9`, and a random name. The path alone is not enough,
because process 7 may be another process in another container. So the parent checks the name and the user of the file
before it opens the file.

Files in memory are *sealed*: they cannot become smaller. If a mapped file became smaller, reading behind its end would
kill the parent (SIGBUS).

Covers: sealed files in memory, the address of a file, opening a file by its address, finding missing bytes in a file.
Does not cover: the bytes in the files (`outbox.py`, `status_page.py`, `result_journal.py`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from mpr import files
from mpr.files import MemoryFile

_MEMORY = re.compile(r"(?P<path>/proc/[0-9]{1,10}/fd/[0-9]{1,10})#(?P<name>mpr-outbox-[0-9a-f]{32})")
_IN_FOLDER = re.compile(r"outbox-[0-9a-f]{32}-[0-9]+-[0-9a-f]+\.rrd")


def new_shared(folder: Path) -> tuple[MemoryFile, str]:
    """Make an empty file that another process of this user can open. Returns the file, and its address.

    If the system has no files in memory, it is an ordinary file in `folder`, the private folder of the recording.
    Raises `OSError` if neither kind can be made.
    """
    name = f"mpr-outbox-{secrets.token_hex(16)}"
    file = MemoryFile(name, folder, is_sealed=True)
    return file, f"/proc/{os.getpid()}/fd/{file.fd}#{name}" if file.in_memory else file.path


def open_shared(address: str, folder: Path) -> int:
    """Open the file at `address`, which `new_shared` has made. Returns a descriptor for reading and freeing memory.

    `folder` is the private folder of the recording. Raises `OSError` if there is no such file, if the file fails a
    check of its name, user or seal, or if another reader has the file open.
    """
    found = _MEMORY.fullmatch(address)
    if found is not None:
        return _open_memory(found["path"], found["name"])
    path = Path(address)
    if path.parent != folder or not _IN_FOLDER.fullmatch(path.name):
        raise PermissionError(f"not the address of an outbox: {address!r}")
    # `O_NONBLOCK`, because a pipe or a device could have this name, and opening it could wait.
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    return _checked(fd, lambda: _check_owner(fd, links=1))


def _open_memory(path: str, name: str) -> int:
    assert sys.platform == "linux"
    # `O_PATH` looks without opening, because opening can have effects: on a device, a pipe, or a file with a lease.
    seen = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if os.readlink(f"/proc/self/fd/{seen}") != f"/memfd:{name} (deleted)":
            raise PermissionError(f"{path} is not the memory file {name}")
        _check_owner(seen, links=0)
        # Opened for writing too, because the kernel frees parts of a file only through a writable descriptor.
        fd = os.open(f"/proc/self/fd/{seen}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(seen)

    def check() -> None:
        if not is_sealed(fd):
            raise PermissionError(f"the memory file {name} is not sealed")
        _check_owner(fd, links=0)

    return _checked(fd, check)


def has_ended(pid: int) -> bool:
    """Return True if the process `pid` of this user has ended, even if its parent has not waited for it yet."""
    try:
        # A process that has ended has no descriptors.
        return sys.platform == "linux" and not os.listdir(f"/proc/{pid}/fd")
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ESRCH)


def is_sealed(fd: int) -> bool:
    """Return True if `fd` is a memory file that cannot become smaller. Returns False if the system is not Linux.

    mpr maps no other file of another process: if a mapped file became smaller, reading the memory behind its end would
    kill the reader (SIGBUS).
    """
    if sys.platform != "linux":
        return False
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:
        # EINVAL: it is no memory file.
        return False


def is_whole(fd: int, start: int, end: int) -> bool:
    """Return True if the file `fd` has all bytes from `start` up to, but without, `end`, and none of them is released.

    If the system cannot find released bytes, only the size of the file is checked.
    """
    if start >= end:
        return True
    if sys.platform == "linux":
        try:
            return os.lseek(fd, start, os.SEEK_HOLE) >= end
        except OSError as error:
            if error.errno == errno.ENXIO:
                return False
    return os.fstat(fd).st_size >= end


def _checked(fd: int, check: Callable[[], None]) -> int:
    """Lock and return `fd` if `check` raises no error. If `check` raises, close `fd`, and raise the error.

    Raises `BlockingIOError` if another reader has locked the file.
    """
    try:
        check()
        # The lock ends when `fd` is closed. If another reader has the same file open, this raises `BlockingIOError`.
        files.lock(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_owner(fd: int, *, links: int) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != links:
        raise PermissionError("it is no file of this user that only its address leads to")

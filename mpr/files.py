"""Opens and makes files, and refuses links, FIFOs and devices that another user may have put at their paths.

Another user can do this in a folder such as `/tmp`, to which every user may write. Without the refusal, mpr would write
into another file, or wait for ever.

Covers: opening regular files only, temporary files beside a file, files in memory.
Does not cover: the contents of the files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# The kinds of files that are not regular, in words.
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
# A temporary file beside another file has the first characters of this file's name in its own name, up to this number.
# It must not be larger, because a name may have 255 bytes, and a character may need 4 bytes.
_NAME_LENGTH = 50


# --- regular files --------------------------------------------------------------------------------------------------


def odd_kind(path: Path) -> str | None:
    """Return the kind of the file at `path` in words, such as 'a folder'. Links are followed.

    Returns None if the file is a regular file, if there is no file, or if the system does not say its kind.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "of an unknown kind")


def check_regular(path: Path, *, follow: bool) -> None:
    """Raise `OSError` if there is no regular file at `path`.

    If `follow` is true, a link to a regular file is allowed.
    """
    _check_mode(os.stat(path, follow_symlinks=follow).st_mode)


def _check_mode(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "of an unknown kind")
        raise OSError(errno.EINVAL, f"it is {kind}, and not a regular file")


def open_regular(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open the regular file at `path`, and return the descriptor. `flags` and `mode` are as in `os.open`.

    Raises `OSError` if the file cannot be opened, is a link, or is not regular. The kind of an existing file is checked
    before it is opened, because opening a device may have effects.
    """
    with contextlib.suppress(FileNotFoundError):
        check_regular(path, follow=False)
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
    try:
        _check_mode(os.fstat(fd).st_mode)
    except OSError:
        os.close(fd)
        raise
    return fd


def without_link(path: Path) -> Path:
    """Return the absolute path of `path`. If `path` is a link, return the path of its target.

    Raises `OSError` if another user may have made the link to mislead this user. The link is then in a folder such as
    `/tmp`, and belongs neither to this user nor to the owner of the folder.
    """
    absolute = Path(os.path.abspath(path))
    try:
        found = os.lstat(absolute)
    except OSError:
        return absolute
    if not stat.S_ISLNK(found.st_mode):
        return absolute
    folder = absolute.parent.stat()
    is_shared = folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH
    if is_shared and found.st_uid not in (os.geteuid(), folder.st_uid):
        raise OSError(errno.EACCES, "it is a link of another user in a folder that every user may write to")
    return Path(os.path.realpath(absolute))


def lock(fd: int) -> None:
    """Lock the file `fd`, until `fd` and its copies are closed.

    Raises `BlockingIOError` if the file is locked already. Raises `OSError` with a text that says what to do if the
    file system cannot lock it.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"its file system cannot lock files ({error.strerror}): use a folder on a local disk, or have the file "
            "system mounted with locks (for Lustre: with the option `flock`)",
        ) from error


# --- temporary files ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def temporary_beside(path: Path, ending: str, mode: int = 0o600) -> Iterator[tuple[int, Path]]:
    """A context manager that makes an empty file in the folder of `path`, and yields its descriptor and its path.

    The file has the permissions `mode`, and a random name that ends with `ending`. It is removed after the block,
    unless the block has renamed it. Files that killed processes have left for `path` and `ending` are removed first.
    Raises `OSError` if no file can be made.
    """
    start = f".{path.name[:_NAME_LENGTH]}."
    _remove_stale(path.parent, start, ending)
    temporary = path.with_name(f"{start}{secrets.token_hex(8)}{ending}")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        # The file is locked as long as it is open. So `_remove_stale` in another process does not remove it.
        with contextlib.suppress(OSError):
            lock(fd)
        yield fd, temporary
    finally:
        made = os.fstat(fd)
        os.close(fd)
        # The block may have renamed the file, and another file may have the old name now.
        with contextlib.suppress(OSError):
            if os.path.samestat(made, os.lstat(temporary)):
                temporary.unlink()


def _remove_stale(folder: Path, start: str, ending: str) -> None:
    """Remove the temporary files of this user in `folder` that no process has locked.

    Their names begin with `start`, have 16 random hexadecimal digits, and end with `ending`.
    """
    for path in folder.glob(f"{glob.escape(start)}{'[0-9a-f]' * 16}{glob.escape(ending)}"):
        with contextlib.suppress(OSError):
            fd = open_regular(path, os.O_RDONLY)
            try:
                lock(fd)
                if os.fstat(fd).st_uid == os.geteuid():
                    path.unlink()
            finally:
                os.close(fd)


# --- files in memory ------------------------------------------------------------------------------------------------


class MemoryFile:
    """A new file in memory that this process can open by a path.

    If the system has no files in memory, or no seals for `is_sealed`, it is an ordinary file in `folder` (mode 0600).

    Parameters
    ----------
    name:
        The name that tools such as `lsof` show for the file.
    folder:
        The folder for an ordinary file. By default it is the system's folder for temporary files.
    is_sealed:
        True to forbid, by a seal of Linux, that a file in memory becomes smaller.

    Attributes
    ----------
    fd:
        The descriptor; -1 after `close`.
    path:
        The path by which this process can open the file.
    in_memory:
        True if the file is in memory, False if it is an ordinary file.

    Raises
    ------
    OSError
        If neither kind of file can be made.
    """

    def __init__(self, name: str, folder: Path | None = None, *, is_sealed: bool = False) -> None:
        self._pid = os.getpid()
        fd, why_not = _memory_fd(name, is_sealed=is_sealed)
        self.in_memory: bool = fd is not None
        if fd is not None:
            self.fd: int = fd
            self.path: str = _path_of(fd)
            return
        folder = Path(tempfile.gettempdir()) if folder is None else folder
        self.path = str(folder / f"{name.removeprefix('mpr-')}-{os.getpid()}-{secrets.token_hex(8)}.rrd")
        try:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            text = f"there are no files in memory ({why_not}), and no file can be made in {folder}: {error.strerror}"
            raise OSError(error.errno, text) from error

    def close(self) -> None:
        """Close the file, and call `remove`. Other processes that have opened the file can still use it."""
        fd, self.fd = self.fd, -1
        os.close(fd)
        self.remove()

    def remove(self) -> None:
        """Remove an ordinary file from its folder. Do nothing for a file in memory, and in a forked child."""
        # A forked child has a copy of this object, but only the parent may remove the file.
        if not self.in_memory and os.getpid() == self._pid:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)


def _memory_fd(name: str, *, is_sealed: bool) -> tuple[int | None, str]:
    """Make a file in memory. Return (descriptor, ""), or (None, reason) if the system cannot make such a file.

    `is_sealed` is as in `MemoryFile`.
    """
    if sys.platform != "linux" or not hasattr(os, "memfd_create"):
        return None, "this system has no memfd_create"
    try:
        fd = os.memfd_create(name, os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if is_sealed else 0))
    except OSError as error:
        return None, f"memfd_create: {error.strerror}"
    if is_sealed:
        try:
            # After `F_SEAL_SHRINK`, the file can never become smaller. After `F_SEAL_SEAL`, no more seals can be
            # added: another seal could stop the parent from releasing the memory of the file.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        except OSError as error:
            os.close(fd)
            return None, f"seals: {error.strerror}"
    if not os.path.exists(_path_of(fd)):
        os.close(fd)
        return None, "/proc is missing"
    return fd, ""


def _path_of(fd: int) -> str:
    """Return a path by which this process can open the file of descriptor `fd` a second time."""
    return f"/proc/self/fd/{fd}" if sys.platform == "linux" else f"/dev/fd/{fd}"

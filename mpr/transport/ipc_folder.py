"""Makes the private folder for a recording's sockets, and removes folders that killed processes have left.

Covers: the folder and its lock, checking that the recording of a folder is open, notes about lost rows in the folder,
short paths for the sockets of `multiprocessing`.
Does not cover: the sockets (`sockets.py`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import itertools
import mmap
import os
import pwd
import shutil
import socket
import tempfile
import threading
import weakref
from collections.abc import Iterator
from multiprocessing import process, util
from pathlib import Path
from typing import Final

from mpr import files
from mpr.errors import RecordingError
from mpr.files import MemoryFile

_PREFIX = "mpr-"
# The longest path of a socket (bytes). The system has room for 108 bytes with the closing zero (`sockaddr_un`).
_PATH_LIMIT = 100
# The place for the folder if the path in the environment variable TMPDIR is too long.
_SHORT_FOLDER = "/tmp"  # noqa: S108  # the folder in it is of mode 0700
_OWNER = "owner"
# The names of files that say which rows are lost begin with `_LOST`. mpr reads `_NOTE_CHARS` characters of each.
_LOST = "lost-"
_NOTE_CHARS = 1000
#: If a file cannot be opened because of one of these errors, it may exist: this process lacks descriptors or memory.
PASSING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class SocketFolder:
    """A new folder of mode 0700, whose path is short enough for a socket.

    The process that makes the folder keeps the file `owner` in it locked until `remove`, or until the process ends.
    Other processes test this lock to find out if the folder is in use.

    Attributes
    ----------
    path:
        The path of the folder.
    """

    def __init__(self) -> None:
        self.path: Path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        if len(str(self.path)) > _PATH_LIMIT - len("/down"):
            self.path.rmdir()
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_SHORT_FOLDER))
        # The file is locked before it gets its name. Until then the folder has no owner, so other processes take the
        # folder for a new one, and do not remove it.
        unnamed = self.path / f"{_OWNER}.new"
        fd = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            files.lock(fd)
        except OSError as error:
            os.close(fd)
            shutil.rmtree(self.path, ignore_errors=True)
            raise RecordingError(
                f"the folder for temporary files (TMPDIR), {self.path.parent}, cannot be used: {error.strerror}"
            ) from error
        self._fd = fd
        os.write(self._fd, str(os.getpid()).encode())
        unnamed.rename(self.path / _OWNER)
        _owned.add(self)

    def remove(self) -> None:
        """Remove the folder with all files in it, and release the lock. Errors of the removal are ignored."""
        _owned.discard(self)
        shutil.rmtree(self.path, ignore_errors=True)
        fd, self._fd = self._fd, -1
        # Unlock explicitly. A process that was forked meanwhile has the descriptor too, and would keep the lock.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)

    def loss(self) -> str | None:
        """Return a sentence, without a full stop, which says that the folder was moved or removed.

        Returns None if the folder is still there.
        """
        if (self.path / _OWNER).exists():
            return None
        return f"the folder {self.path}, in which processes join the recording, was {self._fate()}"

    def obstacle(self) -> str | None:
        """Return a sentence, without a full stop, that says why no process can join; None if no reason is known."""
        if (loss := self.loss()) is not None:
            return loss
        try:
            probe = MemoryFile("mpr-outbox", self.path)
            try:
                # The file can be made on a full disk, but nothing can be written into it.
                os.pwrite(probe.fd, bytes(mmap.PAGESIZE), 0)
            finally:
                probe.close()
        except OSError as error:
            return f"a process has no place for its rows: {error.strerror}"
        return None

    def _fate(self) -> str:
        with contextlib.suppress(OSError):
            now = Path(os.readlink(f"/proc/self/fd/{self._fd}"))
            if now.exists():
                return f"moved to {now.parent} by another program"
        return "removed or moved by another program"

    def close_lock(self) -> None:
        """Close the lock's descriptor in a forked child, because the copy would keep the lock when the parent ends."""
        fd, self._fd = self._fd, -1
        os.close(fd)


# The folders that this process has made, and has not removed.
_owned: weakref.WeakSet[SocketFolder] = weakref.WeakSet()


def _close_locks() -> None:
    for folder in list(_owned):
        _owned.discard(folder)
        folder.close_lock()


os.register_at_fork(after_in_child=_close_locks)


class _Watched:
    def __init__(self) -> None:
        # An open descriptor of the file `owner`, for each folder for which `watch` was called.
        self.fds: dict[Path, int] = {}
        # Re-entrant, because a signal handler may need the lock while the same thread holds it.
        self.lock = threading.RLock()


_watched = _Watched()


def _renew_lock() -> None:
    _watched.lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def watch(folder: Path) -> None:
    """Keep the file `owner` of `folder` open until `unwatch`.

    `is_owned` then gives the right answer even if another program removes the folder. Does nothing if the file cannot
    be opened, or if `watch` was called for `folder` before.
    """
    with _watched.lock, contextlib.suppress(OSError):
        if folder not in _watched.fds:
            _watched.fds[folder] = os.open(folder / _OWNER, os.O_RDONLY | os.O_CLOEXEC)


def unwatch(folder: Path) -> None:
    """Close the file that `watch` has opened for `folder`. Does nothing if there is none."""
    with _watched.lock:
        fd = _watched.fds.pop(folder, None)
        if fd is not None:
            os.close(fd)


def is_owned(folder: Path) -> bool:
    """Return True if the process that has made `folder` still holds the folder's lock: the recording is then open.

    If the lock cannot be tested because this process lacks descriptors or memory, returns True. If the file with the
    lock cannot be opened for another reason, returns False.
    """
    with _watched.lock:
        fd = _watched.fds.get(folder)
        if fd is not None:
            return _is_locked(fd)
    try:
        fd = os.open(folder / _OWNER, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return error.errno in PASSING
    try:
        return _is_locked(fd)
    finally:
        os.close(fd)


def _is_locked(fd: int) -> bool:
    try:
        # A shared lock, because two processes that ask at the same time must not take each other for the owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def machine() -> str:
    """Return the host name of this machine or container."""
    return socket.gethostname()


def place_of(folder: Path) -> str:
    """Return a text that identifies the folder in which `folder` lies; an empty text if this is not possible.

    If two processes get equal texts that are not empty, they see the same files in that folder. The text consists of
    the boot id of the kernel, the device number and the inode number.
    """
    try:
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        status = folder.parent.stat()
    except OSError:
        return ""
    return f"{kernel}/{status.st_dev}/{status.st_ino}"


def why_unreachable(folder: Path, place: str, machine_name: str) -> str | None:
    """Return why this process cannot open `folder`, as the end of a sentence whose subject is the recording.

    `place` and `machine_name` are the values of `place_of(folder)` and `machine()` in the process that has made the
    folder.

    Returns None if this process can open the folder. Also returns None if the folder does not exist, and `place` is
    empty or equal to this process's `place_of(folder)`.
    """
    try:
        os.close(os.open(folder / _OWNER, os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        here = place_of(folder)
        if not place or place == here:
            return None
        if machine_name != machine():
            return f"is on machine {machine_name!r}, this is {machine()!r}, and only processes of one machine can join"
        return (
            f"is in another container of this machine ({machine_name!r}), or has another folder {folder.parent}: "
            "give both the same one, or run this process beside the recording"
        )
    except PermissionError:
        with contextlib.suppress(OSError):
            if (uid := folder.stat().st_uid) != os.geteuid():
                return (
                    f"belongs to {_user_name(uid)}, this process runs as {_user_name(os.geteuid())}, and only "
                    "processes of one user can join"
                )
        return f"has the folder {folder}, and this process (as {_user_name(os.geteuid())}) may not enter it"
    except OSError as error:
        return f"has the folder {folder}, and this process cannot enter it: {error.strerror}"
    return None


def _user_name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name!r} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def note_loss(folder: Path, text: str) -> None:
    """Write `text`, about lost rows, into a file in `folder`. The parent reads the file by `noted_losses`.

    Each process has one file, so a second call replaces the text. Does nothing if the file cannot be written.
    """
    # `OSError`: the recording is closed, or the disk is full.
    with contextlib.suppress(OSError):
        (folder / f"{_LOST}{os.getpid()}").write_text(text)


def noted_losses(folder: Path) -> list[str]:
    """Return the first 1000 characters of each text that `note_loss` has written into `folder`."""
    return [path.read_text(errors="replace")[:_NOTE_CHARS] for path in sorted(folder.glob(f"{_LOST}*"))]


@contextlib.contextmanager
def short_listener_paths() -> Iterator[None]:
    """Within the `with` block, have `multiprocessing` make its sockets in a folder with a short path.

    The reason is that the path of a socket can have only about 100 bytes, and TMPDIR may be longer. Does nothing if the
    folder of `multiprocessing` has a short path.
    """
    # `multiprocessing` makes its folder when it is first needed, and keeps it.
    folder = util.get_temp_dir()
    if len(folder) + len("/listener-01234567") <= _PATH_LIMIT:
        yield
        return
    config: dict[str, object] = process.current_process()._config  # type: ignore[attr-defined]  # not in typeshed
    config["tempdir"] = _short_folder(os.getpid())
    try:
        yield
    finally:
        config["tempdir"] = folder


@functools.cache
def _short_folder(_pid: int) -> str:
    folder = tempfile.mkdtemp(prefix="pymp-", dir=_SHORT_FOLDER)
    # Removed when `multiprocessing` removes its own folder, because all processes that use this folder have ended then.
    util.Finalize(None, shutil.rmtree, (folder, True), exitpriority=-100)
    return folder


def sweep() -> None:
    """Remove the folders that killed processes of this user have left.

    These are the folders `mpr-*` with a file `owner` that is not locked, in the folder for temporary files and in
    `/tmp`.
    """
    places = {Path(tempfile.gettempdir()), Path(_SHORT_FOLDER)}
    for folder in itertools.chain.from_iterable(place.glob(f"{_PREFIX}*") for place in places):
        # `OSError`: the folder belongs to another user, is being made or removed, or is in use.
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.getuid():
                _remove_unowned(folder)


def _remove_unowned(folder: Path) -> None:
    fd = os.open(folder / _OWNER, os.O_RDONLY | os.O_CLOEXEC)
    try:
        files.lock(fd)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(fd)

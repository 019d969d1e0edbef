"""Keeps functions of the system and the standard library as they are when the plugin starts, before any test runs.

A test may replace any function of `os`, `time`, `json` and so on, and may count the calls. The test must not see the
calls of the plugin. So the code that records a test uses the functions in this module for files, times, ids and JSON.

- The functions in `System` are native ones. A function of the standard library that is written in Python would call
  others, which a test may replace.
- The functions are attributes of a class, because some tools (freezegun, pyfakefs) replace functions in the globals of
  all loaded modules.
- Paths are `str`, because the methods of `pathlib.Path` are written in Python.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the native part of `signal`, without a stub
import _thread
import json.encoder
import os
import time
import unicodedata
from _hashlib import openssl_sha256
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NoReturn, TypeVar

_T = TypeVar("_T")


class System:
    """Holds native functions of the system and the standard library, as they were when this module was imported.

    `signals` is no function: it has the numbers of all signals.
    """

    open: Final = os.open
    close: Final = os.close
    read: Final = os.read
    write: Final = os.write
    pread: Final = os.pread
    pwrite: Final = os.pwrite
    stat: Final = os.stat
    fstat: Final = os.fstat
    mkdir: Final = os.mkdir
    unlink: Final = os.unlink
    listdir: Final = os.listdir
    space: Final = os.statvfs
    getpid: Final = os.getpid
    now: Final = time.time
    clock: Final = time.perf_counter
    random: Final = os.urandom
    sha256 = openssl_sha256
    normalize: Final = unicodedata.normalize
    thread_id: Final = _thread.get_ident
    start_thread: Final = _thread.start_new_thread
    lock: Final = _thread.allocate_lock
    signal_handler = _signal.getsignal
    signals: Final = tuple(int(each) for each in _signal.valid_signals())
    signal_mask = _signal.pthread_sigmask


def new_id() -> str:
    """Return a random id of 32 hexadecimal digits."""
    return System.random(16).hex()


def exists(path: str) -> bool:
    """Return True if there is a file or folder at `path` that this process can access."""
    try:
        System.stat(path)
    except OSError:
        return False
    return True


def make_folder(path: str) -> None:
    """Make the folder `path` and all missing folders above it. Raises `OSError` if this fails.

    Does nothing if there is already a folder (or a file) at `path`.
    """
    try:
        System.mkdir(path)
    except FileExistsError:
        return
    except FileNotFoundError:
        above = path.rstrip("/").rpartition("/")[0]
        if not above or above == path:
            raise
        make_folder(above)
        make_folder(path)


def remove(path: str) -> None:
    """Remove the file `path` if it exists. Raises `OSError` if it cannot be removed."""
    with suppress(FileNotFoundError):
        System.unlink(path)


def free_bytes(path: str) -> int:
    """Return how many bytes an ordinary user can still write to the disk on which `path` lies.

    If `path` does not exist, use the nearest folder above it that exists. Raises `OSError` if the disk cannot be
    examined.
    """
    while True:
        try:
            found = System.space(path or "/")
        except FileNotFoundError:
            path = path.rstrip("/").rpartition("/")[0]
        else:
            return found.f_bavail * found.f_frsize


def create(path: str) -> None:
    """Create the empty file `path`. Raises `FileExistsError` if `path` exists, and `OSError` for other reasons."""
    System.close(System.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def write_new(path: str, text: str) -> None:
    """Create the file `path` with the content `text`.

    Raises `FileExistsError` if `path` exists, and `OSError` if the file cannot be written.
    """
    fd = System.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    try:
        write_all(fd, text.encode())
    finally:
        System.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data` to the file with the descriptor `fd`. Raises `OSError` if this fails."""
    view = memoryview(data)
    while view:
        view = view[System.write(fd, view) :]


def read_all(path: str) -> bytes:
    """Return the content of the file `path`. Raises `OSError` if it cannot be read."""
    fd = System.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := System.read(fd, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        System.close(fd)


def run_bounded(step: Callable[[], object], timeout_secs: float) -> bool:
    """Run `step` in a thread of its own. Return True if `step` has ended within `timeout_secs` seconds.

    If `step` raises an exception, it has ended too, and the exception is not raised here. If `step` has not ended in
    time, return False, and `step` continues in its thread. If no thread can be started, `step` runs in the calling
    thread, without a limit.
    """
    done = System.lock()
    done.acquire()

    def run() -> None:
        try:
            step()
        except Exception:  # noqa: BLE001, S110  # the caller only asks whether the step has ended
            pass
        finally:
            done.release()

    try:
        System.start_thread(run, ())
    except RuntimeError:
        # The system gives no more threads, or the interpreter is at its exit.
        run()
    return done.acquire(timeout=timeout_secs)


def without_signals(step: Callable[[], _T]) -> _T:
    """Return the result of `step`. Threads that start meanwhile never get a signal of the process.

    A test may block a signal in its only thread, and then wait for the signal. If a thread of the SDK did not block it
    too, that thread would get the signal, which may end the process.
    """
    before = System.signal_mask(_signal.SIG_BLOCK, System.signals)
    try:
        return step()
    finally:
        System.signal_mask(_signal.SIG_SETMASK, before)


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _encoder() -> Callable[[Any], str]:
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder().encode
    # The arguments are those of `json.JSONEncoder.iterencode`, which is written in Python.
    encode = make(None, _refuse, json.encoder.encode_basestring_ascii, None, ": ", ", ", False, False, True)
    return lambda value: "".join(encode(value, 0))


_encode = _encoder()


def to_json(value: dict[str, Any]) -> str:
    """Return `value` as JSON in one line. Raises `TypeError` if a part of `value` has no form in JSON."""
    return _encode(value)


def code_of_signal_handlers() -> set[Any]:
    """Return the code objects of the Python functions and methods that are signal handlers of this process now.

    Other callable objects, such as those with `__call__`, are not found.
    """
    found = set()
    for number in System.signals:
        handler = System.signal_handler(number)
        # The handler may be a method, or a function with some arguments (`functools.partial`), or both.
        for name in ("func", "__func__"):
            handler = getattr(handler, name, handler)
        found.add(getattr(handler, "__code__", None))
    return found - {None}

"""Lets any number of readers follow a growing stream: each reader gets all accepted bytes, from the beginning.

The writer of a file writes bytes, and then counts them as *accepted*. It does not change accepted bytes until it closes
the file. The SDK may then write the file anew, as a compact file for example. A reader that is made after that gets the
bytes of the new file.

Covers: the number of accepted bytes, readers in threads and in `asyncio`, the end of the stream.
Does not cover: the file with the bytes (`part_file.py`, `sinks/binary_stream.py`), cutting a stream (`slices.py`), and
viewers, which are other processes (`live/replay_log.py`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

from mpr.rrd import framing
from mpr.rrd.part_file import OutputFile
from mpr.rrd.slices import Pieces, Slices

_READ_BYTES = 1024 * 1024


class ByteLog:
    """Counts the accepted bytes of one file, and wakes the readers after each change.

    Only one thread at a time adds bytes. Any thread may read the bytes.

    Parameters
    ----------
    file:
        The file that holds the bytes.
    """

    def __init__(self, file: OutputFile) -> None:
        self._file = file
        self._listeners: set[Callable[[], None]] = set()
        #: The number of accepted bytes.
        self.end: int = 0
        #: True if no more bytes will be accepted.
        self.is_over: bool = False
        #: The error if bytes are missing at the end, else None.
        self.failure: BaseException | None = None
        #: The lock for the attributes above, and the condition that wakes readers.
        self.changed: threading.Condition = threading.Condition()

    @property
    def shared_fd(self) -> int | None:
        """The descriptor by which another process can read the file; None if the bytes may move to another file.

        Read this before the file is closed.
        """
        return self._file.fd if self._file.stays else None

    def grow(self, end: int) -> None:
        """Accept all bytes before the offset `end`, and wake the readers."""
        self._note(end, False, None)

    def finish(self, failure: BaseException | None = None) -> None:
        """Mark the log as complete: no more bytes will be accepted. Wake the readers.

        If `failure` is not None, bytes are missing at the end, and each reader raises `failure` after the last byte.
        """
        self._note(self.end, True, failure)

    def _note(self, end: int, is_over: bool, failure: BaseException | None) -> None:
        with self.changed:
            self.end, self.is_over, self.failure = end, is_over, failure
            self.changed.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    @contextlib.contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener` after each change of the log within the `with` block, in the thread that makes the change.

        `listener` must neither wait nor raise, because the thread that writes the file calls it.
        """
        with self.changed:
            self._listeners.add(listener)
        try:
            yield
        finally:
            with self.changed:
                self._listeners.discard(listener)

    def reader(self) -> LogReader:
        """Return a new reader, which keeps the file open. Raises `OSError` if the file cannot be opened."""
        return LogReader(self, *self._file.reader())


class LogReader:
    """Reads the accepted bytes of a file. Each call of `read_all` or `aread_all` starts at the first byte.

    Parameters
    ----------
    log:
        The log, which says how many bytes of the file are accepted.
    read:
        Reads the file, by offset and size in bytes.
    size:
        The size of the file in bytes if the file was closed before this reader was made, else None. A closed file is
        read up to this size, because it may have been written anew.
    """

    def __init__(self, log: ByteLog, read: framing.Read, size: int | None) -> None:
        self._log = log
        self._read = read
        self._size = size

    def read_all(self, *, parts: bool = False, pause_secs: float = 0.0) -> Iterator[bytes]:
        """Yield all bytes in pieces of 1 MiB at most. Wait for more bytes until the log is complete.

        If `parts` is true, each piece is instead a stream without a footer that can be read alone (`slices.py`). After
        each wait for more bytes, sleep for `pause_secs` seconds, so that the next piece has more bytes. If bytes are
        missing at the end, raise the error that `ByteLog.finish` got.
        """
        cursor = self._cursor(parts)
        while True:
            data, end = self._next(cursor)
            if data is None:
                return
            if data:
                yield data
                continue
            with self._log.changed:
                waits = self._log.end == end and not self._log.is_over
                if waits:
                    # The wait is bounded, so that Ctrl-C is noticed on every platform.
                    self._log.changed.wait(1.0)
            if waits and pause_secs:
                time.sleep(pause_secs)

    async def aread_all(self, *, parts: bool = False) -> AsyncIterator[bytes]:
        """Yield the pieces that `read_all` yields. A wait for more bytes does not block the event loop.

        Raises the error that `read_all` raises.
        """
        # Imported here because few programs read in an event loop.
        import asyncio

        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def wake() -> None:
            # `RuntimeError` means that the event loop is closed already. Then no reader waits in the loop.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)

        with self._log.listening(wake):
            cursor = self._cursor(parts)
            while True:
                changed.clear()
                data, _ = self._next(cursor)
                if data is None:
                    return
                if data:
                    yield data
                else:
                    await changed.wait()

    def _cursor(self, parts: bool) -> Slices | Pieces:
        return Slices(self._read) if parts else Pieces(self._read, _READ_BYTES)

    def _next(self, cursor: Slices | Pieces) -> tuple[bytes | None, int]:
        """Return the next bytes, and the number of accepted bytes of the file.

        The bytes are `b""` if there are none at present, and None if the log is complete and all bytes were returned.
        If bytes are missing at the end, raise the error that `ByteLog.finish` got.
        """
        with self._log.changed:
            end, is_over, failure = self._log.end, self._log.is_over, self._log.failure
        data = cursor.next(end if self._size is None else self._size)
        if not data and failure is not None:
            raise failure
        return None if is_over and not data else data, end

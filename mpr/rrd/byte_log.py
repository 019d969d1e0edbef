"""Lets any number of readers follow a growing stream: each reader gets all accepted bytes, from the beginning.

Covers: how far the stream is accepted, readers in threads and in `asyncio`, the end.
Does not cover: the file with the bytes (`part_file.py`, `sinks/binary_stream.py`), cutting a stream (`slices.py`), and
viewers in processes of their own (`live/replay_log.py`).
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
    """The accepted bytes of one file. One thread adds bytes; any thread reads.

    Parameters
    ----------
    file:
        The file that holds the bytes.
    """

    def __init__(self, file: OutputFile) -> None:
        self._file = file
        self._listeners: set[Callable[[], None]] = set()
        #: How many bytes are accepted; they never change.
        self.end = 0
        #: Whether `end` is final.
        self.is_over = False
        #: The reason if bytes are missing at the end.
        self.failure: BaseException | None = None
        #: Guards all of these, and wakes readers.
        self.changed = threading.Condition()

    @property
    def shared_fd(self) -> int | None:
        """A descriptor through which another process can read the bytes; None if they move to another file."""
        return self._file.fd if self._file.stays else None

    def grow(self, end: int) -> None:
        """Accept all bytes before `end`."""
        self._note(end, False, None)

    def finish(self, failure: BaseException | None = None) -> None:
        """Say that nothing follows; readers that have all bytes then raise `failure`, if there is one."""
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
        """Call `listener` in the adding thread after each change."""
        with self.changed:
            self._listeners.add(listener)
        try:
            yield
        finally:
            with self.changed:
                self._listeners.discard(listener)

    def reader(self) -> LogReader:
        """Return a reader that keeps the file open. Raises `OSError`."""
        return LogReader(self, *self._file.reader())


class LogReader:
    """Reads a log; each iteration begins at the beginning.

    Parameters
    ----------
    log:
        How far it may read, and when.
    read:
        Reads the file.
    size:
        The size of a file in bytes that was closed before, and perhaps written anew since; None for the log's end.
    """

    def __init__(self, log: ByteLog, read: framing.Read, size: int | None) -> None:
        self._log = log
        self._read = read
        self._size = size

    def read_all(self, *, parts: bool = False, pause_secs: float = 0.0) -> Iterator[bytes]:
        """Yield all bytes, with `parts` as streams of their own; wait for more until the log ends.

        After each wait, pause for `pause_secs`, so that small pieces come together.
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
                    # Bounded, so that Ctrl-C is noticed on every platform.
                    self._log.changed.wait(1.0)
            if waits and pause_secs:
                time.sleep(pause_secs)

    async def aread_all(self, *, parts: bool = False) -> AsyncIterator[bytes]:
        """Do the same as `read_all` in an event loop; a cancelled reader leaves nothing behind."""
        # Imported here because few programs read in an event loop.
        import asyncio

        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def wake() -> None:
            # The loop may be closed already.
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
        """Return the next bytes and the end up to which this looked: b"" if there are none yet, None after the last."""
        with self._log.changed:
            end, is_over, failure = self._log.end, self._log.is_over, self._log.failure
        data = cursor.next(end if self._size is None else self._size)
        if not data and failure is not None:
            raise failure
        return None if is_over and not data else data, end

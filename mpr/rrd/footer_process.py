"""Makes the footer of a file in another process, because a damaged chunk may make the SDK abort the process.

Covers: the footer, and finding the chunks that the SDK cannot read.
Does not cover: the parts of the footer (`footer.py`), and which frames are chunks (`survey.py`).
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import tempfile
from array import array
from dataclasses import dataclass

from mpr.errors import FormatError
from mpr.rrd.footer import ManifestMaker
from mpr.rrd.manifest import ChunkLocation
from mpr.sdk import programs

# The number of chunks that the SDK checks together. If one of them is unreadable, each of them is checked alone.
_TOGETHER = 256
# The search ends after this many crashes of the SDK. Each crash costs half a second, for a new process.
_CRASHES_MAX = 40
_PROGRESS = struct.Struct("<QQ")
_NUMBER = struct.Struct("<Q")
# If the SDK raises one of these errors for a chunk, the chunk is unreadable.
_BROKEN = (FormatError, KeyError, IndexError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError)


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """Says where the chunks of one file are, so that another process can read them.

    Attributes
    ----------
    fd:
        A descriptor of the file. For `add_footer`, it has to be writable.
    header:
        The header of the file.
    infos:
        The payload of the store info of each store, by the store's encoded id.
    places:
        The offset and the size of each chunk, as in `ChunkLocation`: first offset, first size, second offset, and so
        on.
    """

    fd: int
    header: bytes
    infos: dict[bytes, bytes]
    places: array[int]

    def maker(self) -> ManifestMaker:
        """Return a new `ManifestMaker` for the file."""
        return ManifestMaker(fd=self.fd, header=self.header, store_infos=self.infos)

    def slice(self, first: int, end: int) -> list[ChunkLocation]:
        """Return the places of the chunks from index `first` up to index `end`, without the chunk of index `end`."""
        numbers = self.places[2 * first : 2 * end]
        return list(zip(numbers[::2], numbers[1::2], strict=True))


def add_footer(chunks: Chunks, end: int) -> bool:
    """Have another process write the footer of the file of `chunks` at the offset `end`.

    Returns False if the process fails, for example because the SDK crashes, else True. Raises `OSError` if the process
    cannot be started, or has not ended within 10 minutes.
    """
    ran = programs.run_python(_code("_add_footer"), data=pickle.dumps((chunks, end)), pass_fds=[chunks.fd])
    return ran.returncode == 0


def unreadable(chunks: Chunks) -> set[int] | None:
    """Return the indexes of the chunks that the SDK cannot read, or that make it crash. Uses other processes.

    Returns None if 40 processes fail, or if a process fails before it reads a chunk. Raises `OSError` if a process
    cannot be started, or has not ended within 10 minutes.
    """
    found: set[int] = set()
    first, alone_until = 0, 0
    with tempfile.TemporaryFile() as notes:
        for _ in range(_CRASHES_MAX):
            notes.truncate(0)
            notes.truncate(_PROGRESS.size)
            job = pickle.dumps((chunks, notes.fileno(), first, alone_until))
            ran = programs.run_python(_code("_check"), data=job, pass_fds=[chunks.fd, notes.fileno()])
            data = os.pread(notes.fileno(), os.fstat(notes.fileno()).st_size, 0)
            found.update(number for (number,) in _NUMBER.iter_unpack(data[_PROGRESS.size :]))
            if ran.returncode == 0:
                return found
            first, together = _PROGRESS.unpack_from(data)
            if not together:
                # The process has failed before it read a chunk.
                return None
            if together > 1:
                alone_until = first + together
            else:
                found.add(first)
                first += 1
    return None


# --- the other process ----------------------------------------------------------------------------------------------


def _code(function: str) -> str:
    return f"from mpr.rrd import footer_process; footer_process.{function}()"


def _add_footer() -> None:
    chunks, end = pickle.load(sys.stdin.buffer)  # noqa: S301  # the parent has made it
    maker = chunks.maker()
    view = memoryview(maker.closing(end, maker.described(chunks.slice(0, len(chunks.places)))))
    while view:
        written = os.pwrite(chunks.fd, view, end)
        view, end = view[written:], end + written


def _check() -> None:
    chunks, notes, first, alone_until = pickle.load(sys.stdin.buffer)  # noqa: S301  # the parent has made it
    maker = chunks.maker()
    count = len(chunks.places) // 2

    def is_readable(start: int, together: int) -> bool:
        # Noted before the call, because the SDK may end this process in the call.
        os.pwrite(notes, _PROGRESS.pack(start, together), 0)
        try:
            maker.described(chunks.slice(start, start + together))
        except BaseException as error:
            if not isinstance(error, _BROKEN) and not is_panic(error):
                raise
            return False
        return True

    while first < count:
        together = min(_TOGETHER, count - first) if first >= alone_until else 1
        if not is_readable(first, together):
            if together > 1:
                alone_until = first + together
                continue
            os.pwrite(notes, _NUMBER.pack(first), os.fstat(notes).st_size)
        first += together


def is_panic(error: BaseException) -> bool:
    """Return True if `error` is the SDK's `PanicException`, which is no subclass of `Exception`.

    The names are compared, because the SDK does not export the class.
    """
    return type(error).__name__ == "PanicException"

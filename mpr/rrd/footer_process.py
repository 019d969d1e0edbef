"""Makes the footer of a file in a process of its own, because the SDK may abort on a chunk that is broken.

Covers: the footer, and finding the chunks that the SDK cannot read.
Does not cover: what the footer consists of (`footer.py`), and which frames are chunks (`survey.py`).

The parent gives the process descriptors and the places of the chunks. The process writes the footer to the file itself,
and the numbers of unreadable chunks to another file. So the parent's memory does not grow with the footer.
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

# The number of chunks that are checked together. If one of them is unreadable, each is checked alone.
_TOGETHER = 256
# The search ends after this many crashes of the SDK. Each takes half a second.
_CRASHES_MAX = 40
_PROGRESS = struct.Struct("<QQ")
_NUMBER = struct.Struct("<Q")
# The errors by which a chunk is unreadable.
_BROKEN = (FormatError, KeyError, IndexError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError)


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """The chunks of one file.

    Attributes
    ----------
    fd:
        A descriptor of the file. For `add_footer`, it has to be writable.
    header, infos:
        The header of the file, and the payload of the store info of each store, by the store's encoded id.
    places:
        Offset and size of each chunk, as in `ChunkLocation`, in one row of numbers.
    """

    fd: int
    header: bytes
    infos: dict[bytes, bytes]
    places: array[int]

    def maker(self) -> ManifestMaker:
        return ManifestMaker(fd=self.fd, header=self.header, store_infos=self.infos)

    def slice(self, first: int, end: int) -> list[ChunkLocation]:
        """Return the places of the chunks from index `first` up to `end`."""
        numbers = self.places[2 * first : 2 * end]
        return list(zip(numbers[::2], numbers[1::2], strict=True))


def add_footer(chunks: Chunks, end: int) -> bool:
    """Have another process write the footer of `chunks` at the offset `end`. Returns whether that has worked.

    Raises `OSError` if there can be no such process, or if the process has not ended in time.
    """
    ran = programs.run_python(_code("_add_footer"), data=pickle.dumps((chunks, end)), pass_fds=[chunks.fd])
    return ran.returncode == 0


def unreadable(chunks: Chunks) -> set[int] | None:
    """Return the indexes of the chunks that the SDK cannot read. Returns None if it crashes again and again.

    Raises `OSError` as `add_footer`.
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
        # Noted before, because the process may not survive the call.
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
    """Whether `error` is the SDK's `PanicException`, which is no `Exception` and has no public name."""
    return type(error).__name__ == "PanicException"

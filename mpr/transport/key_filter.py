"""Memory in which a process sees, without a question, that an engine's task is certainly not complete.

Nearly every run of an engine's task is its first one. The parent sets two bits in this memory for each complete task.
So a process asks the parent only if both bits of a key are set. If a million tasks are complete, this is so for 5 % of
all other keys, too. The memory is a file in memory, which takes 1 MiB at most.

Covers: the file, setting and reading bits.
Does not cover: the exact answer (`aggregator/complete_tasks.py`), the question (`producer/key_questions.py`).
"""

from __future__ import annotations

import mmap
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from mpr.files import MemoryFile
from mpr.transport.shared_file import is_sealed

_BYTES = 1 << 20
_ADDRESS = re.compile(r"(?P<path>/proc/[0-9]{1,10}/fd/[0-9]{1,10})#(?P<name>mpr-keys-[0-9a-f]{32})")


class KeyFilter:
    """The parent's end: sets the bits of complete tasks. Only one thread may call the methods.

    Parameters
    ----------
    folder:
        The private folder of the recording.

    Attributes
    ----------
    address:
        The address by which other processes open the memory.

    Raises
    ------
    OSError
        If the system has no files in memory, or no space for one.
    """

    def __init__(self, folder: Path) -> None:
        name = f"mpr-keys-{secrets.token_hex(16)}"
        self._file = MemoryFile(name, folder, is_sealed=True)
        try:
            # A file on a disk is not used: if the disk was full, a write into the map would end this process.
            if not self._file.in_memory or not is_sealed(self._file.fd):
                raise OSError("there are no sealed files in memory")
            os.ftruncate(self._file.fd, _BYTES)
            self._map = mmap.mmap(self._file.fd, _BYTES)
        except BaseException:
            self._file.close()
            raise
        self.address: str = f"/proc/{os.getpid()}/fd/{self._file.fd}#{name}"

    def add(self, key: bytes) -> None:
        """Set the bits of `key`."""
        for place, bit in _bits(key):
            self._map[place] |= bit

    def close(self) -> None:
        """Close the memory. Other processes that have opened it keep it."""
        self._map.close()
        self._file.close()


class KeyFilterReader:
    """The end of a process that runs tasks. Any thread may call the methods.

    Raises `OSError` if this process cannot open the memory at `address`, for example because it runs in another
    container.
    """

    def __init__(self, address: str) -> None:
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise OSError(f"not the address of a filter: {address!r}")
        fd = os.open(found["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if os.readlink(f"/proc/self/fd/{fd}") != f"/memfd:{found['name']} (deleted)" or not is_sealed(fd):
                raise OSError(f"{found['path']} is not the filter {found['name']}")
            self._map = mmap.mmap(fd, _BYTES, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise OSError(f"not a filter: {error}") from error
        finally:
            os.close(fd)

    def may_have(self, key: bytes) -> bool:
        """Return False if the task of `key` is certainly not complete. Returns True if the parent must be asked."""
        return all(self._map[place] & bit for place, bit in _bits(key))


def _bits(key: bytes) -> Iterator[tuple[int, int]]:
    """Yield the two bits of `key`: the number of the byte, and the value of the bit."""
    for start in (0, 3):
        number = int.from_bytes(key[start : start + 3], "little")
        yield number >> 3 & (_BYTES - 1), 1 << (number & 7)

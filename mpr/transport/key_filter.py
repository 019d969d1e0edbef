"""Shares memory in which a process sees, without a message, that an engine task is not complete.

The memory is a Bloom filter: the parent sets two bits for the key of each complete task. If one of the two bits of a
key is not set, the task with this key is not complete. If both bits are set, the process must ask the parent, because
other keys may have set these bits.

Covers: the file of the memory (1 MiB), setting and reading bits.
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
    """Sets the bits of complete tasks, in the parent. Only one thread may call the methods.

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
        If the system has no sealed files in memory, or no space for one.
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
        """Set the two bits of `key`, because its task is complete."""
        for place, bit in _bits(key):
            self._map[place] |= bit

    def close(self) -> None:
        """Close the memory in the parent. Processes that have opened the memory can still read it."""
        self._map.close()
        self._file.close()


class KeyFilterReader:
    """Reads the bits, in a process that runs tasks. Any thread may call the methods.

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
        """Return False if the task of `key` is not complete, and True if the parent must be asked."""
        return all(self._map[place] & bit for place, bit in _bits(key))


def _bits(key: bytes) -> Iterator[tuple[int, int]]:
    """Yield the two bits of `key`, each as (number of the byte in the memory, value of the bit in this byte)."""
    for start in (0, 3):
        number = int.from_bytes(key[start : start + 3], "little")
        yield number >> 3 & (_BYTES - 1), 1 << (number & 7)

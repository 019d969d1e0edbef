"""Manifests that wait for the end of their file: few in memory, the others on the disk beside it.

A long run of small chunks has hundreds of bytes of manifest for each, which nobody needs until the file is closed.
"""

from __future__ import annotations

import logging
import mmap
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mpr.limits import MANIFEST_STORE_MAX_BYTES
from mpr.rrd.manifest import Manifest

_log = logging.getLogger("mpr")

# Arrow reads its buffers where they are; they begin at multiples of this.
_ALIGNED = 64


class ManifestStore:
    """Takes manifests, and has them all.

    Parameters
    ----------
    folder:
        Where there is room for them, in files without a name, which are gone with this process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: list[Manifest] = []
        self._stored: list[Manifest] = []
        self._max_bytes = MANIFEST_STORE_MAX_BYTES

    def add(self, manifests: Iterable[Manifest]) -> None:
        self._kept += manifests
        size = sum(each.table.nbytes for each in self._kept)
        if size <= self._max_bytes:
            return
        try:
            self._stored += _on_disk(self._kept, self._folder)
            self._kept.clear()
        except OSError as error:
            # Rather memory than a footer that is missing; and not one more attempt for each manifest that comes.
            self._max_bytes = 2 * size
            _log.debug("manifests stay in memory: %s", error)

    @property
    def chunks(self) -> int:
        """How many chunks they describe."""
        return sum(each.table.num_rows for each in self.all())

    def all(self) -> list[Manifest]:
        """All that were added, in their order."""
        return self._stored + self._kept


def _on_disk(manifests: list[Manifest], folder: Path) -> list[Manifest]:
    """The same manifests, whose tables are read from a file when somebody looks at them."""
    import pyarrow as pa

    with tempfile.TemporaryFile(dir=folder, prefix=".mpr-manifests-") as file:
        spans = []
        for each in manifests:
            start = file.seek(-file.tell() % _ALIGNED, 1)
            with pa.ipc.new_stream(file, each.table.schema) as writer:
                writer.write_table(each.table)
            spans.append((start, file.tell()))
        file.flush()
        stored = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return [
        replace(each, table=pa.ipc.open_stream(stored.slice(start, end - start)).read_all())
        for each, (start, end) in zip(manifests, spans, strict=True)
    ]

"""Keeps manifests until their file is closed: a few in memory, the others on the disk beside the file.

The reason is that the manifests of many small chunks are large, and that they are needed only when the file is closed.

Covers: keeping manifests, and moving them to the disk.
Does not cover: merging them (`footer.py`).
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mpr.limits import MANIFEST_STORE_MAX_BYTES
from mpr.rrd.manifest import Manifest
from mpr.user_code import log as _log

# Each table begins at a multiple of this many bytes, because Arrow uses the mapped buffers in place.
_ALIGNED = 64


class ManifestStore:
    """Keeps the manifests that were added for one file.

    Parameters
    ----------
    folder:
        A folder on a disk with enough space. Manifests are written there to files without a name. The system deletes
        these files at the latest when this process ends.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: list[Manifest] = []
        self._stored: list[Manifest] = []
        self._max_bytes = MANIFEST_STORE_MAX_BYTES

    def add(self, manifests: Iterable[Manifest]) -> None:
        """Keep `manifests` in memory. If the manifests in memory are too large together, move all of them to the disk.

        The limit is `MANIFEST_STORE_MAX_BYTES` (16 MiB). If the disk reports an error, the manifests stay in memory,
        and the limit becomes higher.
        """
        self._kept += manifests
        size = sum(each.table.nbytes for each in self._kept)
        if size <= self._max_bytes:
            return
        try:
            self._stored += _on_disk(self._kept, self._folder)
            self._kept.clear()
        except OSError as error:
            # The manifests stay in memory, because a missing footer would be worse. The limit grows, so that the next
            # calls do not try to write to the disk again at once.
            self._max_bytes = 2 * size
            _log.debug("manifests stay in memory: %s", error)

    @property
    def chunks(self) -> int:
        """The number of chunks that all added manifests describe."""
        return sum(each.table.num_rows for each in self.all())

    def all(self) -> list[Manifest]:
        """Return all manifests in the order in which they were added."""
        return self._stored + self._kept


def _on_disk(manifests: list[Manifest], folder: Path) -> list[Manifest]:
    """Write the tables of `manifests` to a file, and return manifests whose tables are read from this file on use.

    The file is in `folder`, and has no name. Raises `OSError` if the disk reports an error.
    """
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

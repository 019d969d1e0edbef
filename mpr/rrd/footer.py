"""Makes the footer of a file: one manifest per store. A store is a recording or a blueprint.

Covers: merging the manifests that the SDK wrote, and letting the SDK describe chunks that no manifest describes.
Does not cover: the form of a manifest (`manifest.py`), merging many columns (`wide_footer.py`) and writing the file
(`writer.py`, `recover.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from mpr.rrd import compat, framing, manifest, store_id, wide_footer
from mpr.rrd.manifest import ChunkLocation, Manifest

# The SDK reads chunks without a manifest again in lots of up to this many bytes. A larger chunk is read alone.
_LOT_BYTES = 32 * 1024 * 1024
# The SDK merges columns by reading one chunk of each kind, if these chunks have at most this many bytes together. It
# needs a few times these bytes of memory. Measured with 10,000 and 20,000 entities: this takes half the time and a
# fifth of the memory of `rerun rrd route`. That command reads no chunk, so it is used if the chunks are large.
_MERGED_BYTES = 32 * 1024 * 1024


@dataclass(kw_only=True)
class ManifestMaker:
    """Makes the manifests and the footer of one file.

    Attributes
    ----------
    fd:
        A readable descriptor of the file.
    header:
        The header of the stream: the first 12 bytes of the file.
    store_infos:
        The payload of the store info of each store, by the store's encoded id.
    """

    fd: int
    header: bytes = b""
    store_infos: dict[bytes, bytes] = field(default_factory=dict)

    def begin(self, header: bytes) -> None:
        """Keep `header`, the first 12 bytes of the file, because each stream that the SDK reads needs a header."""
        self.header = header

    def add_store(self, store: bytes, info: bytes) -> bool:
        """Keep `info`, the payload of a store info. `store` is the encoded store id in `info`.

        Returns True if the store is new. Returns False, and keeps nothing, if the store has a store info already.
        """
        if store in self.store_infos:
            return False
        self.store_infos[store] = info
        return True

    def closing(self, end: int, manifests: Iterable[Manifest]) -> bytes:
        """Return the bytes that close the file: the `END` frame, and the 32 bytes behind it.

        `end` is the offset of the `END` frame. `manifests` describe all chunks of the file. They are merged into one
        manifest per store. If manifests of one store have different columns, the SDK may read some chunks again. If the
        SDK cannot read a chunk, it raises an error of any type.
        """
        stores: dict[bytes, list[Manifest]] = {}
        for each in manifests:
            stores.setdefault(each.store_id, []).append(each)
        merged = [self._merged_store(store, parts) for store, parts in stores.items()]
        return framing.closing(end, [manifest.encode(each) for each in merged])

    def described(self, places: Iterable[ChunkLocation]) -> list[Manifest]:
        """Have the SDK read the chunks at `places` in the file, and return manifests that describe them.

        If the SDK cannot read a chunk, it raises an error of any type.
        """
        lots: dict[bytes, list[list[ChunkLocation]]] = {}
        sizes: dict[bytes, int] = {}
        for start, size in places:
            store = store_id.store_id_of_chunk(os.pread(self.fd, size, start + framing.FRAME_HEADER_SIZE))
            own = lots.setdefault(store, [[]])
            sizes[store] = sizes.get(store, 0) + size
            if sizes[store] > _LOT_BYTES and own[-1]:
                own.append([])
                sizes[store] = size
            own[-1].append((start, size))
        return [self._located(store, lot) for store, own in lots.items() for lot in own]

    def _merged_store(self, store: bytes, parts: list[Manifest]) -> Manifest:
        table = manifest.merged_table(parts)
        model = parts[0]
        if not manifest.same_columns(parts):
            # Only the SDK can make a schema with all columns, and its hash. For this, the SDK needs only one chunk for
            # each entity path and set of columns.
            places = manifest.chunk_locations(table, manifest.one_chunk_of_each_kind(table))
            small = sum(size for _, size in places) <= _MERGED_BYTES
            routed = None
            if not small and store in self.store_infos:
                head = self.header + _info_frame(self.store_infos[store])
                routed = wide_footer.routed(store, parts, table, fd=self.fd, head=head)
            model = routed or self._by_sdk(store, places)
        return replace(model, store_id=store, table=table)

    def _located(self, store: bytes, places: list[ChunkLocation]) -> Manifest:
        """Return the SDK's manifest of the chunks at `places`, with their offsets and sizes in this file.

        All chunks at `places` belong to `store`.
        """
        described = self._by_sdk(store, places)
        locations = {}
        for start, size in places:
            payload = os.pread(self.fd, size, start + framing.FRAME_HEADER_SIZE)
            locations[store_id.chunk_id(payload)] = (start + framing.FRAME_HEADER_SIZE, size)
        table = described.table
        found = [locations[each] for each in table[manifest.CHUNK_ID].to_pylist()]
        table = manifest.with_offsets(table, [offset for offset, _ in found])
        table = manifest.with_sizes(table, [size for _, size in found])
        return replace(described, store_id=store, table=table)

    def _by_sdk(self, store: bytes, places: list[ChunkLocation]) -> Manifest:
        """Return the SDK's manifest of the chunks at `places`, which all belong to `store`.

        Its store id, its offsets and its sizes belong to another stream (see `compat.manifest_by_sdk`).
        """
        # Only the store info of this store, because a file may have thousands of stores.
        infos = [_info_frame(self.store_infos[store])] if store in self.store_infos else []
        chunks = [os.pread(self.fd, size + framing.FRAME_HEADER_SIZE, start) for start, size in places]
        return compat.manifest_by_sdk(b"".join([self.header, *infos, *chunks]))


def _info_frame(info: bytes) -> bytes:
    return framing.frame_header(framing.SET_STORE_INFO, len(info)) + info

"""Finds the entities, kinds of data and timelines of a recording, as far as the layout needs them.

A chunk is a table with rows of one entity. A frame is one message of the file format. A segment is a piece of a stream
of rows, made of frames. A manifest is a table at the end of a stream, with the entities and columns of the stream. The
entity `/mpr` and all entities below it are left out, because mpr itself logs them. Entities whose paths begin with
`/__` are left out too, such as the properties of the recording.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from mpr.rrd import framing, manifest, store_id
from mpr.rrd.segment import Segment
from mpr.sdk import encoder, reader

if TYPE_CHECKING:
    import pyarrow as pa


# The most chunks, and the most bytes, of a recording that mpr decodes. Later data is known only from the manifests.
_LOOK_CHUNKS = 200
_LOOK_BYTES = 8 * 1024 * 1024


class Contents:
    """Holds the entities and timelines of one recording, as far as they are known.

    Parameters
    ----------
    store:
        The encoded store id of the recording: its kind, application id and recording id, in the file format.

    Attributes
    ----------
    kinds:
        The archetypes (kinds of data) of each entity, such as `Points2D`.
    timelines:
        A weight for each timeline, which says roughly how much data is on the timeline: the number of decoded rows on
        the timeline, and one more for each manifest that names it. A chunk or a manifest adds nothing if all its
        entities are left out.
    has_layout:
        True if a process has sent a blueprint along with its rows. Only `peek` sets this attribute.
    """

    def __init__(self, store: bytes) -> None:
        self._store = store
        self.kinds: dict[str, set[str]] = {}
        self.timelines: Counter[str] = Counter()
        self.has_layout: bool = False
        self._lock = threading.Lock()
        self._chunks_left, self._bytes_left = _LOOK_CHUNKS, _LOOK_BYTES
        # The frame that introduces the recording.
        self._info = b""
        self._peeked: list[bytes] = []

    def peek(self, segment: Segment) -> None:
        """Keep a copy of the chunks of `segment` for `learn`, until 200 chunks or 8 MiB were kept in all.

        Chunks that come before the store info of the recording are not kept. Sets `has_layout` if a frame of `segment`
        makes a blueprint the active one. Ignores rows of telemetry, and rows of recordings that tasks make themselves.
        Two threads must not call this method at the same time.
        """
        if segment.store is not None or segment.telemetry:
            return
        if any(frame.kind == framing.BLUEPRINT_ACTIVATION for frame in segment.frames):
            self.has_layout = True
        if self._chunks_left <= 0:
            return
        for frame in segment.frames:
            if frame.kind == framing.SET_STORE_INFO:
                data = segment.bytes_of(frame)
                if store_id.store_id_of_info(data[framing.FRAME_HEADER_SIZE :]) == self._store:
                    self._info = data
            elif frame.kind == framing.ARROW_MSG and self._info:
                self._chunks_left -= 1
                self._bytes_left -= frame.size
                if self._chunks_left < 0 or self._bytes_left < 0:
                    self._chunks_left = 0
                    return
                with self._lock:
                    self._peeked.append(segment.bytes_of(frame))

    def learn(self) -> None:
        """Decode the chunks that `peek` has kept, note their entities and timelines, and release the chunks.

        Any thread may call this method. Raises the errors of the SDK's reader if a chunk is damaged.
        """
        with self._lock:
            peeked, self._peeked = self._peeked, []
        if peeked:
            header = encoder.encoded_head()[: framing.HEADER_SIZE]
            for chunk in reader.chunks_of(b"".join([header, self._info, *peeked]), blueprints=False):
                self._note(chunk.to_record_batch().schema, chunk.num_rows)

    def note(self, footer: bytes) -> None:
        """Note the entities and timelines in `footer`, the payload of the `END` frame that ends a stream.

        The payload has the manifests of the stream. Manifests of other recordings are ignored. Any thread may call this
        method. Raises `FormatError` if a manifest cannot be read.
        """
        for store, schema in manifest.schemas(footer):
            if store == self._store:
                self._note(schema, 1)

    def _note(self, schema: pa.Schema, rows: int) -> None:
        with self._lock:
            has_users = False
            for field in schema:
                meta: dict[bytes, Any] = field.metadata or {}
                if meta.get(b"rerun:kind") == b"data":
                    path = meta.get(b"rerun:entity_path") or (schema.metadata or {}).get(b"rerun:entity_path", b"/")
                    entity = path.decode()
                    if not _is_ours(entity):
                        has_users = True
                        kind, found, _ = meta[b"rerun:component"].decode().partition(":")
                        self.kinds.setdefault(entity, set()).update([kind] if found else [])
            for field in schema:
                if has_users and (field.metadata or {}).get(b"rerun:kind") == b"index":
                    self.timelines[field.name] += rows

    def weights(self) -> dict[str, int]:
        """Return a copy of `timelines`: the weight of each timeline that is known now."""
        with self._lock:
            return dict(self.timelines)

    def snapshot(self) -> dict[str, frozenset[str]]:
        """Return a copy of `kinds`: the archetypes of each entity that is known now."""
        with self._lock:
            return {entity: frozenset(kinds) for entity, kinds in self.kinds.items()}


def _is_ours(entity: str) -> bool:
    return entity == "/mpr" or entity.startswith(("/mpr/", "/__"))

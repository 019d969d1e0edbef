"""The columns of a store whose manifests differ, merged by `rerun rrd route`: fast for 10,000 columns.

Covers: the two small streams that make the SDK merge and hash the columns.
Does not cover: when this is worth a process (`footer.py`), and the rows of a manifest (`manifest.py`).

It can go when the SDK merges columns by itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mpr import errors
from mpr.rrd import framing, manifest, protobuf
from mpr.rrd.manifest import Manifest
from mpr.sdk import programs

if TYPE_CHECKING:
    import pyarrow as pa


_log = logging.getLogger("mpr")


def routed(store: bytes, parts: list[Manifest], table: pa.Table, *, fd: int, head: bytes) -> Manifest | None:
    """A manifest with the columns of all `parts`; None where the SDK does not give one.

    `rerun rrd route` merges and hashes the columns of the streams that it gets without looking at a chunk. Here all
    columns have been merged: it gets two streams of one and the same small chunk, which claim all columns and some.
    """
    try:
        columns = merged_columns(parts)
    except ValueError as error:
        _log.debug("the SDK has to merge columns: %s", error)
        return None
    sizes = table[manifest.SIZE].to_pylist()
    least = sizes.index(min(sizes))
    ((start, size),) = manifest.chunk_locations(table, [least])
    row = table.slice(least, 1)
    some = _columns_without_others(columns, row[manifest.ENTITY][0].as_py())
    row = manifest.with_offsets(row, [len(head) + framing.FRAME_HEADER_SIZE])
    head += os.pread(fd, size + framing.FRAME_HEADER_SIZE, start)
    streams = []
    for mark, claimed, listed in ((b"0", columns, row), (b"1", some, _without_others(row))):
        # The hashes are none: where they differ, it makes a new one.
        claim = Manifest(store_id=store, schema=_encode_columns(claimed), sha256=32 * mark, table=listed)
        streams.append(head + framing.closing(len(head), [manifest.encode(claim)]))
    try:
        merged = programs.routed(b"".join(streams))
        end = framing.frames_of(merged)[-1]
        (found,) = manifest.parse(merged[end.payload : end.end])
        if set(merged_columns([found])) == set(columns):
            return found
        _log.debug("'rerun rrd route' gives other columns")
    except (OSError, errors.FormatError, KeyError, IndexError, ValueError) as error:
        _log.debug("'rerun rrd route' does not merge columns: %r", error)
    return None


def merged_columns(manifests: Iterable[Manifest]) -> pa.Schema:
    """The columns of all stores that are described, each once.

    As the SDK's `SchemaBuilder` merges those of chunks: what is semantically empty everywhere stays so. Raises
    `ValueError` where a component is static in one and not in another: the first chunk of the file decides on it then.
    """
    import pyarrow as pa

    empty, static = b"rerun:is_semantically_empty", b"rerun:is_static"
    found: dict[pa.Field, bool] = {}
    is_static: dict[pa.Field, bool] = {}
    for each in {one.sha256: one for one in manifests}.values():
        for column in pa.ipc.read_schema(pa.BufferReader(protobuf.field(each.schema, 1))):
            meta = column.metadata or {}
            if empty in meta:
                column = column.with_metadata({key: value for key, value in meta.items() if key != empty})
            found[column] = found.get(column, True) and meta.get(empty) == b"true"
            if is_static.setdefault(column, static in meta) != (static in meta):
                raise ValueError(f"{column.name} is static in one chunk, and not in another")
    return pa.schema(
        column.with_metadata({**(column.metadata or {}), empty: b"true"}) if is_empty else column
        for column, is_empty in found.items()
    )


def _columns_without_others(columns: pa.Schema, entity: str) -> pa.Schema:
    """Those of `columns` that are not of another entity than `entity`."""
    import pyarrow as pa

    path = entity.encode()
    return pa.schema(each for each in columns if (each.metadata or {}).get(b"rerun:entity_path", path) == path)


def _without_others(row: pa.Table) -> pa.Table:
    """`row`, a table of one chunk, without the times of components that this chunk has not."""
    others = [
        each.name for each in row.schema if row[each.name].null_count and b"rerun:component" in (each.metadata or {})
    ]
    return row.drop_columns(others)


def _encode_columns(columns: pa.Schema) -> bytes:
    """`columns` as what stands in a `Manifest.schema`."""
    return protobuf.encode_field(1, columns.serialize().to_pybytes())

"""Merges the columns of the manifests of one store, and reads only the smallest chunk of the store.

Covers: the two streams from which the command `rerun rrd route` merges and hashes the columns.
Does not cover: the decision to start another process for this (`footer.py`), and the rows of a manifest
(`manifest.py`).

This module can be removed when the SDK has a function that merges columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mpr import errors
from mpr.rrd import framing, manifest, protobuf
from mpr.rrd.manifest import Manifest
from mpr.sdk import programs
from mpr.user_code import log as _log

if TYPE_CHECKING:
    import pyarrow as pa


def routed(store: bytes, parts: list[Manifest], table: pa.Table, *, fd: int, head: bytes) -> Manifest | None:
    """Return a manifest with the columns of all `parts`. Its rows describe no chunk of the file.

    Returns None if a component is static in only some of `parts`, or if `rerun rrd route` fails or gives other columns.

    If the manifests of two streams differ, `rerun rrd route` merges the columns that they list, and reads no chunk. So
    the command gets two streams with the same chunk, the smallest one. One manifest lists all columns, and the other
    one only the timelines and the columns of the chunk's entity.

    Parameters
    ----------
    store:
        The encoded id of the store.
    parts:
        The manifests of the store, with columns that differ.
    table:
        The rows of all `parts`.
    fd:
        A readable descriptor of the file.
    head:
        The header of the file, and the frame with the store info of the store.
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
        # The two marks stand in place of the hashes. Because the marks differ, the command computes a real hash.
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
    """Return the columns that `manifests` describe, each column once, as an Arrow schema.

    As in the SDK, a column is marked as semantically empty only if every manifest that has the column marks it so.
    Raises `ValueError` if a component is static in one manifest and not in another.
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
    """Return `columns` without the columns of other entities than `entity`.

    Columns without an entity, such as timelines, stay.
    """
    import pyarrow as pa

    path = entity.encode()
    return pa.schema(each for each in columns if (each.metadata or {}).get(b"rerun:entity_path", path) == path)


def _without_others(row: pa.Table) -> pa.Table:
    """Return `row` (a table of one chunk) without the columns of components that the chunk does not have."""
    others = [
        each.name for each in row.schema if row[each.name].null_count and b"rerun:component" in (each.metadata or {})
    ]
    return row.drop_columns(others)


def _encode_columns(columns: pa.Schema) -> bytes:
    """Return `columns` as bytes, in the form of `Manifest.schema`."""
    return protobuf.encode_field(1, columns.serialize().to_pybytes())

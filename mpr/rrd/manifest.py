"""Reads, changes, merges and encodes the manifests of an `.rrd` file.

A file has one manifest for each store. A store is a recording or a blueprint. The manifest has one row for each chunk
of the store.

Covers: reading the manifests of an `END` frame, changing their byte offsets, merging and counting their rows.
Does not cover: the frames around them (`framing.py`) and merging schemas that differ (`footer.py`, `wide_footer.py`).

In a file, a manifest is the protobuf message `RrdManifest{store_id = 1, sorbet_schema = 2, sorbet_schema_sha256 = 3,
data = 4}`. Its field `data` has an Arrow stream, which is usually compressed (LZ4). Source: rerun-io/rerun,
`re_protos/proto/rerun/v1alpha1/log_msg.proto` and `re_log_encoding/src/rrd/footer/raw_rrd_manifest.rs`.
"""

from __future__ import annotations

import functools
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from mpr.errors import FormatError
from mpr.rrd import framing, protobuf

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


# The names of columns in the table of a manifest.
OFFSET = "chunk_byte_offset"
SIZE = "chunk_byte_size"
CHUNK_ID = "chunk_id"
ENTITY = "chunk_entity_path"
_ROWS = "chunk_num_rows"
_STATIC = "chunk_is_static"

# The number of the compression LZ4 in the protobuf message.
_LZ4 = 2
# LZ4 makes data smaller by this factor at most.
_LZ4_RATIO = 255

ChunkLocation: TypeAlias = tuple[int, int]
"""The place of a chunk in a file: the offset of its frame, and the size of its payload in bytes."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The manifest of one store.

    `store_id` is the encoded store id. `table` has one row per chunk. `schema` is the encoded list of the columns of
    the store, and `sha256` is the SHA-256 hash of the schema.
    """

    store_id: bytes
    schema: bytes
    sha256: bytes
    table: pa.Table


class OffsetMap:
    """Maps offsets in a source, such as an outbox, to offsets in its copy, which is a file or a stream.

    A run is a range of bytes of the source that was copied to one place. Add the runs in their order in the source.
    """

    def __init__(self) -> None:
        # Arrays of bare numbers take little memory. There may be many runs, because each small segment is a run.
        self._sources = array("q")
        self._shifts = array("q")

    def add(self, source: int, target: int) -> None:
        """Add a run that was copied from the offset `source` to the offset `target`."""
        shift = target - source
        if not self._shifts or self._shifts[-1] != shift:
            self._sources.append(source)
            self._shifts.append(shift)

    def target(self, source: int) -> int:
        """Return the offset to which the byte at the offset `source` was copied. The byte must be in an added run."""
        return source + self._shifts[bisect_right(self._sources, source) - 1]


def parse(footer: bytes) -> list[Manifest]:
    """Return the manifests in `footer`, the payload of an `END` frame. Raises `FormatError` if they cannot be read."""
    try:
        return [_parsed(message) for message in _messages(footer)]
    except FormatError:
        raise
    except Exception as error:
        # Arrow raises errors of many types for bytes that it cannot read.
        raise FormatError(f"a manifest that cannot be read: {error!r}") from error


def _messages(footer: bytes) -> Iterator[bytes]:
    return (value for number, value in protobuf.fields(footer) if number == 1 and isinstance(value, bytes))


def _parsed(message: bytes) -> Manifest:
    import pyarrow as pa

    part: dict[int, Any] = dict(protobuf.fields(protobuf.field(message, 4)))
    payload = part[2]
    if part.get(3) == _LZ4:
        if not 0 <= part[4] <= _LZ4_RATIO * len(payload):
            # Refused before memory is allocated for the decompressed bytes.
            raise FormatError(f"a manifest of {len(payload)} bytes that claims {part[4]}")
        payload = pa.Codec("lz4_raw").decompress(payload, part[4])
    table = pa.ipc.open_stream(payload).read_all()
    # When Arrow reads values, it does not check the offsets of these values. A wrong offset could end this process.
    table.validate(full=True)
    for name in (OFFSET, SIZE):
        if not pa.types.is_integer(table[name].type) or table[name].null_count:
            raise FormatError(f"a manifest whose column {name} has no numbers")
    return Manifest(
        store_id=protobuf.field(message, 1),
        schema=protobuf.field(message, 2),
        sha256=protobuf.field(message, 3),
        table=table,
    )


def schemas(footer: bytes) -> Iterator[tuple[bytes, pa.Schema]]:
    """Return an iterator of pairs, one for each manifest in `footer`: the id and the columns of its store.

    The store id is encoded, and the columns are an Arrow schema. `footer` is the payload of an `END` frame. Raises
    `FormatError` if a schema cannot be read.
    """
    try:
        return iter([_schema(message) for message in _messages(footer)])
    except FormatError:
        raise
    except Exception as error:
        raise FormatError(f"a schema that cannot be read: {error!r}") from error


def components_of(footer: bytes, store: bytes, entity: str) -> set[str]:
    """Return the names, such as "RecordingInfo:name", of the components that `store` has at the entity path `entity`.

    `footer` is the payload of an `END` frame, and `store` is an encoded store id. Raises `FormatError` if a schema
    cannot be read.
    """
    return {
        field.metadata[b"rerun:component"].decode()
        for found, schema in schemas(footer)
        if found == store
        for field in schema
        if (field.metadata or {}).get(b"rerun:kind") == b"data"
        and field.metadata.get(b"rerun:entity_path") == entity.encode()
    }


def _schema(message: bytes) -> tuple[bytes, pa.Schema]:
    import pyarrow as pa

    encoded = protobuf.field(protobuf.field(message, 2), 1)
    schema = pa.ipc.read_schema(pa.BufferReader(encoded))
    for column in schema:
        meta = column.metadata or {}
        if meta.get(b"rerun:kind") == b"data":
            meta[b"rerun:component"].decode()
            meta.get(b"rerun:entity_path", b"/").decode()
    return protobuf.field(message, 1), schema


def encode(manifest: Manifest) -> bytes:
    """Return `manifest` as the bytes of one protobuf message `RrdManifest` (see the docstring of this module)."""
    import pyarrow as pa

    table = manifest.table.combine_chunks()
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    raw = out.getvalue()
    packed = pa.Codec("lz4_raw").compress(raw).to_pybytes()
    data = b"".join(protobuf.encode_field(n, v) for n, v in ((1, 1), (2, packed), (3, _LZ4), (4, raw.size)))
    parts = ((1, manifest.store_id), (2, manifest.schema), (3, manifest.sha256), (4, data))
    return b"".join(protobuf.encode_field(number, value) for number, value in parts)


def _with_numbers(table: pa.Table, name: str, numbers: list[int]) -> pa.Table:
    import pyarrow as pa

    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(index), pa.array(numbers, pa.uint64()))


def with_offsets(table: pa.Table, offsets: list[int]) -> pa.Table:
    """Return a copy of `table` with `offsets` as the offsets of the chunks' payloads, one for each row, in bytes."""
    return _with_numbers(table, OFFSET, offsets)


def with_sizes(table: pa.Table, sizes: list[int]) -> pa.Table:
    """Return a copy of `table` with `sizes` as the sizes of the chunks' payloads, one for each row, in bytes."""
    return _with_numbers(table, SIZE, sizes)


def chunk_locations(table: pa.Table, rows: Iterable[int]) -> list[ChunkLocation]:
    """Return the places of the chunks in the rows of `table` whose indexes are in `rows`, in the order of `rows`.

    `table` is the table of a manifest.
    """
    offsets, sizes = table[OFFSET], table[SIZE]
    return [(offsets[row].as_py() - framing.FRAME_HEADER_SIZE, sizes[row].as_py()) for row in rows]


def all_locations(manifests: Iterable[Manifest]) -> list[ChunkLocation]:
    """Return the places of all chunks that `manifests` describe."""
    found: list[ChunkLocation] = []
    for each in manifests:
        starts = (offset - framing.FRAME_HEADER_SIZE for offset in each.table[OFFSET].to_pylist())
        found += zip(starts, each.table[SIZE].to_pylist(), strict=True)
    return found


def moved(manifest: Manifest, offsets: OffsetMap) -> Manifest:
    """Return a copy of `manifest` with the offset of each chunk replaced by the offset to which `offsets` maps it."""
    header = framing.FRAME_HEADER_SIZE
    targets = [offsets.target(source - header) + header for source in manifest.table[OFFSET].to_pylist()]
    return replace(manifest, table=with_offsets(manifest.table, targets))


def same_columns(manifests: list[Manifest]) -> bool:
    """Return True if all `manifests`, of which there is at least one, describe the same columns."""
    return len({manifest.sha256 for manifest in manifests}) == 1


def merged_table(manifests: list[Manifest]) -> pa.Table:
    """Return the rows of all manifests in one table.

    The rows of a manifest that lacks a column get null in this column, or `False` or 0 if the column is not nullable.
    The SDK fills missing values in the same way (`RawRrdManifest::merge`). If a column of times has several types,
    all its values get the first type.
    """
    import pyarrow as pa

    tables = [manifest.table for manifest in manifests]
    if all(table.schema.equals(tables[0].schema) for table in tables):
        return pa.concat_tables(tables)
    required: dict[str, pa.Field] = {}
    types: dict[str, pa.DataType] = {}
    nullable = []
    for table in tables:
        required |= {each.name: each for each in table.schema if not each.nullable}
        for index, each in enumerate(table.schema):
            wanted = types.setdefault(each.name, each.type)
            if each.type != wanted:
                # The cast changes no value, because all times have 64 bits.
                table = table.set_column(
                    index, each.with_type(wanted), table.column(index).cast(pa.int64()).cast(wanted)
                )
        # The table is not cast to the new schema, because `cast` loads `pyarrow.compute`. This took 30 ms for the first
        # file of a process.
        loose = pa.schema([each.with_nullable(True) for each in table.schema])
        nullable.append(pa.Table.from_arrays(table.columns, schema=loose))
    merged = pa.concat_tables(nullable, promote_options="default")
    for name, strict in required.items():
        index = merged.schema.get_field_index(name)
        merged = merged.set_column(index, strict, _filled(merged[name]))
    return merged


def _filled(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a copy of `column` with `False` or 0 instead of null.

    Each array of `column` must have only values, or only nulls.
    """
    import numpy as np
    import pyarrow as pa

    zeros = functools.partial(np.zeros, dtype=column.type.to_pandas_dtype())
    pieces = [pa.array(zeros(len(piece)), column.type) if piece.null_count else piece for piece in column.chunks]
    return pa.chunked_array(pieces, column.type)


def one_chunk_of_each_kind(table: pa.Table) -> list[int]:
    """Return the indexes of some rows of `table`: one for each combination of an entity path and filled columns.

    `table` is the table of a manifest, with one row per chunk. A column is filled in a row if its value there is not
    null. A column `...:has_static_data` is filled if its value is true. Of several rows with the same path and the same
    filled columns, the one with the lowest offset is chosen. So each column that is filled in `table` is also filled in
    one of the chosen rows.
    """
    import numpy as np

    entities = table[ENTITY].to_pylist()
    filled = np.zeros((table.num_rows, table.num_columns), dtype=bool)
    for index in range(table.num_columns):
        column = table.column(index)
        if table.schema.field(index).name.endswith(":has_static_data"):
            filled[:, index] = column.to_numpy()
        else:
            filled[:, index] = np.concatenate([_validity(piece) for piece in column.chunks] or [filled[:0, index]])
    packed = np.packbits(filled, axis=1)
    first: dict[tuple[str, bytes], int] = {}
    for row in np.argsort(table[OFFSET].to_pylist()).tolist():
        first.setdefault((entities[row], packed[row].tobytes()), row)
    return list(first.values())


def _validity(piece: pa.Array) -> NDArray[np.bool_]:
    """Return an array of `bool` that is True for each value of `piece` that is not null."""
    import numpy as np

    if piece.null_count in (0, len(piece)):
        return np.full(len(piece), not piece.null_count)
    bits = np.unpackbits(np.frombuffer(piece.buffers()[0], np.uint8), bitorder="little")
    return bits[piece.offset : piece.offset + len(piece)].astype(bool)


def all_rows(footer: bytes, store: bytes) -> int:
    """Return the number of rows in all chunks of the recording `store`, by the manifests in `footer`.

    `store` is an encoded store id, and `footer` is the payload of an `END` frame. Raises `FormatError` if a manifest
    cannot be read.
    """
    return sum(sum(each.table[_ROWS].to_pylist()) for each in parse(footer) if each.store_id == store)


def timed_rows(found: Manifest) -> int:
    """Return the number of rows in the chunks that the manifest `found` describes. Static rows are not counted."""
    rows = zip(found.table[_STATIC].to_pylist(), found.table[_ROWS].to_pylist(), strict=True)
    return sum(count for is_static, count in rows if not is_static)


def row_count(found: Manifest, *, users_only: bool = True) -> int:
    """Return the number of rows in the chunks that the manifest `found` describes.

    If `users_only` is true, rows of mpr itself (below `/mpr/`) and properties of the recording are not counted.
    """
    rows = zip(found.table[ENTITY].to_pylist(), found.table[_ROWS].to_pylist(), strict=True)
    return sum(count for entity, count in rows if not (users_only and entity.startswith(("/mpr/", "/__properties"))))

"""Writes golden recordings: with one release of the SDK, the same rows give the same bytes.

So version control shows a change only if the rows or the SDK have changed.

A golden recording is a file with the rows that a test should log. A chunk is a table with rows of one entity.

The SDK gives each row and each chunk an id that depends on the time. This module replaces these ids by fixed ones. It
puts all rows of an entity with the same columns into one chunk, and leaves out the times at which rows were logged
(`log_time` and `log_tick`). A row without any time would be static. So in a chunk without other timelines, `log_time`
stays, but has the number of each row in the chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr.compare.cells import keys
from mpr.pytest_plugin.recording.test_stream import TestStream
from mpr.rrd import framing, manifest, protobuf

if TYPE_CHECKING:
    import pyarrow as pa
    from rerun.chunk import Chunk

_LOG_TIME = "log_time"
_KIND = b"rerun:kind"


def write(target: str, chunks: Iterable[Chunk], stream: TestStream, ignored_timelines: Collection[str]) -> None:
    """Write the rows of `chunks` to the file `target` with the stream `stream`, which must have no open file.

    The times on `ignored_timelines` are left out (see `canonical`). The recording gets an id that depends only on the
    application id of `stream`. Raises `OSError` or the SDK's `RuntimeError` if the file cannot be written.
    """
    import rerun as rr

    stream.open(target)
    rr.send_chunks(canonical(chunks, ignored_timelines), recording=stream.public)
    recording_id = hashlib.sha256(stream.application_id.encode()).hexdigest()[: len(stream.recording_id)]
    if not stream.close(recording_id):
        raise OSError(f"cannot write {target}")
    path = Path(target)
    path.write_bytes(_without_chance(path.read_bytes()))


def canonical(chunks: Iterable[Chunk], ignored_timelines: Collection[str]) -> list[Chunk]:
    """Return the rows of `chunks` in one chunk for each entity and set of columns.

    The same rows give the same chunks, also if they were logged in another order. The times on `ignored_timelines` are
    left out. If a chunk has times only on these timelines, its `log_time` stays, but has the number of each row in the
    chunk (from 0). If such a chunk has no `log_time`, the times on one timeline stay as they are.
    """
    import pyarrow as pa
    from rerun.chunk import Chunk

    groups: dict[tuple[str, str], list[pa.RecordBatch]] = {}
    for chunk in chunks:
        batch = _without_times_of_logging(chunk.to_record_batch(), ignored_timelines)
        groups.setdefault((str(chunk.entity_path), _columns(batch)), []).append(batch)
    found: list[Chunk] = []
    for number, (key, batches) in enumerate(sorted(groups.items())):
        schema = batches[0].schema
        table = pa.Table.from_batches([pa.RecordBatch.from_arrays(each.columns, schema=schema) for each in batches])
        (whole,) = _in_order(table).combine_chunks().to_batches()
        found += Chunk.from_record_batch(_numbered(whole, number + 1, key))
    return found


def _columns(batch: pa.RecordBatch) -> str:
    return repr([(field.name, str(field.type)) for field in batch.schema])


def _kinds(batch: Any) -> dict[str, bytes]:
    return {field.name: (field.metadata or {}).get(_KIND, b"") for field in batch.schema}


def _without_times_of_logging(batch: pa.RecordBatch, ignored_timelines: Collection[str]) -> pa.RecordBatch:
    """Return the chunk `batch` without the columns of `ignored_timelines`.

    If the chunk has no other times, one of these columns stays (`log_time` if there is one), because rows without any
    time would be static. A static chunk is returned with all its columns.
    """
    times = [name for name, kind in _kinds(batch).items() if kind == b"index"]
    ignored = [name for name in times if name in ignored_timelines]
    if times and len(ignored) == len(times):
        ignored.remove(_LOG_TIME if _LOG_TIME in times else times[0])
    kept = [name for name in batch.schema.names if name not in ignored]
    found: pa.RecordBatch = batch.select(kept)
    return found


def _in_order(table: pa.Table) -> pa.Table:
    """Return `table` with its rows sorted by their times, and rows of the same time by the keys of their values.

    `keys` (`mpr/compare/cells.py`) makes the keys. The order of logging is not kept, because it may be different in
    each run if several processes log. `log_time` does not count as a time.
    """
    kinds = _kinds(table)
    times = [name for name, kind in kinds.items() if kind == b"index" and name != _LOG_TIME]
    values = [name for name, kind in kinds.items() if kind == b"data"]
    columns: list[list[Any]] = [table.column(name).to_pylist() for name in times]
    return table.take(_order([*columns, *(keys(table.column(name).combine_chunks()) for name in values)]))


def _order(columns: list[list[Any]]) -> list[int]:
    rows = list(zip(*columns, strict=True))
    # A row without a time on a timeline comes first.
    return sorted(range(len(rows)), key=lambda at: [(each is not None, each) for each in rows[at]])


def _numbered(batch: pa.RecordBatch, number: int, key: tuple[str, str]) -> pa.RecordBatch:
    """Return the chunk `batch` with row ids made from `number` and the row's position, and a chunk id made from `key`.

    `number` is the number of the chunk in the file (from 1). `key` is the entity path and the columns of the chunk. A
    column `log_time` gets the positions of the rows (from 0).
    """
    import pyarrow as pa

    columns, fields = [], []
    for field, column, kind in zip(batch.schema, batch.columns, _kinds(batch).values(), strict=True):
        metadata = {name: value for name, value in (field.metadata or {}).items() if name != b"rerun:is_sorted"}
        if kind == b"control":
            ids = [((number << 64) + row + 1).to_bytes(16, "big") for row in range(len(batch))]
            column = pa.array(ids, pa.binary(16))
        elif field.name == _LOG_TIME:
            column = pa.array(range(len(batch)), pa.int64()).cast(field.type)
        columns.append(column)
        fields.append(field.with_metadata(metadata))
    own_id = hashlib.sha256(repr(key).encode()).hexdigest()[:32].upper()
    metadata = {**batch.schema.metadata, b"rerun:id": f"chunk_{own_id}".encode()}
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, metadata))


def _without_chance(data: bytes) -> bytes:
    """Return `data`, the bytes of an `.rrd` file, without the differences that two files of equal chunks have.

    The store info, which is the message with the ids of the recording, has an id of its own. This id is replaced by a
    fixed one. The columns of the schemas in the footer, and all metadata there, are sorted.
    """
    parts = [data[: framing.HEADER_SIZE]]
    for frame in framing.frames_of(data):
        payload = data[frame.payload : frame.end]
        if frame.kind == framing.END:
            manifests = [manifest.encode(_sorted(each)) for each in manifest.parse(payload)]
            parts.append(framing.closing(frame.start, manifests))
            continue
        if frame.kind == framing.SET_STORE_INFO:
            # The id has two numbers of 64 bits, each behind a byte for its place in the message.
            its_id = protobuf.field(payload, 1)
            fixed = b"".join(its_id[at : at + 1] + bytes(8) for at in range(0, len(its_id), 9))
            payload = protobuf.replace_field(payload, 1, fixed[: len(its_id)])
        parts += (framing.frame_header(frame.kind, frame.size), payload)
    return b"".join(parts)


def _sorted(found: manifest.Manifest) -> manifest.Manifest:
    import pyarrow as pa

    def with_sorted_metadata(schema: pa.Schema) -> pa.Schema:
        fields = [field.with_metadata(dict(sorted((field.metadata or {}).items()))) for field in schema]
        return pa.schema(fields, dict(sorted((schema.metadata or {}).items())))

    schema = with_sorted_metadata(pa.ipc.read_schema(pa.BufferReader(protobuf.field(found.schema, 1))))
    schema = pa.schema(sorted(schema, key=lambda field: field.name), schema.metadata)
    return replace(
        found,
        schema=protobuf.encode_field(1, schema.serialize().to_pybytes()),
        table=pa.table(found.table.columns, schema=with_sorted_metadata(found.table.schema)),
    )

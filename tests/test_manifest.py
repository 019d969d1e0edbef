"""Manifests: the places that an outbox's bytes went to, and several manifests joined to one."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpr.rrd import framing, manifest, manifest_store, protobuf
from mpr.rrd.manifest import Manifest, OffsetMap
from tests import streams

# --- offsets ------------------------------------------------------------------------------------------------------

# Runs of (gap before it in the source, gap before it in the target, size).
_RUNS = st.lists(st.tuples(st.integers(0, 5), st.integers(-5, 5), st.integers(1, 20)), min_size=1, max_size=12)


@given(_RUNS)
def test_every_byte_of_every_run_is_found_where_it_went(runs: list[tuple[int, int, int]]) -> None:
    offsets = OffsetMap()
    expected: dict[int, int] = {}
    source = target = 100
    for gap, jump, size in runs:
        source += gap
        target += jump
        offsets.add(source, target)
        expected.update({source + each: target + each for each in range(size)})
        source += size
        target += size
    assert expected == {each: offsets.target(each) for each in expected}


def test_runs_that_continue_each_other_cost_nothing() -> None:
    offsets = OffsetMap()
    for start in range(0, 1000, 10):
        offsets.add(start, start + 7)
    assert 1 == len(offsets._sources)


# --- one manifest -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def points() -> Manifest:
    return streams.manifest_of(streams.encoded(streams.log_points))


@pytest.fixture(scope="module")
def text() -> Manifest:
    return streams.manifest_of(streams.encoded(streams.log_text))


def test_an_encoded_manifest_is_read_back_as_it_was(points: Manifest, text: Manifest) -> None:
    footer = b"".join(protobuf.encode_field(1, manifest.encode(each)) for each in (points, text))
    for expected, actual in zip((points, text), manifest.parse(footer), strict=True):
        assert (expected.store_id, expected.schema, expected.sha256) == (
            actual.store_id,
            actual.schema,
            actual.sha256,
        )
        assert expected.table.equals(actual.table, check_metadata=True)


def test_a_moved_manifest_has_new_offsets_and_nothing_else_changes(points: Manifest) -> None:
    sources = points.table[manifest.OFFSET].to_pylist()
    offsets = OffsetMap()
    # The frame of each chunk is moved by another distance.
    expected = {}
    for index, payload in enumerate(sorted(sources)):
        frame = payload - framing.FRAME_HEADER_SIZE
        offsets.add(frame, frame + 1000 * (index + 1))
        expected[payload] = payload + 1000 * (index + 1)
    moved = manifest.moved(points, offsets)
    assert [expected[source] for source in sources] == moved.table[manifest.OFFSET].to_pylist()
    assert points.table.schema.equals(moved.table.schema, check_metadata=True)
    assert points.table.drop([manifest.OFFSET]).equals(moved.table.drop([manifest.OFFSET]), check_metadata=True)
    assert (points.store_id, points.schema, points.sha256) == (moved.store_id, moved.schema, moved.sha256)


# --- several manifests --------------------------------------------------------------------------------------------


def test_manifests_of_equal_columns_are_one_below_the_other(points: Manifest) -> None:
    merged = manifest.merged_table([points, points])
    assert pa.concat_tables([points.table, points.table]).equals(merged, check_metadata=True)
    assert manifest.same_columns([points, points])


def test_same_columns_is_false_for_manifests_of_differing_columns(points: Manifest, text: Manifest) -> None:
    assert not manifest.same_columns([points, text])


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 0), (1, 0, 1)])
def test_columns_that_some_lack_are_filled_as_the_reader_needs_them(
    points: Manifest, text: Manifest, order: tuple[int, ...]
) -> None:
    parts = [(points, text)[each] for each in order]
    merged = manifest.merged_table(parts)
    fields = {each.name: each for part in parts for each in part.table.schema}
    assert set(fields) == set(merged.schema.names)
    assert len(fields) == len(merged.schema.names)
    for name, expected in fields.items():
        assert expected.equals(merged.schema.field(name), check_metadata=True), name
    start = 0
    for part in parts:
        rows = merged.slice(start, part.table.num_rows)
        start += part.table.num_rows
        for name, field in fields.items():
            if name in part.table.schema.names:
                assert part.table[name].equals(rows[name]), name
            elif field.nullable:
                assert rows.num_rows == rows[name].null_count, name
            else:
                blank = False if pa.types.is_boolean(field.type) else 0
                assert [blank] * rows.num_rows == rows[name].to_pylist(), name
    assert start == merged.num_rows


def test_a_merged_table_can_be_encoded(points: Manifest, text: Manifest) -> None:
    merged = manifest.merged_table([points, text])
    whole = Manifest(store_id=b"id", schema=b"schema", sha256=b"hash", table=merged)
    (back,) = manifest.parse(protobuf.encode_field(1, manifest.encode(whole)))
    assert merged.equals(back.table, check_metadata=True)


def test_a_number_that_must_not_be_null_is_filled_with_zero() -> None:
    def with_table(table: pa.Table) -> Manifest:
        return Manifest(store_id=b"", schema=b"", sha256=b"", table=table)

    note = {b"rerun:index": b"frame"}
    first = pa.table({"a": pa.array([1, 2], pa.uint64())}, pa.schema([pa.field("a", pa.uint64(), False, note)]))
    second = pa.table({"b": pa.array([True])}, pa.schema([pa.field("b", pa.bool_(), False, note)]))
    merged = manifest.merged_table([with_table(first), with_table(second)])
    assert [{"a": 1, "b": False}, {"a": 2, "b": False}, {"a": 0, "b": True}] == merged.to_pylist()
    assert [first.schema.field("a"), second.schema.field("b")] == list(merged.schema)
    assert [note, note] == [field.metadata for field in merged.schema]


# --- kinds of chunks ----------------------------------------------------------------------------------------------


@st.composite
def _tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 12))
    # More columns than fit a byte, as the sets of columns are compared in packed form.
    columns = draw(st.integers(0, 12))
    flags = st.lists(st.booleans(), min_size=rows, max_size=rows)
    data = {
        manifest.ENTITY: pa.array(draw(st.lists(st.sampled_from("abc"), min_size=rows, max_size=rows)), pa.string())
    }
    for index in range(columns):
        if draw(st.booleans()):
            data[f"c{index}:has_static_data"] = pa.array(draw(flags), pa.bool_())
        else:
            data[f"c{index}:start"] = pa.array([5 if each else None for each in draw(flags)], pa.int64())
    data[manifest.OFFSET] = pa.array(draw(st.permutations(range(rows))), pa.uint64())
    table = pa.table(data)
    # A column has several pieces after merging.
    cut = draw(st.integers(0, rows))
    return pa.concat_tables([table.slice(0, cut), table.slice(cut)])


def _kinds(table: pa.Table, rows: list[int]) -> list[tuple[str, frozenset[str]]]:
    listed = table.to_pylist()
    return [
        (
            listed[row][manifest.ENTITY],
            frozenset(name for name, value in listed[row].items() if value is not None and value is not False),
        )
        for row in rows
    ]


@given(_tables())
@settings(deadline=None)
def test_one_chunk_of_each_entity_with_each_set_of_columns_is_chosen(table: pa.Table) -> None:
    chosen = manifest.one_chunk_of_each_kind(table)
    kinds = _kinds(table, chosen)
    assert set(_kinds(table, list(range(table.num_rows)))) == set(kinds)
    assert len(set(kinds)) == len(kinds)
    # The first chunk of each kind is chosen, in the order of the file.
    offsets = table[manifest.OFFSET].to_pylist()
    in_file = sorted(range(table.num_rows), key=offsets.__getitem__)
    first = {kind: row for row, kind in reversed(list(zip(in_file, _kinds(table, in_file), strict=True)))}
    assert sorted(first.values(), key=offsets.__getitem__) == chosen


def test_the_chunks_of_a_real_stream_are_of_as_many_kinds_as_it_has(points: Manifest) -> None:
    # `scene` and `scene/points` static, and three entities with temporal rows.
    assert 5 == len(manifest.one_chunk_of_each_kind(manifest.merged_table([points, points])))


# --- many of them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [True, False])
def test_a_manifest_store_has_all_manifests_that_were_added(
    room: bool, points: Manifest, text: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_store, "MANIFEST_STORE_MAX_BYTES", 2 * points.table.nbytes)
    folder = tmp_path if room else tmp_path / "missing"
    full = manifest_store.ManifestStore(folder)
    for _ in range(5):
        full.add([points, text])
    assert 5 * [points, text] == full.all()
    assert [] == list(tmp_path.iterdir())
    in_memory = sum(any(each is kept for kept in (points, text)) for each in full.all())
    assert (in_memory < 4) if room else (10 == in_memory)

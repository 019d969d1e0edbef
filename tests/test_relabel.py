"""A stream with another store id is the same stream to Rerun's own tools."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import rerun as rr

import mpr
from mpr.rrd import compat, framing, manifest, protobuf, relabel, store_id
from mpr.rrd.manifest import OFFSET, SIZE
from tests import streams


def _first_of_a_stream() -> bytes:
    """Return a stream with the store infos that the SDK writes before the first chunk."""
    stream = rr.RecordingStream("first_app", recording_id="first-recording", send_properties=False)
    storage = stream.binary_stream()
    streams.log_points(stream)
    data = storage.read(flush=True)
    assert data
    return data


def _later_of_a_stream() -> bytes:
    streams.encoded(streams.log_text)
    return streams.encoded(streams.log_points)


def _verify(path: Path) -> None:
    command = shutil.which("rerun", path=Path(sys.executable).parent)
    assert command is not None
    verified = subprocess.run(
        [command, "rrd", "verify", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (0, "1 file verified without error.") == (verified.returncode, verified.stderr.strip())


def _by_id(chunks: Iterable[Any]) -> dict[str, tuple[str, pa.RecordBatch]]:
    return {str(chunk.id): (str(chunk.entity_path), chunk.to_record_batch()) for chunk in chunks}


@pytest.mark.parametrize("make", [_first_of_a_stream, _later_of_a_stream])
@pytest.mark.parametrize(
    ("application", "recording"),
    # These ids are shorter and longer than the old ones, so sizes and offsets change in both directions.
    [("a", "b"), ("another application: [with] all_that-it may have", "ö" * 300)],
)
def test_a_relabelled_stream_is_a_valid_file_of_the_other_recording(
    make: Any, application: str, recording: str, tmp_path: Path
) -> None:
    original = make()
    data = relabel.relabelled(original, store_id.store_id(application, recording))
    before, after = tmp_path / "before.rrd", tmp_path / "after.rrd"
    before.write_bytes(original)
    after.write_bytes(data)
    _verify(after)
    reader = rr.chunk.RrdReader(after)
    (entry,) = reader.recordings()
    assert (application, recording) == (entry.application_id, entry.recording_id)
    expected = _by_id(rr.chunk.RrdReader(before).stream())
    assert 5 == len(expected)
    assert expected == _by_id(reader.stream())
    # `store` reads through the manifest, not from the start.
    assert expected == _by_id(reader.store().stream())
    assert 5 == len(reader.store())


def test_the_manifest_of_a_relabelled_stream_says_where_its_chunks_are() -> None:
    data = relabel.relabelled(_first_of_a_stream(), store_id.store_id("app", "id"))
    frames = [frame for frame in streams.all_frames(data) if frame.kind == framing.ARROW_MSG]
    table = streams.manifest_of(data).table
    places = zip(table[OFFSET].to_pylist(), table[SIZE].to_pylist(), strict=True)
    assert sorted((frame.payload, frame.size) for frame in frames) == sorted(places)


def test_nothing_of_the_old_ids_is_left() -> None:
    original = _first_of_a_stream()
    data = relabel.relabelled(original, store_id.store_id("app", "id"))
    for old in (b"first_app", b"first-recording"):
        assert old in original
        assert old not in data


def test_a_store_id_is_what_the_sdk_makes_of_the_same_ids() -> None:
    data = _first_of_a_stream()
    info = streams.all_frames(data)[0]
    store = store_id.store_id_of_info(data[info.payload : info.end])
    assert store == store_id.store_id("first_app", "first-recording")


def test_relabelling_with_its_own_ids_changes_nothing() -> None:
    data = _first_of_a_stream()
    again = relabel.relabelled(data, store_id.store_id("first_app", "first-recording"))
    end = streams.all_frames(data)[-1]
    assert data[: end.start] == again[: end.start]
    # The manifest itself may be compressed in another way.
    assert streams.manifest_of(data) == streams.manifest_of(again)


def test_a_stream_without_a_store_info_can_get_one() -> None:
    """The SDK writes one at the start of a stream only, and each recording of a process needs one."""
    original = _later_of_a_stream()
    assert framing.SET_STORE_INFO not in {frame.kind for frame in streams.all_frames(original)}
    store = store_id.store_id("app", "id")
    data = relabel.relabelled(original, store, compat.store_info())
    frames = streams.all_frames(data)
    assert framing.SET_STORE_INFO == frames[0].kind
    assert store == store_id.store_id_of_info(data[frames[0].payload : frames[0].end])
    assert store == store_id.store_id_of_chunk(data[frames[1].payload : frames[1].end])
    places = {(frame.payload, frame.size) for frame in frames if frame.kind == framing.ARROW_MSG}
    table = streams.manifest_of(data).table
    assert places == set(zip(table[OFFSET].to_pylist(), table[SIZE].to_pylist(), strict=True))


def test_every_recording_of_a_process_begins_with_its_store_info(tmp_path: Path) -> None:
    for number in range(2):
        path = tmp_path / f"{number}.rrd"
        with mpr.SharedRecording("app", recording_id=f"id-{number}", sinks=path):
            pass
        _verify(path)
        data = path.read_bytes()
        first = streams.all_frames(data)[0]
        assert framing.SET_STORE_INFO == first.kind
        assert store_id.store_id("app", f"id-{number}") == store_id.store_id_of_info(data[first.payload : first.end])


def test_the_manifest_of_another_store_keeps_its_id() -> None:
    old, new, blueprint = (store_id.store_id("app", name) for name in ("old", "new", "blueprint"))
    data = streams.encoded(streams.log_points)
    footer = next(frame for frame in framing.frames_of(data) if frame.kind == framing.END)
    (found,) = manifest.parse(data[footer.payload : footer.end])
    empty = found.table.slice(0, 0)
    both = [replace(found, store_id=each, table=empty) for each in (old, blueprint)]
    payload = b"".join(protobuf.encode_field(1, manifest.encode(each)) for each in both)
    assert [each.store_id for each in relabel.Relabeller(old, new).manifests(payload)] == [new, blueprint]

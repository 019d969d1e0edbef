"""A file that is written: what happens to it if something goes wrong half-way, and what is left for the next run."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import rerun as rr

import mpr
from mpr.errors import FormatError
from mpr.rrd import footer, framing, manifest, store_id, wide_footer
from mpr.rrd.part_file import PartFile
from mpr.rrd.segment import MessageBytes, Segment
from mpr.rrd.writer import FileWriter
from tests import producers, streams, support


def _frames(stream: bytes) -> list[framing.Frame]:
    return [each for each in framing.frames_of(stream) if each.kind != framing.END]


def _segment(outbox: int, *numbers: int) -> Segment:
    stream = producers.whole(*numbers)
    return Segment(outbox, MessageBytes(0, stream), _frames(stream))


class _Meanwhile(MessageBytes):
    """Bytes of a segment, during whose copy something happens to the file."""

    def __init__(self, data: bytes, happens: Callable[[int], None]) -> None:
        super().__init__(0, data)
        self._happens = happens

    def copy(self, target: int, offset: int, size: int) -> None:
        super().copy(target, offset, size)
        self._happens(target)


def _cut(target: int) -> None:
    os.ftruncate(target, 50)


def _fail(_target: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_a_killed_run_has_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".run.rrd.part").write_bytes(b"left " * 10_000)
    writer = producers.new_file(tmp_path / "run.rrd")
    writer.accept(_segment(1, 1), published=True)
    writer.close()
    support.check_file(tmp_path / "run.rrd")
    assert support.numbers(tmp_path / "run.rrd") == Counter([1])


def test_a_path_is_free_when_its_file_is_closed_though_a_child_has_it_open(tmp_path: Path) -> None:
    file = PartFile(tmp_path / "run.rrd")
    # A forked child has the same open file.
    inherited = os.dup(file.fd)
    with pytest.raises(mpr.SinkError, match="is being written by another recording"):
        PartFile(tmp_path / "run.rrd")
    file.publish()
    file.close()
    PartFile(tmp_path / "run.rrd").close()
    os.close(inherited)


def test_a_file_that_cannot_be_removed_is_still_closed(tmp_path: Path) -> None:
    file = PartFile(tmp_path / "run.rrd")
    fd = file.fd
    # Another program has put a folder there.
    file.part.unlink()
    file.part.mkdir()
    with pytest.raises(OSError, match="directory"):
        file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_file_that_is_cut_while_a_segment_is_copied_is_no_success(tmp_path: Path) -> None:
    writer = producers.new_file(tmp_path / "run.rrd")
    writer.accept(_segment(1, 1), published=True)
    stream = producers.whole(2)
    with pytest.raises(mpr.SinkError, match="were written, it has 50"):
        writer.accept(Segment(2, _Meanwhile(stream, _cut), _frames(stream)), published=True)
    writer.abort()


def test_nothing_of_a_segment_that_failed_half_way_stays(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    writer = producers.new_file(path)
    writer.accept(_segment(1, 1), published=True)
    size, stream = path.stat().st_size, producers.whole(2)
    with pytest.raises(mpr.SinkError, match="Input/output error"):
        writer.accept(Segment(2, _Meanwhile(stream, _fail), _frames(stream)), published=True)
    assert path.stat().st_size == writer.log.end == size
    writer.accept(_segment(3, 3), published=True)
    writer.close()
    support.check_file(path)
    assert support.numbers(path) == Counter([1, 3])


def test_each_store_is_introduced_once(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    writer = producers.new_file(path)
    stream = rr.RecordingStream("first_app", recording_id="first", send_properties=False)
    storage = stream.binary_stream()
    stream.log("n", rr.Scalars(1.0))
    data = storage.read(flush=True)
    assert data is not None
    info = next(frame for frame in framing.frames_of(data) if frame.kind == framing.SET_STORE_INFO)
    for outbox in (1, 2):
        writer.accept(Segment(outbox, MessageBytes(0, data), [info]), published=False)
    writer.accept(_segment(3, 1), published=True)
    kinds = Counter(frame.kind for frame in framing.frames_of(path.read_bytes()))
    writer.abort()
    # That of the file itself, and the other one.
    assert kinds[framing.SET_STORE_INFO] == 2


def test_a_manifest_of_other_chunks_is_refused_and_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    writer = producers.new_file(path)
    writer.accept(_segment(1, 1, 2), published=True)
    other = producers.whole(3)
    end = framing.frames_of(other)[-1]
    with pytest.raises(FormatError, match="does not describe"):
        writer.take_manifests(1, manifest.parse(other[end.payload : end.end]))
    writer.close()
    support.check_file(path)
    assert support.numbers(path) == Counter([1, 2])


def test_chunks_without_a_manifest_are_described_however_large_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.rrd"
    monkeypatch.setattr(footer, "_LOT_BYTES", 10)
    writer = producers.new_file(path)
    for number in range(3):
        writer.accept(_segment(number + 1, number), published=True)
    asked: list[int] = []
    by_sdk = footer.ManifestMaker._by_sdk

    def count(self: footer.ManifestMaker, store: bytes, places: list[manifest.ChunkLocation]) -> manifest.Manifest:
        asked.append(len(places))
        return by_sdk(self, store, places)

    monkeypatch.setattr(footer.ManifestMaker, "_by_sdk", count)
    writer.close()
    # Each is larger than what is read at a time, so each is read alone, and nothing else is.
    assert asked[:3] == [1, 1, 1]
    assert 0 not in asked
    support.check_file(path)
    assert support.numbers(path) == Counter(range(3))


def test_a_component_that_is_static_in_one_chunk_only_is_left_to_the_sdk() -> None:
    def log(is_static: bool) -> manifest.Manifest:
        return streams.manifest_of(
            streams.encoded(lambda stream: stream.log("a", rr.TextDocument("x"), static=is_static))
        )

    assert wide_footer.merged_columns([log(True), log(True)])
    with pytest.raises(ValueError, match="is static in one chunk, and not in another"):
        wide_footer.merged_columns([log(True), log(False)])


def test_a_file_is_of_its_own_recording(tmp_path: Path) -> None:
    writer = FileWriter(tmp_path / "run.rrd")
    writer.abort()
    assert not list(tmp_path.iterdir())
    assert store_id.ids_of_store(producers.STORE) == ("mpr", "mpr")

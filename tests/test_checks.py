"""The checks of bytes that come from a producer: any bytes are right or a `FormatError`, and soon."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import rerun as rr
from hypothesis import given, settings
from hypothesis import strategies as st

from mpr.errors import FormatError
from mpr.rrd import checks, framing, manifest, protobuf
from mpr.rrd.checks import FrameCheck
from mpr.rrd.segment import MessageBytes, Segment
from mpr.rrd.writer import FileWriter
from mpr.sdk import encoder, reader
from mpr.transport.result_journal import ResultJournal, ResultJournalReader
from mpr.transport.status_page import PAGE_BYTES, StatusPage, StatusPageReader
from tests import support


def _write(stream: rr.RecordingStream) -> None:
    for step in range(12):
        stream.set_time("step", sequence=step)
        stream.log(f"point/{step % 3}", rr.Scalars(step))
        stream.flush()
    stream.log("text", rr.TextLog("a text"), static=True)


_STREAM = encoder.encoded_by_sdk(_write)
_FRAMES = framing.frames_of(_STREAM)
_FOOTER = _STREAM[_FRAMES[-1].payload : _FRAMES[-1].end]


@st.composite
def _changed(draw: st.DrawFn, data: bytes) -> bytes:
    """Yield `data` with some bytes changed, added or removed."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(out)))
        removed = draw(st.integers(0, 20))
        out[at : at + removed] = draw(st.binary(max_size=20))
    return bytes(out)


def test_a_real_stream_is_right() -> None:
    frames, footer, store = checks.check_stream(_STREAM)
    assert [*frames, _FRAMES[-1]] == _FRAMES
    assert footer == _FOOTER
    assert store is not None


def test_a_stream_cut_anywhere_is_refused() -> None:
    for size in {*range(0, len(_STREAM), 37), len(_STREAM) - 1}:
        with pytest.raises(FormatError):
            checks.check_stream(_STREAM[:size])


@given(_changed(_STREAM))
@settings(deadline=None)
def test_a_changed_stream_is_right_or_refused(data: bytes) -> None:
    try:
        checks.check_stream(data)
    except FormatError:
        pass


@given(st.binary(max_size=200) | _changed(_FOOTER))
@settings(deadline=None)
def test_a_changed_footer_is_right_or_refused(footer: bytes) -> None:
    try:
        checks.check_footer(footer)
    except FormatError:
        return
    for each in manifest.parse(footer):
        assert all(isinstance(offset, int) for offset in each.table[manifest.OFFSET].to_pylist())


@given(st.integers(0, len(_FOOTER) - 1), st.integers(1, 60))
@settings(deadline=None)
def test_zeros_in_a_footer_do_not_fit_its_closing_bytes(at: int, size: int) -> None:
    last = _FRAMES[-1]
    data = bytearray(_STREAM)
    zeros = bytes(min(size, last.end - last.payload - at))
    data[last.payload + at : last.payload + at + len(zeros)] = zeros
    if bytes(data) == _STREAM:
        return
    with pytest.raises(FormatError, match="is damaged"):
        checks.closed_footer(MessageBytes(0, bytes(data)).read, last, len(data))


def test_an_end_without_all_its_closing_bytes_is_not_there_yet() -> None:
    last = _FRAMES[-1]
    read = MessageBytes(0, _STREAM).read
    for end in range(last.end, len(_STREAM)):
        assert checks.closed_footer(read, last, end) is None
    assert checks.closed_footer(read, last, len(_STREAM)) == _FOOTER
    with pytest.raises(FormatError, match="is damaged"):
        checks.closed_footer(MessageBytes(0, _STREAM + b"x").read, last, len(_STREAM) + 1)


def test_zeros_are_no_end() -> None:
    zeros = MessageBytes(0, bytes(4096))
    frames, _ = framing.scan(zeros.read, 0, 4096)
    with pytest.raises(FormatError, match="is damaged"):
        checks.closed_footer(zeros.read, frames[-1], 4096)


@given(st.lists(st.tuples(st.integers(1, 3), st.binary(min_size=1, max_size=60)), max_size=5))
@settings(deadline=None)
def test_frames_with_any_payload_are_right_or_refused(parts: list[tuple[int, bytes]]) -> None:
    data = b"".join(framing.frame_header(kind, len(payload)) + payload for kind, payload in parts)
    source = MessageBytes(0, data)
    frames, _ = framing.scan(source.read, 0, len(data))
    try:
        FrameCheck().check(source.read, frames)
    except FormatError:
        return
    # A chunk that is taken has a store id.
    for frame in frames:
        if frame.kind == framing.ARROW_MSG:
            protobuf.leading_field(source.read(frame.payload, frame.size))


def test_every_chunk_is_checked_and_not_only_the_first() -> None:
    chunk = next(each for each in _FRAMES if each.kind == framing.ARROW_MSG)
    good = _STREAM[chunk.start : chunk.end]
    bad = framing.frame_header(framing.ARROW_MSG, chunk.size) + bytes(chunk.size)
    source = MessageBytes(0, good + good + bad)
    frames, _ = framing.scan(source.read, 0, 3 * len(good))
    checked = FrameCheck()
    checked.check(source.read, frames[:2])
    with pytest.raises(FormatError):
        checked.check(source.read, frames[2:])


_LONG = b"\x80" * 3_000_000


@pytest.mark.parametrize(
    "parse",
    [
        lambda: list(protobuf.fields(_LONG)),
        lambda: protobuf.field(_LONG, 1),
        lambda: protobuf.leading_field(b"\n" + _LONG),
        lambda: protobuf.replace_field(_LONG, 1, b""),
        lambda: manifest.parse(_LONG),
        lambda: list(manifest.schemas(_LONG)),
        lambda: protobuf.field(b"\x08" + b"\xff" * 10 + b"\x01", 1),
    ],
)
def test_a_number_of_megabytes_is_refused_at_once(parse: Callable[[], object]) -> None:
    began = time.monotonic()
    with pytest.raises(FormatError, match="more than 10 bytes"):
        parse()
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("value", [0, 127, 128, 2**32, 2**63, 2**64 - 1])
def test_a_number_of_64_bits_is_read(value: int) -> None:
    assert list(protobuf.fields(protobuf.encode_field(1, value))) == [(1, value)]


@pytest.mark.parametrize("claimed", [2**31, 2**50, 2**63, 2**64 - 1])
def test_no_memory_is_taken_for_what_a_footer_claims(claimed: int) -> None:
    data = b"".join(protobuf.encode_field(number, value) for number, value in ((1, 1), (2, b"\x10abc"), (3, 2)))
    parts = ((1, b"s"), (2, b""), (3, b"0" * 32), (4, data + protobuf.encode_field(4, claimed)))
    message = b"".join(protobuf.encode_field(number, value) for number, value in parts)
    with pytest.raises(FormatError, match=f"claims {claimed}"):
        manifest.parse(protobuf.encode_field(1, message))


def test_a_frame_that_no_message_could_carry_is_damage() -> None:
    data = framing.frame_header(framing.ARROW_MSG, 2**40)
    with pytest.raises(FormatError, match="impossible size of a frame at offset 0"):
        framing.scan(MessageBytes(0, data).read, 0, len(data))


def _of_other_chunks(found: manifest.Manifest) -> manifest.Manifest:
    offsets = found.table[manifest.OFFSET].to_pylist()
    return replace(found, table=manifest.with_offsets(found.table, [*offsets[1:], offsets[-1] + 16]))


def _of_larger_chunks(found: manifest.Manifest) -> manifest.Manifest:
    sizes = found.table[manifest.SIZE].to_pylist()
    return replace(found, table=manifest.with_sizes(found.table, [size + 2**40 for size in sizes]))


def _of_some_chunks(found: manifest.Manifest) -> manifest.Manifest:
    return replace(found, table=found.table.slice(1))


def _without_a_column(found: manifest.Manifest) -> manifest.Manifest:
    return replace(found, table=found.table.drop_columns([manifest.OFFSET]))


@pytest.mark.parametrize("change", [_of_other_chunks, _of_larger_chunks, _of_some_chunks, _without_a_column])
def test_a_manifest_that_does_not_fit_is_made_anew(
    change: Callable[[manifest.Manifest], manifest.Manifest], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream = rr.RecordingStream("app", recording_id="whole", send_properties=False)
    stream.save(tmp_path / "whole.rrd")
    _write(stream)
    stream.disconnect()
    data = (tmp_path / "whole.rrd").read_bytes()
    frames = framing.frames_of(data)
    end = frames.pop()
    footer = b"".join(
        protobuf.encode_field(1, manifest.encode(change(each))) for each in manifest.parse(data[end.payload : end.end])
    )
    path = tmp_path / "run.rrd"
    writer = FileWriter(path)
    writer.begin(data[: framing.HEADER_SIZE])
    writer.accept(Segment(1, MessageBytes(0, data), frames), published=True)
    writer.add_manifests(1, footer)
    writer.close()
    assert "does not understand a manifest" in caplog.text
    support.check_file(path)
    assert support.cells(path) == support.cells(tmp_path / "whole.rrd")


def test_rows_that_could_not_all_be_encoded_are_in_no_other_recording() -> None:
    def write_and_fail(stream: rr.RecordingStream) -> None:
        _write(stream)
        raise LookupError("no more")

    with pytest.raises(LookupError):
        encoder.encoded_by_sdk(write_and_fail)
    only = encoder.encoded_by_sdk(lambda stream: stream.log("only", rr.TextLog("a text")))
    assert [str(chunk.entity_path) for chunk in reader.chunks_of(only)] == ["/only"]


# --- the journal --------------------------------------------------------------------------------------------------


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[tuple[StatusPage, StatusPageReader]]:
    page = StatusPage(tmp_path)
    page_reader = StatusPageReader(page.address, tmp_path)
    yield page, page_reader
    page_reader.close()
    page.close()


@pytest.mark.parametrize("seed", range(40))
def test_a_journal_of_noise_is_refused(seed: int, pages: tuple[StatusPage, StatusPageReader]) -> None:
    page, page_reader = pages
    assert page.fd is not None
    ResultJournal(page)
    noise = os.urandom(4 * PAGE_BYTES) if seed else b"\xff" * (4 * PAGE_BYTES)
    os.pwrite(page.fd, noise[: (seed + 1) * 400], PAGE_BYTES)
    try:
        for _, _, result in ResultJournalReader(page_reader).results():
            assert sum(map(len, result.payload)) <= 8 * 1024 * 1024
    except (ValueError, OSError):
        pass

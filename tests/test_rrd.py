"""Frames of a stream, the few protobuf messages that mpr reads, and the end of a file, compared with the SDK's own."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import rerun as rr
from hypothesis import given, settings
from hypothesis import strategies as st

from mpr import errors
from mpr.rrd import framing, protobuf, store_id
from tests import streams

# --- frames -------------------------------------------------------------------------------------------------------


def test_the_frames_of_a_real_stream_fill_it_from_header_to_footer() -> None:
    data = streams.encoded(streams.log_points)
    framing.check_header(data[: framing.HEADER_SIZE])
    frames, end = framing.scan(streams.reader(data), framing.HEADER_SIZE, len(data))
    assert [framing.HEADER_SIZE, *(frame.end for frame in frames)] == [*(frame.start for frame in frames), end]
    assert [framing.END] == [
        frame.kind for frame in frames if frame.kind not in (framing.SET_STORE_INFO, framing.ARROW_MSG)
    ]
    assert framing.END == frames[-1].kind
    # The footer entry and the closing bytes follow.
    assert end + 20 + 12 == len(data)


def test_a_stream_cut_at_any_byte_gives_its_whole_frames_and_the_rest_later() -> None:
    data = streams.encoded(streams.log_text)
    whole = streams.all_frames(data)
    for cut in range(framing.HEADER_SIZE, len(data) + 1):
        found, position = framing.scan(streams.reader(data[:cut]), framing.HEADER_SIZE, cut)
        assert [frame for frame in whole if frame.end <= cut] == found
        assert (found[-1].end if found else framing.HEADER_SIZE) == position
        if not found or found[-1].kind != framing.END:
            rest, _ = framing.scan(streams.reader(data), position, len(data))
            assert whole == found + rest


def test_a_stream_that_grows_by_single_bytes_gives_each_frame_once() -> None:
    data = streams.encoded(streams.log_text)
    whole = streams.all_frames(data)
    found: list[framing.Frame] = []
    position = framing.HEADER_SIZE
    for size in range(framing.HEADER_SIZE, whole[-1].end + 1):
        more, position = framing.scan(streams.reader(data), position, size)
        found += more
    assert whole == found


@given(
    # Around the size of one read (64 KiB): headers end up before, on and behind its border.
    st.lists(st.integers(0, 70) | st.integers(65_500, 65_560) | st.just(200_000), max_size=12),
    st.data(),
)
@settings(deadline=None, max_examples=60)
def test_frames_are_found_wherever_the_borders_of_reads_fall(sizes: list[int], data: st.DataObject) -> None:
    stream = b"".join(framing.frame_header(framing.ARROW_MSG, size) + bytes(size) for size in sizes)
    cut = data.draw(st.integers(0, len(stream)))
    first, position = framing.scan(streams.reader(stream), 0, cut)
    rest, end = framing.scan(streams.reader(stream), position, len(stream))
    assert sizes == [frame.size for frame in first + rest]
    assert len(stream) == end
    assert all(frame.end <= cut for frame in first)


def test_no_byte_behind_an_end_frame_is_taken_for_a_frame() -> None:
    stream = framing.frame_header(framing.END, 3) + b"abc" + b"\xff" * 100
    assert ([framing.Frame(framing.END, 0, 3)], 19) == framing.scan(streams.reader(stream), 0, len(stream))


@pytest.mark.parametrize("kind", [4, 255, 2**64 - 1])
def test_an_unknown_kind_of_frame_is_a_format_error_that_says_where(kind: int) -> None:
    stream = framing.frame_header(framing.ARROW_MSG, 5) + b"abcde" + struct.pack("<QQ", kind, 0)
    with pytest.raises(errors.FormatError, match=f"{kind} at offset 21"):
        framing.scan(streams.reader(stream), 0, len(stream))


@pytest.mark.parametrize(
    "change",
    [
        lambda header: b"RRF1" + header[4:],
        lambda header: header[:9] + b"\x01" + header[10:],
        lambda header: header[:11],
    ],
)
def test_another_header_than_the_known_one_is_a_format_error(change: Any) -> None:
    header = streams.encoded(streams.log_text)[: framing.HEADER_SIZE]
    framing.check_header(header)
    with pytest.raises(errors.FormatError, match="RRF2"):
        framing.check_header(change(header))


# --- protobuf -----------------------------------------------------------------------------------------------------

_NUMBERS = st.integers(1, 2**29 - 1)
_VALUES = st.integers(0, 2**64 - 1) | st.binary(max_size=300)
_FIELDS = st.lists(st.tuples(_NUMBERS, _VALUES), max_size=8)


def _encode(parts: list[tuple[int, int | bytes]]) -> bytes:
    return b"".join(protobuf.encode_field(number, value) for number, value in parts)


@given(_FIELDS)
def test_the_fields_of_a_message_come_out_as_they_went_in(parts: list[tuple[int, int | bytes]]) -> None:
    assert parts == list(protobuf.fields(_encode(parts)))


def test_fields_of_fixed_size_are_their_bytes() -> None:
    data = b"\x09" + b"12345678" + b"\x15" + b"1234"
    assert [(1, b"12345678"), (2, b"1234")] == list(protobuf.fields(data))


@given(_FIELDS, _NUMBERS)
def test_a_field_is_the_first_nested_one_of_its_number(parts: list[tuple[int, int | bytes]], number: int) -> None:
    nested = [value for found, value in parts if found == number and isinstance(value, bytes)]
    if nested:
        assert nested[0] == protobuf.field(_encode(parts), number)
    else:
        with pytest.raises(errors.FormatError, match=f"lacks field {number}"):
            protobuf.field(_encode(parts), number)


@given(_FIELDS, _NUMBERS, st.binary(max_size=300), _FIELDS, st.binary(max_size=300))
def test_replacing_a_field_leaves_all_others_as_they_are(
    before: list[tuple[int, int | bytes]], number: int, old: bytes, after: list[tuple[int, int | bytes]], new: bytes
) -> None:
    before = [part for part in before if part[0] != number]
    # Fields of a fixed size have to be passed over as well.
    fixed = b"\xf9\x01" + b"12345678" + b"\xfd\x01" + b"1234"
    data = fixed + _encode([*before, (number, old), *after])
    if number == 31:
        # The fixed fields have this number, and are no nested messages.
        data = data[len(fixed) :]
        fixed = b""
    assert fixed + _encode([*before, (number, new), *after]) == protobuf.replace_field(data, number, new)


@given(_FIELDS, _NUMBERS)
def test_replacing_a_field_that_is_not_there_is_a_format_error(
    parts: list[tuple[int, int | bytes]], number: int
) -> None:
    data = _encode([part for part in parts if part[0] != number])
    with pytest.raises(errors.FormatError, match=f"lacks field {number}"):
        protobuf.replace_field(data, number, b"new")


@given(st.binary(max_size=60), _NUMBERS)
@settings(max_examples=300)
def test_bytes_that_are_no_message_are_a_format_error_and_nothing_else(data: bytes, number: int) -> None:
    try:
        list(protobuf.fields(data))
        protobuf.replace_field(data, number, b"new")
    except errors.FormatError:
        pass


@given(_FIELDS.filter(bool), st.data())
def test_a_message_cut_short_is_a_format_error_or_lacks_fields(
    parts: list[tuple[int, int | bytes]], data: st.DataObject
) -> None:
    message = _encode(parts)
    cut = message[: data.draw(st.integers(0, len(message) - 1))]
    try:
        found = list(protobuf.fields(cut))
    except errors.FormatError:
        return
    assert parts[: len(found)] == found
    assert len(found) < len(parts)


# --- what the SDK wrote -------------------------------------------------------------------------------------------


def test_every_message_of_a_recording_has_the_same_store_id() -> None:
    stream = rr.RecordingStream("some_app", recording_id="some-recording", send_properties=False)
    storage = stream.binary_stream()
    streams.log_text(stream)
    data = storage.read(flush=True)
    frames = streams.all_frames(data)
    of_kind = {framing.SET_STORE_INFO: store_id.store_id_of_info, framing.ARROW_MSG: store_id.store_id_of_chunk}
    ids = {of_kind[each.kind](data[each.payload : each.end]) for each in frames if each.kind in of_kind}
    assert set(of_kind) <= {frame.kind for frame in frames}
    (store,) = ids
    assert b"some-recording" == protobuf.field(store, 2)
    assert b"some_app" == protobuf.field(protobuf.field(store, 3), 1)


def test_the_id_of_a_chunk_is_that_of_the_manifest() -> None:
    data = streams.encoded(streams.log_points)
    ids = [
        store_id.chunk_id(data[frame.payload : frame.end])
        for frame in streams.all_frames(data)
        if frame.kind == framing.ARROW_MSG
    ]
    assert sorted(streams.manifest_of(data).table["chunk_id"].to_pylist()) == sorted(ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("write", [streams.log_points, streams.log_text])
def test_the_closing_bytes_are_those_that_the_sdk_writes(write: Any) -> None:
    data = streams.encoded(write)
    end = streams.all_frames(data)[-1]
    manifests = [value for _, value in protobuf.fields(data[end.payload : end.end]) if isinstance(value, bytes)]
    assert data[end.start :] == framing.closing(end.start, manifests)

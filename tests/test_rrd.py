"""The frames of a stream, the few protobuf messages that mpr reads, and the end of a file, against the SDK's own."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import rerun as rr
from hypothesis import given, settings
from hypothesis import strategies as st

from mpr import errors, rrd
from tests import streams

# --- frames -------------------------------------------------------------------------------------------------------


def test_the_frames_of_a_real_stream_fill_it_from_header_to_footer() -> None:
    data = streams.encoded(streams.log_points)
    rrd.check_header(data[: rrd.HEADER_SIZE])
    frames, end = rrd.scan(streams.reader(data), rrd.HEADER_SIZE, len(data))
    assert [rrd.HEADER_SIZE, *(frame.end for frame in frames)] == [*(frame.start for frame in frames), end]
    assert [rrd.END] == [frame.kind for frame in frames if frame.kind not in (rrd.SET_STORE_INFO, rrd.ARROW_MSG)]
    assert rrd.END == frames[-1].kind
    # What comes behind: one footer entry and the words at the end.
    assert end + 20 + 12 == len(data)


def test_a_stream_cut_at_any_byte_gives_its_whole_frames_and_the_rest_later() -> None:
    data = streams.encoded(streams.log_text)
    whole = streams.all_frames(data)
    for cut in range(rrd.HEADER_SIZE, len(data) + 1):
        found, position = rrd.scan(streams.reader(data[:cut]), rrd.HEADER_SIZE, cut)
        assert [frame for frame in whole if frame.end <= cut] == found
        assert (found[-1].end if found else rrd.HEADER_SIZE) == position
        if not found or found[-1].kind != rrd.END:
            rest, _ = rrd.scan(streams.reader(data), position, len(data))
            assert whole == found + rest


def test_a_stream_that_grows_by_single_bytes_gives_each_frame_once() -> None:
    data = streams.encoded(streams.log_text)
    whole = streams.all_frames(data)
    found: list[rrd.Frame] = []
    position = rrd.HEADER_SIZE
    for size in range(rrd.HEADER_SIZE, whole[-1].end + 1):
        more, position = rrd.scan(streams.reader(data), position, size)
        found += more
    assert whole == found


@given(
    # Around the size of one read (64 KiB): headers end up before, on and behind its border.
    st.lists(st.integers(0, 70) | st.integers(65_500, 65_560) | st.just(200_000), max_size=12),
    st.data(),
)
@settings(deadline=None, max_examples=60)
def test_frames_are_found_wherever_the_borders_of_reads_fall(sizes: list[int], data: st.DataObject) -> None:
    stream = b"".join(rrd.frame_header(rrd.ARROW_MSG, size) + bytes(size) for size in sizes)
    cut = data.draw(st.integers(0, len(stream)))
    first, position = rrd.scan(streams.reader(stream), 0, cut)
    rest, end = rrd.scan(streams.reader(stream), position, len(stream))
    assert sizes == [frame.size for frame in first + rest]
    assert len(stream) == end
    assert all(frame.end <= cut for frame in first)


def test_no_byte_behind_an_end_frame_is_taken_for_a_frame() -> None:
    stream = rrd.frame_header(rrd.END, 3) + b"abc" + b"\xff" * 100
    assert ([rrd.Frame(rrd.END, 0, 3)], 19) == rrd.scan(streams.reader(stream), 0, len(stream))


@pytest.mark.parametrize("kind", [4, 255, 2**64 - 1])
def test_an_unknown_kind_of_frame_is_a_format_error_that_says_where(kind: int) -> None:
    stream = rrd.frame_header(rrd.ARROW_MSG, 5) + b"abcde" + struct.pack("<QQ", kind, 0)
    with pytest.raises(errors.FormatError, match=f"{kind} at offset 21"):
        rrd.scan(streams.reader(stream), 0, len(stream))


@pytest.mark.parametrize(
    "change",
    [
        lambda header: b"RRF1" + header[4:],
        lambda header: header[:9] + b"\x01" + header[10:],
        lambda header: header[:11],
    ],
)
def test_another_header_than_the_known_one_is_a_format_error(change: Any) -> None:
    header = streams.encoded(streams.log_text)[: rrd.HEADER_SIZE]
    rrd.check_header(header)
    with pytest.raises(errors.FormatError, match="RRF2"):
        rrd.check_header(change(header))


# --- protobuf -----------------------------------------------------------------------------------------------------

_NUMBERS = st.integers(1, 2**29 - 1)
_VALUES = st.integers(0, 2**64 - 1) | st.binary(max_size=300)
_FIELDS = st.lists(st.tuples(_NUMBERS, _VALUES), max_size=8)


def _encode(parts: list[tuple[int, int | bytes]]) -> bytes:
    return b"".join(rrd.encode_field(number, value) for number, value in parts)


@given(_FIELDS)
def test_the_fields_of_a_message_come_out_as_they_went_in(parts: list[tuple[int, int | bytes]]) -> None:
    assert parts == list(rrd.fields(_encode(parts)))


def test_fields_of_fixed_size_are_their_bytes() -> None:
    data = b"\x09" + b"12345678" + b"\x15" + b"1234"
    assert [(1, b"12345678"), (2, b"1234")] == list(rrd.fields(data))


@given(_FIELDS, _NUMBERS)
def test_a_field_is_the_first_nested_one_of_its_number(parts: list[tuple[int, int | bytes]], number: int) -> None:
    nested = [value for found, value in parts if found == number and isinstance(value, bytes)]
    if nested:
        assert nested[0] == rrd.field(_encode(parts), number)
    else:
        with pytest.raises(errors.FormatError, match=f"lacks field {number}"):
            rrd.field(_encode(parts), number)


@given(_FIELDS, _NUMBERS, st.binary(max_size=300), _FIELDS, st.binary(max_size=300))
def test_replacing_a_field_leaves_all_others_as_they_are(
    before: list[tuple[int, int | bytes]], number: int, old: bytes, after: list[tuple[int, int | bytes]], new: bytes
) -> None:
    before = [part for part in before if part[0] != number]
    # Fields of a fixed size have to be passed over as well.
    fixed = b"\xf9\x01" + b"12345678" + b"\xfd\x01" + b"1234"
    data = fixed + _encode([*before, (number, old), *after])
    if number == 31:
        # The number of the fixed ones, which are no nested messages.
        data = data[len(fixed) :]
        fixed = b""
    assert fixed + _encode([*before, (number, new), *after]) == rrd.replace_field(data, number, new)


@given(_FIELDS, _NUMBERS)
def test_replacing_a_field_that_is_not_there_is_a_format_error(
    parts: list[tuple[int, int | bytes]], number: int
) -> None:
    data = _encode([part for part in parts if part[0] != number])
    with pytest.raises(errors.FormatError, match=f"lacks field {number}"):
        rrd.replace_field(data, number, b"new")


@given(st.binary(max_size=60), _NUMBERS)
@settings(max_examples=300)
def test_bytes_that_are_no_message_are_a_format_error_and_nothing_else(data: bytes, number: int) -> None:
    try:
        list(rrd.fields(data))
        rrd.replace_field(data, number, b"new")
    except errors.FormatError:
        pass


@given(_FIELDS.filter(bool), st.data())
def test_a_message_cut_short_is_a_format_error_or_lacks_fields(
    parts: list[tuple[int, int | bytes]], data: st.DataObject
) -> None:
    message = _encode(parts)
    cut = message[: data.draw(st.integers(0, len(message) - 1))]
    try:
        found = list(rrd.fields(cut))
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
    of_kind = {rrd.SET_STORE_INFO: rrd.store_id_of_info, rrd.ARROW_MSG: rrd.store_id_of_chunk}
    ids = {of_kind[each.kind](data[each.payload : each.end]) for each in frames if each.kind in of_kind}
    assert set(of_kind) <= {frame.kind for frame in frames}
    (store,) = ids
    assert b"some-recording" == rrd.field(store, 2)
    assert b"some_app" == rrd.field(rrd.field(store, 3), 1)


def test_the_id_of_a_chunk_is_that_of_the_manifest() -> None:
    data = streams.encoded(streams.log_points)
    ids = [
        rrd.chunk_id(data[frame.payload : frame.end])
        for frame in streams.all_frames(data)
        if frame.kind == rrd.ARROW_MSG
    ]
    assert sorted(streams.manifest_of(data).table["chunk_id"].to_pylist()) == sorted(ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("write", [streams.log_points, streams.log_text])
def test_the_closing_bytes_are_those_that_the_sdk_writes(write: Any) -> None:
    data = streams.encoded(write)
    end = streams.all_frames(data)[-1]
    manifests = [value for _, value in rrd.fields(data[end.payload : end.end]) if isinstance(value, bytes)]
    assert data[end.start :] == rrd.closing(end.start, manifests)

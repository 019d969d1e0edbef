"""Several frames as one: nothing changes on the way, and bytes that nobody has packed are refused."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from mpr.transport.packing import MessageError, pack, unpack

_FRAMES: list[list[Any]] = [
    [b"one"],
    [b""],
    [b"head", b"payload"],
    [b"head", b"", b"x" * 100_000, b""],
    [b"head", memoryview(bytearray(range(200)))],
    [b"\x00" * 63, b"a", b"\x00" * 65],
]


@pytest.mark.parametrize("frames", _FRAMES, ids=lambda frames: "-".join(str(len(frame)) for frame in frames))
def test_frames_come_as_they_were(frames: list[Any]) -> None:
    packed = pack(frames)
    assert unpack(packed) == frames
    # A large message is not copied: its frames are parts of its memory, and arrays in them can be written.
    parts = unpack(memoryview(bytearray(packed)))
    assert [bytes(part) for part in parts] == [bytes(frame) for frame in frames]
    assert not any(part.readonly for part in parts)


def test_frames_begin_where_arrays_may_begin() -> None:
    packed = bytes(pack([b"head", b"12345", b"678"]))
    assert [packed.index(frame) % 64 for frame in (b"head", b"12345", b"678")] == [0, 0, 0]


_PACKED = bytes(pack([b"head", b"payload"]))


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(b"\xff", id="no count"),
        pytest.param(struct.pack("<BI", 255, 0), id="no frames"),
        pytest.param(struct.pack("<BI", 255, 2**32 - 1), id="more frames than bytes"),
        pytest.param(struct.pack("<BIQ", 255, 1, 2**64 - 1), id="a frame of 2**64 bytes"),
        pytest.param(_PACKED[:-1], id="cut short"),
        pytest.param(_PACKED + b"x", id="too long"),
    ],
)
def test_what_nobody_has_packed_is_refused(packed: bytes) -> None:
    with pytest.raises(MessageError):
        unpack(packed)

"""Reads and writes the few parts of protobuf that an `.rrd` stream needs: fields and varints.

A protobuf message is a sequence of fields. Each field has a number and a value. A varint is an integer of variable
length: 7 bits per byte, the lowest bits first. Source: the Protocol Buffers documentation, page "Encoding".

Covers: the bytes of fields.
Does not cover: the meaning of the fields (`store_id.py`, `manifest.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

from mpr.errors import FormatError

# A number of 64 bits has this many bytes at most. Without the limit, the time for a number grows with the square of its
# length: 3 MB take minutes.
_VARINT_MAX = 10


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the varint at the offset `position` of `data`, and the offset behind it.

    Raises `FormatError` if the varint does not end within `data`, or has more than `_VARINT_MAX` bytes.
    """
    value = shift = 0
    limit = position + _VARINT_MAX
    while position < len(data):
        if position == limit:
            raise FormatError(f"a number of more than {_VARINT_MAX} bytes")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise FormatError("a protobuf message has a number that does not end")


def _spans(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield each field of the message `data` as (tag, start of the field, start of the value, end of the field).

    A tag is 8 times the number of the field, plus its wire type, which says how the value is encoded. The other three
    are offsets in `data`. Raises `FormatError` if the message is damaged.
    """
    end = 0
    while end < len(data):
        start = end
        tag, position = _varint(data, start)
        kind = tag & 7
        if kind == 0:
            _, end = _varint(data, position)
        elif kind == 2:
            size, position = _varint(data, position)
            end = position + size
        elif kind in (1, 5):
            end = position + (8 if kind == 1 else 4)
        else:
            raise FormatError(f"protobuf wire type {kind}")
        if end > len(data):
            raise FormatError("a protobuf field ends beyond its message")
        yield tag, start, position, end


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of the protobuf message `data` as (number, value).

    The value of a varint is an integer. All other values are bytes. Raises `FormatError` if the message is damaged.
    """
    for tag, _, position, end in _spans(data):
        yield tag >> 3, data[position:end] if tag & 7 else _varint(data, position)[0]


def field(data: bytes, number: int) -> bytes:
    """Return the bytes of the first field of the message `data` that has this `number` and is no varint.

    Raises `FormatError` if there is no such field, or if the message is damaged before it.
    """
    for found, value in fields(data):
        if found == number and isinstance(value, bytes):
            return value
    raise FormatError(f"a protobuf message lacks field {number}")


def leading_field(data: bytes) -> tuple[bytes, int]:
    """Return the value of field 1 at the start of the message `data`, and the offset behind the field.

    The value is a nested message or bytes. The rest of the message may be missing. Raises `FormatError` if `data` does
    not begin with field 1, or ends within it.
    """
    if data[:1] != b"\x0a":
        raise FormatError("a message does not begin with its store id")
    size, position = _varint(data, 1)
    end = position + size
    if end > len(data):
        raise FormatError("a store id that is too long")
    return data[position:end], end


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_field(number: int, value: int | bytes) -> bytes:
    """Return the bytes of the field `number` with `value`.

    An integer, which must not be negative, becomes a varint. Bytes are written as they are, after their length.
    """
    if isinstance(value, int):
        return _encode_varint(number << 3) + _encode_varint(value)
    return _encode_varint(number << 3 | 2) + _encode_varint(len(value)) + value


def replace_field(data: bytes, number: int, value: bytes) -> bytes:
    """Return the message `data` with `value` in its first field `number` that has a nested message or bytes.

    Raises `FormatError` if there is no such field, or if the message is damaged before it.
    """
    for tag, start, _, end in _spans(data):
        if tag == number << 3 | 2:
            return data[:start] + encode_field(number, value) + data[end:]
    raise FormatError(f"a protobuf message lacks field {number}")

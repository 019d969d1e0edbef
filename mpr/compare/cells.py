"""Compares cells of recordings, and describes cells in words.

A cell has the values of one component of one entity in one row. All cells of a component have one Arrow type. In this
module, one cell is an Arrow array of values. Several cells are an Arrow array of lists, with one list for each cell.

Covers: keys by which equal cells are found, comparing two cells within a tolerance, cells as text.
Does not cover: which cells are compared with each other (`compare.py`).
"""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import numpy.typing as npt


# The longest key in bytes. A longer key is replaced by its digest, so that the key of an image is not a copy of the
# image.
_LONG_KEY = 64
# The key of an element that has no value (null).
_GAP = b"gap"
# The largest number of values that are written out for a cell.
_SHORT_CELL = 16
# The largest number of characters that are written out for a text.
_SHORT_TEXT = 120

_WORDS = reprlib.Repr()
_WORDS.maxstring = _WORDS.maxother = _SHORT_TEXT
_WORDS.maxlist = _WORDS.maxdict = _SHORT_CELL


def keys(values: pa.Array) -> list[bytes]:
    """Return a key of up to 64 bytes for each element of the Arrow array `values`.

    Comparing keys is faster than comparing elements. Elements of `values` that are equal bit for bit have equal keys.
    Different elements practically never have equal keys. Pass all elements at once, because a call for each element
    takes much more time.

    The keys of two arrays of one type can be compared too. But if only one array has nulls within its elements, equal
    elements may have different keys. So compare elements with different keys once more (`are_close`).
    """
    found = _keys(values)
    if values.null_count:
        return [_GAP if gap else key for gap, key in zip(values.is_null().to_pylist(), found, strict=True)]
    return found


def _keys(values: pa.Array) -> list[bytes]:
    kind = values.type
    numbers = _bytes_of_numbers(values)
    if numbers is not None:
        buffer, width = numbers
        return [_short(buffer[at * width : at * width + width]) for at in range(len(values))]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _keys_of_lists(values)
    if pa.types.is_struct(kind):
        parts = [keys(part) for part in values.flatten()]
        return [_joined(each) for each in zip(*parts, strict=True)]
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return [_short(each) for each in values.cast(pa.binary()).fill_null(b"").to_pylist()]
    return [_short(repr(each).encode()) for each in values.to_pylist()]


def _keys_of_lists(values: pa.ListArray) -> list[bytes]:
    ends = values.offsets.to_pylist()
    inner = values.values.slice(ends[0], ends[-1] - ends[0])
    places = [(start - ends[0], end - ends[0]) for start, end in itertools.pairwise(ends)]
    numbers = _bytes_of_numbers(inner)
    if numbers is not None and not inner.null_count:
        buffer, width = numbers
        return [_short(buffer[start * width : end * width]) for start, end in places]
    parts = keys(inner)
    return [_joined(parts[start:end]) for start, end in places]


def _bytes_of_numbers(values: pa.Array) -> tuple[memoryview, int] | None:
    """Return the bytes of all elements of `values`, and the size of one element in bytes.

    Returns None if the elements are neither numbers nor vectors of numbers (fixed-size lists). Also returns None if a
    vector, or a number in a vector, is null. If an element is a number that is null, its bytes have no meaning.
    """
    width = 1
    while pa.types.is_fixed_size_list(values.type) and not values.null_count:
        width *= values.type.list_size
        values = values.flatten()
    if not pa.types.is_primitive(values.type) or pa.types.is_boolean(values.type):
        return None
    if values.null_count:
        if width > 1:
            return None
        values = values.fill_null(values.drop_null()[0] if len(values.drop_null()) else pa.scalar(0).cast(values.type))
    flat: Any = np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).view(np.uint8)
    return memoryview(flat), width * values.type.bit_width // 8


def _joined(parts: Sequence[bytes]) -> bytes:
    return _short(b"".join(len(part).to_bytes(4, "little") + part for part in parts))


def _short(key: bytes | memoryview) -> bytes:
    if len(key) <= _LONG_KEY:
        return bytes(key)
    import xxhash

    return xxhash.xxh3_128_digest(key)


def _leaves(values: pa.Array) -> list[npt.NDArray[Any]]:
    """Return the content of `values` as flat arrays, from the outermost level of nested lists to the innermost.

    The arrays say which values are null, how long the lists are, and which numbers and texts the lists have. Two cells
    of one type are equal if all their arrays are equal.
    """
    kind = values.type
    leaves = [np.asarray(values.is_valid())] if values.null_count else []
    if pa.types.is_fixed_size_list(kind):
        return [*leaves, *_leaves(values.flatten())]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = np.asarray(values.value_lengths().fill_null(0))
        return [*leaves, lengths, *_leaves(values.flatten())]
    if pa.types.is_struct(kind):
        for part in values.flatten():
            leaves += _leaves(part)
        return leaves
    if pa.types.is_primitive(kind):
        if values.null_count:
            values = values.drop_null()
        return [*leaves, values.to_numpy(zero_copy_only=False)]
    return [*leaves, np.frombuffer(repr(values.to_pylist()).encode(), np.uint8)]


def are_close(one: pa.Array, other: pa.Array, tolerance: float) -> bool:
    """Return True if the cell `other` is equal to the expected cell `one`, with a tolerance for floating point numbers.

    A number may differ from the expected number by up to `tolerance` times the absolute expected number. If this
    absolute number is smaller than 1, the numbers may differ by up to `tolerance`. NaN is equal to NaN.
    """
    ours, theirs = _leaves(one), _leaves(other)
    if [(leaf.dtype, leaf.shape) for leaf in ours] != [(leaf.dtype, leaf.shape) for leaf in theirs]:
        return False
    return not any(_unequal(*pair, tolerance).any() for pair in zip(ours, theirs, strict=True))


def _unequal(one: npt.NDArray[Any], other: npt.NDArray[Any], tolerance: float) -> npt.NDArray[np.bool_]:
    different: npt.NDArray[np.bool_] = np.not_equal(one, other)
    if one.dtype.kind != "f":
        return different
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(other.astype(float) - one) <= tolerance * np.maximum(1.0, np.abs(one.astype(float)))
    # An infinite number is near to no other number.
    near &= np.isfinite(one) & np.isfinite(other)
    different &= ~(near | (np.isnan(one) & np.isnan(other)))
    return different


def words(cell: pa.Array) -> str:
    """Return the values of a cell as a short text. If there are more than 16 numbers, the text only says how many."""
    many = _many_numbers(cell)
    if many is not None:
        return f"{many.size} values"
    return _WORDS.repr(plain(cell))


def words_of_both(expected: pa.Array, found: pa.Array, tolerance: float) -> str:
    """Return a text that says how the cell `found` differs from the cell `expected`.

    If both cells have more than 16 numbers, and equally many, the text says how many numbers differ, and names the
    first. For this, numbers are compared as in `are_close`, with `tolerance`. If the counts are not equal, the text has
    both counts. For shorter cells and for texts, the text has the values of both cells, shortened.
    """
    many, others = _many_numbers(expected), _many_numbers(found)
    if many is not None and others is not None and many.dtype == others.dtype and many.shape == others.shape:
        where = np.flatnonzero(_unequal(many, others, tolerance))
        if where.size:
            at = int(where[0])
            return (
                f"{where.size} of {many.size} values {'is' if where.size == 1 else 'are'} different, the first is "
                f"number {at}: {many[at]} expected, {others[at]} found"
            )
    if many is not None and others is not None and many.size != others.size:
        sizes = (many.size, others.size) if len(expected) == len(found) else (len(expected), len(found))
        return f"{sizes[0]} values expected, {sizes[1]} found"
    one, other = plain(expected), plain(found)
    if isinstance(one, str) and isinstance(other, str):
        return _words_of_texts(one, other)
    count = "" if len(expected) == len(found) else f"{len(expected)} values expected, {len(found)} found: "
    return f"{count}{_WORDS.repr(one)} expected, {_WORDS.repr(other)} found"


def plain(cell: pa.Array) -> Any:
    """Return the values of a cell as a list of Python objects. If there is only one value, return it without a list.

    If the values are times with nanoseconds, return a text, because Python's `datetime` has only microseconds.
    """
    try:
        values = cell.to_pylist()
    except ValueError:
        # The value is a time with nanoseconds. Python's `datetime` has only microseconds.
        return str(cell)
    return values[0] if len(values) == 1 else values


def _many_numbers(cell: pa.Array) -> npt.NDArray[Any] | None:
    """Return the longest of the flat arrays into which `_leaves` splits `cell`, if it has more than 16 elements.

    Returns None for a shorter array. Also returns None if `cell` has texts, or if the elements are neither numbers nor
    truth values.
    """
    if pa.types.is_string(_innermost(cell.type)):
        return None
    longest = max(_leaves(cell), key=len)
    return longest if longest.size > _SHORT_CELL and longest.dtype.kind in "iufb" else None


def _words_of_texts(expected: str, found: str) -> str:
    same = next((at for at, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]), 0)
    start = max(0, same - _SHORT_TEXT // 3)
    one, other = (_part(text, start) for text in (expected, found))
    return f"{one} expected, {other} found"


def _part(text: str, start: int) -> str:
    end = start + _SHORT_TEXT
    return f"{'...' if start else ''}{text[start:end]!r}{'...' if end < len(text) else ''}"


def _innermost(kind: pa.DataType) -> pa.DataType:
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return kind

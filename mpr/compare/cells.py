"""Compares cells of recordings, and describes cells in words.

A cell has the values of one component of one entity in one row. In this module, one cell is an Arrow array of values.
Several cells are an Arrow array of lists, with one list for each cell.

Covers: keys by which equal cells are found, comparing two cells within a tolerance, cells as text.
Does not cover: which cells are compared with each other (`compare.py`).
"""

from __future__ import annotations

import functools
import itertools
import math
import reprlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import numpy.typing as npt


# The longest key in bytes of an element without nulls. A longer key is replaced by its digest, so that the key of an
# image is not a copy of the image.
_LONG_KEY = 64
# The key of an element that is null. It is longer than the key of any other element, so no other element has this key.
_GAP = bytes(_LONG_KEY + 1)
# The largest number of values that are written out for a cell.
_SHORT_CELL = 16
# The largest number of characters that are written out for a text.
_SHORT_TEXT = 120

_WORDS = reprlib.Repr()
_WORDS.maxstring = _WORDS.maxother = _SHORT_TEXT
_WORDS.maxlist = _WORDS.maxdict = _SHORT_CELL


def keys(values: pa.Array) -> list[bytes]:
    """Return a key of up to 66 bytes for each element of the Arrow array `values`.

    Elements of one type that are equal bit for bit have equal keys, also if they are in different arrays. Different
    elements almost never have equal keys, except values of a union or another rare type that have the same `repr`. Pass
    all elements at once, because a call for each element takes much more time.
    """
    found = _keys(values)
    if values.null_count:
        return [_GAP if gap else key for gap, key in zip(values.is_null().to_pylist(), found, strict=True)]
    return found


def _keys(values: pa.Array) -> list[bytes]:
    kind = values.type
    numbers = _numbers(values)
    if numbers is not None:
        return numbers.keys((at, at + 1) for at in range(len(values)))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _keys_of_lists(values)
    if pa.types.is_struct(kind):
        parts = [keys(part) for part in values.flatten()]
        return [_joined(each) for each in zip(*parts, strict=True)]
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return [_short(each) for each in values.cast(pa.binary()).fill_null(b"").to_pylist()]
    found = [_short(repr(each).encode()) for each in values.to_pylist()]
    if pa.types.is_union(kind):
        # Equal values of two types, such as tensors of uint8 and uint16, are not equal cells.
        return [_joined([bytes([code]), key]) for code, key in zip(values.type_codes.to_pylist(), found, strict=True)]
    return found


def _keys_of_lists(values: pa.ListArray) -> list[bytes]:
    ends = values.offsets.to_pylist()
    inner = values.values.slice(ends[0], ends[-1] - ends[0])
    places = [(start - ends[0], end - ends[0]) for start, end in itertools.pairwise(ends)]
    numbers = _numbers(inner)
    if numbers is not None:
        return numbers.keys(places)
    parts = keys(inner)
    return [_joined(parts[start:end]) for start, end in places]


class _Numbers(NamedTuple):
    """Holds the bytes of an array whose elements are numbers or times, or vectors of these (fixed-size lists).

    `data` has `width` bytes for each element. The bytes of nulls are 0. `gaps` is empty if nothing is null. Otherwise
    it has an array of truth values for the elements, and one more array for each level of vectors in the elements. Each
    array has a row for each element, and true stands for null.
    """

    data: memoryview
    width: int
    gaps: Sequence[npt.NDArray[np.bool_]]

    def keys(self, places: Iterable[tuple[int, int]]) -> list[bytes]:
        """Return the key of each run of elements in `places`: (index of its first element, index behind its last)."""
        data, width = self.data, self.width
        if not self.gaps:
            return [_short(data[start * width : end * width]) for start, end in places]
        import xxhash

        found = []
        for start, end in places:
            gaps = [each[start:end] for each in self.gaps]
            own = data[start * width : end * width]
            if any(each.any() for each in gaps):
                digest = xxhash.xxh3_128_digest(b"".join([own, *(each.tobytes() for each in gaps)]))
                found.append(digest.ljust(_LONG_KEY + 2, b"\0"))
            else:
                found.append(_short(own))
        return found


def _numbers(values: pa.Array) -> _Numbers | None:
    """Return the bytes of `values`; None if the elements are neither numbers, nor times, nor vectors of these.

    Truth values do not count as numbers.
    """
    count, size = len(values), 1
    gaps = [_nulls(values, count, 1)]
    while pa.types.is_fixed_size_list(values.type):
        many = values.type.list_size
        # `flatten` would leave out the numbers of vectors that are null.
        values = values.values.slice(values.offset * many, len(values) * many)
        size *= many
        gaps.append(_nulls(values, count, size))
    kind = values.type
    if not pa.types.is_primitive(kind) or pa.types.is_boolean(kind):
        return None
    width = kind.bit_width // 8
    if values.null_count:
        there = values.drop_null()
        values = values.fill_null(there[0] if len(there) else pa.scalar(0, pa.int64()).cast(kind))
    data: Any = np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).view(np.uint8)
    if any(each.any() for each in gaps):
        # If a vector is null, its numbers have no meaning.
        nothing = functools.reduce(
            np.logical_or, (np.repeat(each, size // max(1, each.shape[1]), axis=1) for each in gaps)
        )
        data = data.copy()
        data.reshape(count * size, width)[nothing.reshape(-1)] = 0
    return _Numbers(memoryview(data), size * width, gaps if any(each.any() for each in gaps) else ())


def _nulls(values: pa.Array, count: int, size: int) -> npt.NDArray[np.bool_]:
    """Return an array of `count` rows and `size` columns that is true for each element of `values` that is null."""
    return np.asarray(values.is_null()).reshape(count, size)


def _joined(parts: Sequence[bytes]) -> bytes:
    return _short(b"".join(len(part).to_bytes(4, "little") + part for part in parts))


def _short(key: bytes | memoryview) -> bytes:
    if len(key) <= _LONG_KEY:
        return bytes(key)
    import xxhash

    return xxhash.xxh3_128_digest(key)


def _leaves(values: pa.Array) -> list[npt.NDArray[Any]]:
    """Return the content of `values` as flat arrays.

    The arrays have the numbers, times and truth values, the lengths of lists, and which values are null. Texts and
    other values are the bytes of their `repr`. Two cells of one type count as equal if all these arrays are equal.
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
    if pa.types.is_union(kind) and kind.mode == "dense":
        return [*leaves, *_leaves_of_union(values)]
    if pa.types.is_primitive(kind):
        if values.null_count:
            values = values.drop_null()
        return [*leaves, values.to_numpy(zero_copy_only=False)]
    return [*leaves, np.frombuffer(repr(values.to_pylist()).encode(), np.uint8)]


def _leaves_of_union(values: pa.UnionArray) -> list[npt.NDArray[Any]]:
    # A copy begins at its first element. `type_codes` and `offsets` of a part would be those of the whole array.
    values = values.take(pa.array(range(len(values)), pa.int64()))
    codes, offsets = np.asarray(values.type_codes), np.asarray(values.offsets)
    leaves = [codes]
    for number, code in enumerate(values.type.type_codes):
        leaves += _leaves(values.field(number).take(pa.array(offsets[codes == code])))
    return leaves


def are_close(one: pa.Array, other: pa.Array, tolerance: float) -> bool:
    """Return True if the cell `other` is equal to the expected cell `one`, with a tolerance for floating point numbers.

    Such a number may differ from the expected number by `tolerance` times the absolute expected number, or by
    `tolerance` if that is more. NaN is equal to NaN. Cells of different lengths or types of numbers are not equal.
    """
    ours, theirs = _leaves(one), _leaves(other)
    if [(leaf.dtype, leaf.shape) for leaf in ours] != [(leaf.dtype, leaf.shape) for leaf in theirs]:
        return False
    return not any(unequal(*pair, tolerance).any() for pair in zip(ours, theirs, strict=True))


def unequal(one: npt.NDArray[Any], other: npt.NDArray[Any], tolerance: float) -> npt.NDArray[np.bool_]:
    """Return an array that is true for each element in which two arrays of one shape and type differ.

    `one` has the expected elements. `tolerance` is as in `are_close`.
    """
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
    """Return the values of a cell as a short text: of more than 16 numbers or truth values, only how many there are."""
    many = _many_numbers(cell)
    if many is not None:
        return f"{many.size} values"
    return _WORDS.repr(plain(cell))


def words_of_both(expected: pa.Array, found: pa.Array, tolerance: float) -> str:
    """Return a text that says how the cell `found` differs from the cell `expected`.

    If the shapes of tensors or their types of numbers differ, the text names these. Cells of more than 16 numbers are
    described by their sizes, or by how many values differ, and by how much. Other cells are described by their values,
    shortened: of two texts the part around the first difference, of two structs only the fields that differ. If two
    shortened lists are equal, only the first element that differs is described. `tolerance` is as in `are_close`.
    """
    shapes = _shape_of_tensor(expected), _shape_of_tensor(found)
    if shapes[0] != shapes[1] and None not in shapes:
        one, other = (" x ".join(map(str, each or ())) for each in shapes)
        return f"a tensor of {one} values expected, of {other} found"
    many, others = _many_numbers(expected), _many_numbers(found)
    if many is not None and others is not None and many.dtype == others.dtype and many.shape == others.shape:
        text = _words_of_numbers(expected, many, others, tolerance)
        if text:
            return text
    if many is not None and others is not None and many.size != others.size:
        sizes = (many.size, others.size) if len(expected) == len(found) else (len(expected), len(found))
        return f"{sizes[0]} values expected, {sizes[1]} found"
    if None not in shapes and (kinds := (_kind_of_tensor(expected), _kind_of_tensor(found)))[0] != kinds[1]:
        return f"a tensor of {kinds[0]} values expected, of {kinds[1]} values found"
    count = "" if len(expected) == len(found) else f"{_values(len(expected))} expected, {len(found)} found: "
    return f"{count}{_words_of_values(plain(expected), plain(found))}"


def _words_of_values(one: Any, other: Any) -> str:
    if isinstance(one, str) and isinstance(other, str):
        return _words_of_texts(one, other)
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys() and one != other:
        differing = [name for name in one if one[name] != other[name]]
        return ", ".join(f"{name} {_words_of_values(one[name], other[name])}" for name in differing)
    texts = _WORDS.repr(one), _WORDS.repr(other)
    if texts[0] == texts[1] and isinstance(one, list) and isinstance(other, list):
        # The shortened texts do not show the difference.
        at = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
        if at is not None:
            return f"at index {at}: {_words_of_values(one[at], other[at])}"
    return f"{texts[0]} expected, {texts[1]} found"


def _values(count: int) -> str:
    return f"{count} value{'' if count == 1 else 's'}"


def _words_of_numbers(
    cell: pa.Array, expected: npt.NDArray[Any], found: npt.NDArray[Any], tolerance: float
) -> str | None:
    """Return in words how many values differ, the first of them, and the largest difference; None if all are equal.

    `expected` and `found` are the results of `_many_numbers` for two cells, and have the same shape and type. `cell` is
    the expected cell. If its values are vectors, each vector counts as one value. `tolerance` is as in `are_close`.
    """
    size = found.size // len(cell) if pa.types.is_fixed_size_list(cell.type) and found.size % len(cell) == 0 else 1
    one, other = expected.reshape(-1, size), found.reshape(-1, size)
    where = np.flatnonzero(unequal(one, other, tolerance).any(axis=1))
    if not where.size:
        return None
    first, its = (each[where[0]].tolist() for each in (one, other))
    if size == 1:
        first, its = first[0], its[0]
    shape = _shape_of_tensor(cell)
    at = (
        [int(each) for each in np.unravel_index(where[0], shape)]
        if shape and math.prod(shape) == len(one)
        else where[0]
    )
    return (
        f"{where.size} of {len(one)} values {'is' if where.size == 1 else 'are'} different, the first at index "
        f"{at}: {first} expected, {its} found{words_of_size(one, other, 'values')}"
    )


def _shape_of_tensor(cell: pa.Array) -> tuple[int, ...] | None:
    """Return the shape of the tensor in `cell`; None if `cell` is not exactly one tensor."""
    kind = cell.type
    if len(cell) != 1 or not pa.types.is_struct(kind) or {"shape", "buffer"} - {field.name for field in kind}:
        return None
    return tuple(cell.field("shape").to_pylist()[0] or ())


def _kind_of_tensor(cell: pa.Array) -> str:
    """Return the type of the numbers in a tensor, such as "F32". `cell` must be exactly one tensor."""
    buffer = cell.field("buffer")
    if not pa.types.is_union(buffer.type):
        return str(buffer.type)
    return str(buffer.type.field(buffer.type.type_codes.index(buffer.type_codes[0].as_py())).name)


def words_of_size(expected: npt.NDArray[Any], found: npt.NDArray[Any], what: str) -> str:
    """Return the end of a sentence with the largest and the mean difference of the numbers in two arrays.

    `what` is the word for the elements, such as "pixels". Equal elements, also two NaN, count as a difference of 0. The
    text is empty if a difference is not finite, or if the elements are truth values.
    """
    if expected.dtype.kind == "b":
        return ""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(expected.astype(float) - found.astype(float))
        apart[
            (expected == found) | (np.isnan(apart) & np.isnan(expected.astype(float)) & np.isnan(found.astype(float)))
        ] = 0
    if not np.isfinite(apart).all():
        return ""
    return f"; the largest difference is {np.max(apart):g}, the mean of all {what} {np.mean(apart):.3g}"


def plain(cell: pa.Array) -> Any:
    """Return the values of a cell as a list of Python objects. If there is only one value, return it without a list.

    If Python has no object for a value, return the whole cell as one text. An example is a time with nanoseconds,
    because Python's `datetime` has only microseconds.
    """
    try:
        values = cell.to_pylist()
    except ValueError:
        return str(cell)
    return values[0] if len(values) == 1 else values


def _many_numbers(cell: pa.Array) -> npt.NDArray[Any] | None:
    """Return the longest array of `_leaves(cell)`, if it has more than 16 numbers or truth values.

    Returns None otherwise, and if the values of `cell` are texts or lists of texts.
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

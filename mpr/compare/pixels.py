"""Describes the difference of two images by their pixels.

Covers: the buffers of images, depth images and segmentation images whose pixels have the usual formats.
Does not cover: encoded images, and formats that share values between pixels (NV12 and the like).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mpr.compare.cells import unequal, words_of_size

if TYPE_CHECKING:
    import numpy.typing as npt

# The types of the values of a pixel, by the number that Rerun's `ChannelDatatype` has for each.
_TYPES = {
    6: np.uint8, 7: np.int8, 8: np.uint16, 9: np.int16, 10: np.uint32, 11: np.int32, 12: np.uint64, 13: np.int64,
    33: np.float16, 34: np.float32, 35: np.float64,
}  # fmt: skip

# The number of values of a pixel, by the number that Rerun's `ColorModel` has for each. Without a color model, as in
# depth images, a pixel has one value.
_CHANNELS = {1: 1, 2: 3, 3: 4, 4: 3, 5: 4}


def words_of_pixels(
    expected: pa.Array, found: pa.Array, expected_format: pa.Array, found_format: pa.Array, tolerance: float
) -> str | None:
    """Return in words how two images differ in size, type or pixels; empty if no pixel differs.

    `expected` and `found` are cells with the bytes of the pixels. `expected_format` and `found_format` are cells with
    the formats of these images. Floating point numbers within `tolerance` count as equal, as in `cells.are_close`.
    Returns None if the module does not cover a format, or if the bytes do not fit their format.
    """
    one, other = _image(expected, expected_format), _image(found, found_format)
    if one is None or other is None:
        return None
    if one.shape[:2] != other.shape[:2]:
        return f"an image of {_size(one)} expected, of {_size(other)} found"
    if one.shape != other.shape:
        return f"{one.shape[2]} values for each pixel expected, {other.shape[2]} found"
    if one.dtype != other.dtype:
        return f"values of type {one.dtype} expected, {other.dtype} found"
    rows, columns = np.nonzero(unequal(one, other, tolerance).any(axis=2))
    if not rows.size:
        return ""
    row, column = int(rows[0]), int(columns[0])
    height, width, _ = one.shape
    are = "is" if rows.size == 1 else "are"
    return (
        f"{rows.size} of {height * width} pixels {are} different, the first in row {row}, "
        f"column {column}: {_value(one[row, column])} expected, {_value(other[row, column])} found"
        f"{words_of_size(one, other, 'pixels')}"
    )


def _size(image: npt.NDArray[Any]) -> str:
    return f"{image.shape[1]} x {image.shape[0]} pixels"


def _image(buffer: pa.Array, image_format: pa.Array) -> npt.NDArray[Any] | None:
    """Return the pixels of `buffer` as an array of the shape (rows, columns, values of a pixel).

    `buffer` and `image_format` are cells: the bytes of one image, and its `rr.components.ImageFormat`. Returns None if
    a cell does not have exactly one value, if the module does not cover the format, or if the bytes do not fit it.
    """
    if len(buffer) != 1 or len(image_format) != 1:
        return None
    form = image_format.to_pylist()[0]
    if not isinstance(form, dict) or form.get("pixel_format") is not None:
        return None
    kind = _TYPES.get(form.get("channel_datatype") or 6)
    height, width = form.get("height") or 0, form.get("width") or 0
    values = buffer if pa.types.is_binary(buffer.type) else buffer.flatten()
    data = values.to_pylist()[0] if pa.types.is_binary(values.type) else values.to_numpy(zero_copy_only=False).tobytes()
    if kind is None or not data or not height * width or len(data) % (height * width * np.dtype(kind).itemsize):
        return None
    found = np.frombuffer(data, kind).reshape(height, width, -1)
    # The buffer belongs to an image of another size if it has too many values for each pixel.
    channels = _CHANNELS.get(form.get("color_model") or 0, 1)
    return found if found.shape[2] == channels else None


def _value(pixel: npt.NDArray[Any]) -> str:
    return str(pixel[0]) if pixel.size == 1 else str(pixel.tolist())

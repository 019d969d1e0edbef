"""Describes the difference of two images by their pixels.

Covers: the buffers of images, depth images and segmentation images whose pixels have the usual formats.
Does not cover: encoded images, and formats that share values between pixels (NV12 and the like).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import numpy.typing as npt

# The types of the values of a pixel, by the number that Rerun's `ChannelDatatype` has for each.
_TYPES = {
    6: np.uint8, 7: np.int8, 8: np.uint16, 9: np.int16, 10: np.uint32, 11: np.int32, 12: np.uint64, 13: np.int64,
    33: np.float16, 34: np.float32, 35: np.float64,
}  # fmt: skip


def words_of_pixels(expected: pa.Array, found: pa.Array, image_format: pa.Array) -> str | None:
    """Return in words which pixels of two images differ, and how much.

    `expected` and `found` are cells with the buffers (the bytes of the pixels) of two images. `image_format` is the
    cell with the format of the expected image. Returns None if no pixel differs, or if a buffer does not fit this
    format.
    """
    one, other = _image(expected, image_format), _image(found, image_format)
    if one is None or other is None:
        return None
    apart = np.abs(one.astype(float) - other.astype(float))
    apart[np.isnan(one.astype(float)) & np.isnan(other.astype(float))] = 0
    rows, columns = np.nonzero((apart != 0).any(axis=2))
    if not rows.size:
        return None
    row, column = int(rows[0]), int(columns[0])
    largest, mean = np.max(apart), np.mean(apart)
    height, width, _ = one.shape
    are = "is" if rows.size == 1 else "are"
    return (
        f"{rows.size} of {height * width} pixels {are} different, the first in row {row}, "
        f"column {column}: {_value(one[row, column])} expected, {_value(other[row, column])} found; "
        f"the largest difference is {largest:g}, the mean of all pixels {mean:.3g}"
    )


def _image(buffer: pa.Array, image_format: pa.Array) -> npt.NDArray[Any] | None:
    """Return the pixels of `buffer` as an array of the shape (rows, columns, values of a pixel).

    `buffer` and `image_format` are cells: the bytes of one image, and its `rr.components.ImageFormat`. Returns None if
    the format is not one of those that the module covers, or if the size of the buffer does not fit the format.
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
    return np.frombuffer(data, kind).reshape(height, width, -1)


def _value(pixel: npt.NDArray[Any]) -> str:
    return str(pixel[0]) if pixel.size == 1 else str(pixel.tolist())

"""Packs the frames of a message into one frame, because ZeroMQ sends several frames in several steps.

A *frame* is one part of a ZeroMQ message here, and not a frame of a Rerun file. A signal handler may run between two
steps, and send a message itself. Without packing, the frames of the two messages would be mixed.

```
0xFF | number of frames | size of each frame | padding | frame | padding | frame ...
```

Each frame begins at a multiple of 64 bytes, because arrays use the frames as their memory.

Covers: packing and unpacking frames.
Does not cover: what the frames contain (`encoding.py`), and sending them (`sockets.py`).
"""

from __future__ import annotations

import itertools
import struct
from typing import Any, TypeAlias

Buffer: TypeAlias = bytes | memoryview
Frames: TypeAlias = list[Any]

# The first byte of several packed frames. No kind of message has this number.
_PACKED = b"\xff"
_COUNT = struct.Struct("<BI")
_SIZE = struct.Struct("<Q")
_ALIGNMENT = 64


class MessageError(ValueError):
    """The error for bytes that are no message, or for a message that its sender should not have sent."""


def pack(frames: Frames) -> Buffer:
    """Return one frame that contains all `frames`. If there is only one frame, return it unchanged."""
    if len(frames) == 1:
        only: Buffer = frames[0]
        return only
    sizes = [memoryview(frame).nbytes for frame in frames]
    parts: list[Buffer] = [_COUNT.pack(_PACKED[0], len(frames)), *(_SIZE.pack(size) for size in sizes)]
    end = _COUNT.size + _SIZE.size * len(frames)
    for frame, size in zip(frames, sizes, strict=True):
        parts += [_padding(end), frame]
        end = _aligned(end) + size
    return b"".join(parts)


def unpack(packed: Buffer) -> Frames:
    """Return the frames that `pack` has packed into `packed`. Raises `MessageError` if `packed` is damaged.

    If `packed` is a `memoryview`, the frames are views of the same memory.
    """
    if packed[:1] != _PACKED:
        return [packed]
    if len(packed) < _COUNT.size:
        raise MessageError("a packed message without a count")
    count = _COUNT.unpack_from(packed)[1]
    sizes_end = _COUNT.size + _SIZE.size * count
    if sizes_end > len(packed):
        raise MessageError(f"a packed message of {len(packed)} bytes cannot have {count} frames")
    frames: Frames = []
    end = sizes_end
    for (size,) in itertools.islice(_SIZE.iter_unpack(packed[_COUNT.size : sizes_end]), count):
        start = _aligned(end)
        end = start + size
        if end > len(packed):
            raise MessageError("a packed message is too short for its frames")
        frames.append(packed[start:end])
    if not frames or end != len(packed):
        raise MessageError("a packed message does not end with its last frame")
    return frames


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _padding(offset: int) -> bytes:
    return bytes(_aligned(offset) - offset)

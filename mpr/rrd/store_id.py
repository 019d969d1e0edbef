"""Reads, makes and replaces the ids of stores in an `.rrd` stream. A store is a recording or a blueprint.

An encoded store id is the protobuf message `StoreId{kind = 1, recording_id = 2, application_id = 3}`. Source:
rerun-io/rerun, `re_protos/proto/rerun/v1alpha1/common.proto` and `log_msg.proto`.

Covers: ids of stores and chunks in the payload of a frame.
Does not cover: finding the frames (`framing.py`), and replacing the ids in a whole stream (`relabel.py`).
"""

from __future__ import annotations

from mpr.rrd import protobuf
from mpr.rrd.framing import ARROW_MSG, SET_STORE_INFO, Frame
from mpr.rrd.protobuf import field, fields

# The number of the kind `Recording` in the `StoreKind` of the SDK.
_RECORDING = 1


def store_id_of_info(payload: bytes) -> bytes:
    """Return the encoded store id in `payload`, the payload of a store info frame.

    `payload` is a protobuf message `SetStoreInfo`. Raises `FormatError` if it has no store id.
    """
    return field(field(payload, 2), 2)


def store_id_of_chunk(payload: bytes) -> bytes:
    """Return the encoded store id in `payload`, the payload of a chunk's frame.

    `payload` is a protobuf message `ArrowMsg`. Raises `FormatError` if it has no store id.
    """
    return field(payload, 1)


def recording_of_stream(data: bytes, frames: list[Frame]) -> bytes | None:
    """Return the encoded store id of the first recording in the stream `data`; None if there is no recording.

    `frames` are the frames of the stream. Raises `FormatError` if a store info or chunk has no store id.
    """
    for frame in frames:
        payload = data[frame.payload : frame.end]
        if frame.kind == SET_STORE_INFO:
            store = store_id_of_info(payload)
        elif frame.kind == ARROW_MSG:
            store = store_id_of_chunk(payload)
        else:
            continue
        if is_recording(store):
            return store
    return None


def is_recording(store: bytes) -> bool:
    """Return True if the encoded store id `store` belongs to a recording, and False if it belongs to a blueprint.

    Raises `FormatError` if `store` is damaged.
    """
    return dict(fields(store)).get(1) == _RECORDING


def ids_of_store(store: bytes) -> tuple[str, str]:
    """Return the application id and the recording id in `store`, an encoded store id.

    Raises `FormatError` if an id is missing, and `UnicodeDecodeError` if an id is not valid UTF-8.
    """
    return field(field(store, 3), 1).decode(), field(store, 2).decode()


def chunk_id(payload: bytes) -> bytes:
    """Return the id of the chunk in `payload`, the payload of a chunk's frame (a protobuf message `ArrowMsg`).

    The id has the form that it has in manifests: 16 bytes, big-endian. Raises `FormatError` or `KeyError` if there is
    none.
    """
    halves = dict(fields(field(payload, 6)))
    return b"".join(bytes(reversed(half)) for half in (halves[1], halves[2]) if isinstance(half, bytes))


def store_id(application_id: str, recording_id: str) -> bytes:
    """Return the encoded store id of the recording with these ids."""
    application = protobuf.encode_field(1, application_id.encode())
    parts = ((1, 1), (2, recording_id.encode()), (3, application))
    return b"".join(protobuf.encode_field(number, value) for number, value in parts)


def of_application(store: bytes, application_id: str) -> bytes:
    """Return a copy of the encoded store id `store` with another application id.

    Raises `FormatError` if `store` has no application id.
    """
    return protobuf.replace_field(store, 3, protobuf.encode_field(1, application_id.encode()))


def info_of(info: bytes, store: bytes) -> bytes:
    """Return a copy of the store info `info` with `store` as its encoded store id.

    `info` and the result are payloads of store info frames. Raises `FormatError` if `info` has no store id.
    """
    return protobuf.replace_field(info, 2, protobuf.replace_field(protobuf.field(info, 2), 2, store))

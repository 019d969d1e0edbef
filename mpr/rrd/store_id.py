"""Ids of the stores (recordings and blueprints) in the messages of an `.rrd` stream."""

from __future__ import annotations

from mpr.rrd import protobuf
from mpr.rrd.framing import ARROW_MSG, SET_STORE_INFO, Frame
from mpr.rrd.protobuf import field, fields

# The number of the kind `Recording` in the `StoreKind` of the SDK.
_RECORDING = 1


def store_id_of_info(payload: bytes) -> bytes:
    """Return the encoded `StoreId` of a `SetStoreInfo` message (its `info.store_id`)."""
    return field(field(payload, 2), 2)


def store_id_of_chunk(payload: bytes) -> bytes:
    """Return the encoded `StoreId` in `payload`, which is an `ArrowMsg`: a message with a chunk."""
    return field(payload, 1)


def recording_of_stream(data: bytes, frames: list[Frame]) -> bytes | None:
    """Return the encoded `StoreId` of the first recording in a stream, or None if there are only blueprints."""
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
    """Return whether `store` is the encoded `StoreId` of a recording, and not of a blueprint."""
    return dict(fields(store)).get(1) == _RECORDING


def ids_of_store(store: bytes) -> tuple[str, str]:
    """Return the application id and the recording id in an encoded `StoreId`."""
    return field(field(store, 3), 1).decode(), field(store, 2).decode()


def chunk_id(payload: bytes) -> bytes:
    """Return the id of the chunk in an `ArrowMsg`, in the form that manifests use (16 bytes, big-endian)."""
    halves = dict(fields(field(payload, 6)))
    return b"".join(bytes(reversed(half)) for half in (halves[1], halves[2]) if isinstance(half, bytes))


def store_id(application_id: str, recording_id: str) -> bytes:
    """Return the encoded `StoreId` of the recording with these ids."""
    application = protobuf.encode_field(1, application_id.encode())
    parts = ((1, 1), (2, recording_id.encode()), (3, application))
    return b"".join(protobuf.encode_field(number, value) for number, value in parts)


def info_of(info: bytes, store: bytes) -> bytes:
    """Return the store info `info` (the payload of its frame) with `store` in place of its store id."""
    return protobuf.replace_field(info, 2, protobuf.replace_field(protobuf.field(info, 2), 2, store))

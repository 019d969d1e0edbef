"""Reads, makes and replaces the ids of stores in an `.rrd` stream. A store is a recording or a blueprint.

An encoded store id is the protobuf message `StoreId{kind = 1, recording_id = 2, application_id = 3}`. Source:
rerun-io/rerun, `re_protos/proto/rerun/v1alpha1/common.proto` and `log_msg.proto`.
"""

from __future__ import annotations

from mpr.rrd import protobuf
from mpr.rrd.framing import ARROW_MSG, SET_STORE_INFO, Frame
from mpr.rrd.protobuf import field, fields

# The number of the kind `Recording` in the `StoreKind` of the SDK.
_RECORDING = 1


def store_id_of_info(payload: bytes) -> bytes:
    """Return the encoded `StoreId` in `payload`, which is a `SetStoreInfo`: the payload of a store info frame."""
    return field(field(payload, 2), 2)


def store_id_of_chunk(payload: bytes) -> bytes:
    """Return the encoded `StoreId` in `payload`, which is an `ArrowMsg`: the payload of a chunk's frame."""
    return field(payload, 1)


def recording_of_stream(data: bytes, frames: list[Frame]) -> bytes | None:
    """Return the encoded `StoreId` of the first recording in the stream `data`; None if there are only blueprints."""
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
    """Return the id of the chunk in `payload`, an `ArrowMsg`. It has the form of manifests: 16 bytes, big-endian."""
    halves = dict(fields(field(payload, 6)))
    return b"".join(bytes(reversed(half)) for half in (halves[1], halves[2]) if isinstance(half, bytes))


def store_id(application_id: str, recording_id: str) -> bytes:
    """Return the encoded `StoreId` of the recording with these ids."""
    application = protobuf.encode_field(1, application_id.encode())
    parts = ((1, 1), (2, recording_id.encode()), (3, application))
    return b"".join(protobuf.encode_field(number, value) for number, value in parts)


def info_of(info: bytes, store: bytes) -> bytes:
    """Return the store info `info` with `store` in place of its store id. Both forms are the payload of a frame."""
    return protobuf.replace_field(info, 2, protobuf.replace_field(protobuf.field(info, 2), 2, store))

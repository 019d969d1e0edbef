"""Give an encoded stream another store id (application id and recording id) without decoding a chunk.

A stream of the SDK costs two threads that never end (rerun-io/rerun issue 2116), so what needs a recording of its own
is written by a stream that exists already and gets its ids here. Offsets and sizes in the manifests follow.
"""

from __future__ import annotations

from dataclasses import replace

from mpr import manifest, rrd
from mpr.manifest import Manifest, OffsetMap


def store_id(application_id: str, recording_id: str) -> bytes:
    """The encoded `StoreId` of a recording."""
    application = rrd.encode_field(1, application_id.encode())
    parts = ((1, 1), (2, recording_id.encode()), (3, application))
    return b"".join(rrd.encode_field(number, value) for number, value in parts)


def relabelled(stream: bytes, store: bytes, info: bytes = b"") -> bytes:
    """`stream`, a whole stream of one recording with its footer, as a stream of the recording `store`.

    It begins with the store info `info` (the payload of its frame), where one is given and `stream` has none.
    """
    frames, _ = rrd.scan(lambda at, size: stream[at : at + size], rrd.HEADER_SIZE, len(stream))
    out = bytearray(stream[: rrd.HEADER_SIZE])
    if info and all(frame.kind != rrd.SET_STORE_INFO for frame in frames):
        payload = _with_store(info, store)
        out += rrd.frame_header(rrd.SET_STORE_INFO, len(payload)) + payload
    offsets = OffsetMap()
    sizes: dict[int, int] = {}
    manifests: list[Manifest] = []
    for frame in frames:
        payload = stream[frame.payload : frame.end]
        if frame.kind == rrd.END:
            manifests = manifest.parse(payload)
            break
        if frame.kind == rrd.SET_STORE_INFO:
            payload = _with_store(payload, store)
        elif frame.kind == rrd.ARROW_MSG:
            payload = rrd.replace_field(payload, 1, store)
        offsets.add(frame.start, len(out))
        sizes[len(out) + rrd.FRAME_HEADER_SIZE] = len(payload)
        out += rrd.frame_header(frame.kind, len(payload)) + payload
    encoded = []
    for each in manifests:
        moved = manifest.moved(each, offsets)
        sized = manifest.with_sizes(moved.table, [sizes[at] for at in moved.table[manifest.OFFSET].to_pylist()])
        encoded.append(manifest.encode(replace(each, store_id=store, table=sized)))
    return bytes(out + rrd.closing(len(out), encoded))


def _with_store(info: bytes, store: bytes) -> bytes:
    return rrd.replace_field(info, 2, rrd.replace_field(rrd.field(info, 2), 2, store))

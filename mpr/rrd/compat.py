"""Checks whether mpr knows the file format of the installed SDK. Lets the SDK make store infos and manifests.

Covers: small streams that the SDK encodes so that mpr can read their form, their store info or their manifest.
Does not cover: the parts of the format (`framing.py`, `manifest.py`), and private names of the SDK (`sdk`).
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from mpr.errors import FormatError
from mpr.rrd import framing, protobuf, store_id
from mpr.rrd.manifest import CHUNK_ID, OFFSET, SIZE, Manifest, parse
from mpr.sdk.encoder import encoded_by_sdk, encoded_head
from mpr.sdk.reader import send_decoded

if TYPE_CHECKING:
    import rerun as rr


def store_info() -> bytes:
    """Return the payload of a store info. The store id in it is a placeholder, which the caller has to replace.

    Returns empty bytes if logging is switched off (`RERUN=off`), or if mpr does not know the SDK's format.
    """
    data = encoded_head()
    # An unknown format is no error here, because `format_is_known` reports it.
    with contextlib.suppress(FormatError):
        for frame in framing.frames_of(data):
            if frame.kind == framing.SET_STORE_INFO:
                return data[frame.payload : frame.end]
    return b""


def manifest_by_sdk(data: bytes) -> Manifest:
    """Return the manifest that the SDK writes for the chunks in `data`.

    `data` is a header, store infos, and chunks of one store. The caller has to replace the store id, the offsets and
    the sizes in the manifest, because they belong to another stream. Raises `FormatError` if the SDK finds no chunk
    in `data`. If the SDK cannot read a chunk, it raises an error of any type.
    """
    encoded = encoded_by_sdk(lambda stream: send_decoded(data, stream))
    frames = framing.frames_of(encoded)
    if not frames:
        raise FormatError("the SDK finds no chunk in a stream that has some")
    end = frames[-1]
    return parse(encoded[end.payload : end.end])[0]


@functools.cache
def format_is_known() -> str | None:
    """Return None if mpr understands the streams of the installed SDK, else the reason as a text.

    The SDK encodes two chunks, and this function checks the parts of the stream that mpr reads. The check runs once per
    process. Returns None, too, if logging is switched off (`RERUN=off`).
    """
    import rerun as rr

    def write(stream: rr.RecordingStream) -> None:
        stream.set_time("probe", sequence=1)
        stream.log("probe", rr.TextLog("probe"))
        stream.log("probe/static", rr.TextLog("probe"), static=True)

    data = encoded_by_sdk(write)
    if not data:
        # With `RERUN=off` the SDK writes no stream, so there is nothing to understand.
        return None
    try:
        framing.check_header(data[: framing.HEADER_SIZE])
        frames = framing.frames_of(data)
        end = frames[-1]
        footer = data[end.payload : end.end]
        if end.kind != framing.END or data[end.start :] != framing.closing(end.start, [protobuf.field(footer, 1)]):
            return "its streams do not end as known"
        chunks = [frame for frame in frames if frame.kind == framing.ARROW_MSG]
        places = {store_id.chunk_id(data[each.payload : each.end]): (each.payload, each.size) for each in chunks}
        (found,) = parse(footer)
        columns = [found.table[name].to_pylist() for name in (CHUNK_ID, OFFSET, SIZE)]
        if {each: (at, size) for each, at, size in zip(*columns, strict=True)} != places:
            return "its manifests do not say where the chunks are"
    except (FormatError, KeyError, IndexError, ValueError) as error:
        return str(error)
    return None

"""Gives an encoded stream another store id (application id and recording id) without decoding a chunk.

These streams are relabelled:

- mpr's own rows, which `sdk/encoder.py` encodes with placeholders as ids
- the rows of each task, for the files of a `DirectorySink` (`sinks/directory.py`)
- rows of another recording that a task has made, if they go to the shared recording (`producer/task_recordings.py`)
- the file of a test, which gets its recording id at the end of the test (`pytest_plugin/recording`)

Covers: whole streams, files in place, and the segments of an outbox.
Does not cover: the bytes of a store id (`store_id.py`).
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace

from mpr.rrd import framing, manifest, protobuf, store_id
from mpr.rrd.framing import Frame
from mpr.rrd.manifest import Manifest, OffsetMap
from mpr.rrd.segment import Segment, SegmentSource
from mpr.rrd.store_id import info_of


def relabelled(stream: bytes, store: bytes, info: bytes = b"") -> bytes:
    """Return `stream` with the encoded store id `store` in place of all store ids of the same kind.

    The kind is recording or blueprint. `stream` is a whole stream with its footer. `info` is the payload of a store
    info, or empty. If `stream` has no store info and `info` is not empty, `info` with the store id `store` becomes the
    first frame.

    Raises `FormatError` if `stream` cannot be read, and `LookupError` if its footer describes a chunk that it lacks.
    """

    # The stream of a recording may have blueprints too, and these stay as they are.
    is_recording = store_id.is_recording(store)

    def renamed(old: bytes) -> bytes:
        return store if store_id.is_recording(old) == is_recording else old

    head = info_of(info, store) if info else b""
    return _with_stores(stream, renamed, head)


def joined(stream: bytes, old: tuple[str | None, str], new: tuple[str | None, str]) -> bytes:
    """Return `stream` with the rows of the recording `old` as rows of the recording `new`.

    `stream` is a whole stream with its footer. `old` and `new` are pairs of application id and recording id. Blueprints
    of the old application become blueprints of the new application. All other stores stay as they are. Raises
    `FormatError` if `stream` cannot be read, and `LookupError` if its footer describes a chunk that it lacks.
    """

    def renamed(store: bytes) -> bytes:
        application_id, recording_id = store_id.ids_of_store(store)
        if store_id.is_recording(store):
            return store_id.store_id(new[0] or "", new[1]) if (application_id, recording_id) == old else store
        return store_id.of_application(store, new[0] or "") if application_id == old[0] else store

    return _with_stores(stream, renamed)


def _with_stores(stream: bytes, renamed: Callable[[bytes], bytes], info: bytes = b"") -> bytes:
    """Return the stream `stream` with `renamed(store)` in place of each encoded store id `store`.

    If `stream` has no store info, the result begins with a store info of the payload `info`, unless `info` is empty.
    """
    frames = framing.frames_of(stream)
    out = bytearray(stream[: framing.HEADER_SIZE])
    if info and all(frame.kind != framing.SET_STORE_INFO for frame in frames):
        out += framing.frame_header(framing.SET_STORE_INFO, len(info)) + info
    offsets = OffsetMap()
    sizes: dict[int, int] = {}
    manifests: list[Manifest] = []
    for frame in frames:
        payload = stream[frame.payload : frame.end]
        if frame.kind == framing.END:
            manifests = manifest.parse(payload)
            break
        if frame.kind == framing.SET_STORE_INFO:
            payload = info_of(payload, renamed(store_id.store_id_of_info(payload)))
        else:
            payload = protobuf.replace_field(payload, 1, renamed(protobuf.field(payload, 1)))
        offsets.add(frame.start, len(out))
        sizes[len(out) + framing.FRAME_HEADER_SIZE] = len(payload)
        out += framing.frame_header(frame.kind, len(payload)) + payload
    encoded = []
    for each in manifests:
        moved = manifest.moved(each, offsets)
        sized = manifest.with_sizes(moved.table, [sizes[at] for at in moved.table[manifest.OFFSET].to_pylist()])
        encoded.append(manifest.encode(replace(each, store_id=renamed(each.store_id), table=sized)))
    return bytes(out + framing.closing(len(out), encoded))


# Only this many bytes of a message with rows are read, because the store id is its first field. Even the longest
# application id and the longest recording id fit into this many bytes together.
_HEAD_BYTES = 8192


class _Disk:
    """Holds three functions of `os` from the time of import, because a user's test may replace them in `os` later."""

    pread = os.pread
    pwrite = os.pwrite
    fstat = os.fstat


def rename_in_place(fd: int, old: bytes, new: bytes) -> bool:
    """Replace the encoded store id `old` by `new`, which has the same length, in the file with the descriptor `fd`.

    Both are ids of recordings, and not of blueprints. Returns True if the file has a complete footer, with nothing
    behind it. Else returns False, and the ids in the manifests stay as they are. Raises `FormatError` if the file is
    damaged, and `OSError` if the disk reports an error. After an error, some ids may be replaced already.
    """
    assert len(old) == len(new)

    def read(offset: int, size: int) -> bytes:
        return _Disk.pread(fd, size, offset)

    size = _Disk.fstat(fd).st_size
    frames, _ = framing.scan(read, framing.HEADER_SIZE, size)
    whole = bool(frames) and frames[-1].kind == framing.END and size == frames[-1].end + framing.STREAM_FOOTER_SIZE
    for frame in frames:
        if frame.kind == framing.ARROW_MSG:
            head = read(frame.payload, min(frame.size, _HEAD_BYTES))
            store, end = protobuf.leading_field(head)
            if store == old:
                _Disk.pwrite(fd, new, frame.payload + end - len(new))
        elif frame.kind == framing.SET_STORE_INFO:
            payload = read(frame.payload, frame.size)
            if store_id.store_id_of_info(payload) == old:
                _Disk.pwrite(fd, info_of(payload, new), frame.payload)
        elif frame.kind == framing.END and whole:
            footer = read(frame.payload, frame.size)
            manifests = [message for _, message in protobuf.fields(footer) if isinstance(message, bytes)]
            renamed = [
                protobuf.replace_field(each, 1, new) if protobuf.field(each, 1) == old else each for each in manifests
            ]
            _Disk.pwrite(fd, framing.closing(frame.start, renamed), frame.start)
    return whole


class Relabeller:
    """Gives the segments of one outbox another store id, one by one. To do so, it reads 8 KiB of each chunk at most.

    Parameters
    ----------
    old:
        The encoded id of the recording to replace. Frames of any other store stay as they are.
    new:
        The encoded store id that is put in place of `old`.
    """

    def __init__(self, old: bytes, new: bytes) -> None:
        self._old = old
        self._new = new
        self._end = framing.HEADER_SIZE
        self._offsets = OffsetMap()
        # The new sizes of chunks, by the offset of the chunk's payload in the outbox.
        self._sizes: dict[int, int] = {}

    def segment(self, segment: Segment) -> Segment:
        """Return a copy of `segment` with the new store id. The frames of the copy have other sizes and offsets.

        Call this for all segments of the outbox, in order, because the offsets depend on the sizes of all earlier
        frames. Raises `FormatError` if a store info or chunk has no store id.
        """
        source = _RelabelledSource(segment.source)
        for frame in segment.frames:
            head, rest = self._head(segment.source, frame)
            size = len(head) + frame.end - rest
            self._offsets.add(frame.start, self._end)
            self._sizes[frame.payload] = size - framing.FRAME_HEADER_SIZE
            source.add(Frame(frame.kind, self._end, size - framing.FRAME_HEADER_SIZE), head, rest, frame.end)
            self._end += size
        return replace(segment, source=source, frames=source.frames)

    def manifests(self, footer: bytes) -> list[Manifest]:
        """Return the manifests in `footer`, with the new offsets and sizes of the chunks.

        Only manifests of the store `old` get the store id `new`. `footer` is the payload of the outbox's `END` frame.
        Call `segment` for all segments of the outbox before.
        Raises `FormatError` if a manifest cannot be read, and `KeyError` if a manifest describes a chunk that no
        segment had.
        """
        found = []
        for each in manifest.parse(footer):
            if each.store_id == self._old:
                each = replace(each, store_id=self._new)
            sizes = [self._sizes[at] for at in each.table[manifest.OFFSET].to_pylist()]
            moved = manifest.moved(each, self._offsets)
            found.append(replace(moved, table=manifest.with_sizes(moved.table, sizes)))
        return found

    def _head(self, source: SegmentSource, frame: Frame) -> tuple[bytes, int]:
        """Return the new beginning of `frame`, and the offset in `source` from which the frame stays unchanged.

        The beginning of a store info is the whole frame. The beginning of any other frame that does not change is
        empty.
        """
        if frame.kind == framing.SET_STORE_INFO:
            payload = source.read(frame.payload, frame.size)
            if store_id.store_id_of_info(payload) == self._old:
                payload = info_of(payload, self._new)
            return framing.frame_header(frame.kind, len(payload)) + payload, frame.end
        if frame.kind == framing.ARROW_MSG:
            store, end = protobuf.leading_field(source.read(frame.payload, min(frame.size, _HEAD_BYTES)))
            if store == self._old:
                field = protobuf.encode_field(1, self._new)
                return framing.frame_header(frame.kind, frame.size - end + len(field)) + field, frame.payload + end
        return b"", frame.start


class _RelabelledSource:
    """A `SegmentSource` whose frames have new beginnings. The rest of each frame is read from the original source."""

    def __init__(self, source: SegmentSource) -> None:
        self._source = source
        self.frames: list[Frame] = []
        self._starts: list[int] = []
        self._parts: list[tuple[bytes, int, int]] = []

    def add(self, frame: Frame, head: bytes, rest: int, end: int) -> None:
        self.frames.append(frame)
        self._starts.append(frame.start)
        self._parts.append((head, rest, end))

    def read(self, offset: int, size: int) -> bytes:
        out = b""
        for number, (head, rest, end) in self._from(offset):
            frame = head + self._source.read(rest, end - rest)
            out += frame[max(0, offset - self._starts[number]) :]
            if len(out) >= size:
                break
        return out[:size]

    def copy(self, target: int, offset: int, size: int) -> None:
        # `offset` and `size` are those of whole frames, because sinks copy only whole frames.
        for _, (head, rest, end) in self._from(offset):
            view = memoryview(head)
            while view:
                view = view[os.write(target, view) :]
            if end > rest:
                self._source.copy(target, rest, end - rest)
            size -= len(head) + end - rest
            if size <= 0:
                return

    def _from(self, offset: int) -> list[tuple[int, tuple[bytes, int, int]]]:
        first = bisect_right(self._starts, offset) - 1
        return list(enumerate(self._parts))[first:]

"""Encodes the messages of `messages.py` as lists of frames, and decodes them.

A *frame* is one part of a ZeroMQ message here, and not a frame of a Rerun file. The first frame is a header, whose size
depends only on the kind of the message. Further frames are JSON, or bytes such as a pickle.

Covers: the bytes of each message, and checks of their form.
Does not cover: sending (`sockets.py`), and pickling. A pickle is only bytes here.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

from mpr.transport.messages import (
    KEY_BYTES,
    PROTOCOL,
    Accepted,
    Downstream,
    Flush,
    Function,
    Goodbye,
    Hello,
    Indices,
    IndicesWanted,
    InitializerFailed,
    KeyAnswer,
    KeyWanted,
    NewOutbox,
    Ready,
    Result,
    ResultInMemory,
    RowsCounted,
    SegmentReady,
    Skipped,
    Stop,
    Sync,
    Synced,
    TaskBegan,
    TaskEnded,
    TaskRecordingRows,
    Tasks,
    Undelivered,
    Upstream,
    Welcome,
)
from mpr.transport.packing import Buffer, Frames, MessageError

# The headers. Each begins with the kind of the message. Only `_PLACE` is no header: it begins the second frame of a
# `ResultInMemory`.
_KIND = struct.Struct("<B")
_SEGMENT = struct.Struct("<BIQQ")
_RESULT = struct.Struct("<BQIIBBQQQQQQ")
_PLACE = struct.Struct("<B")
_TASKS = struct.Struct("<BQQBIIHQ16s")
_OFFSETS = struct.Struct("<BIQ")
_NUMBER = struct.Struct("<BQ")
_TWO_NUMBERS = struct.Struct("<BQQ")
_TASK = struct.Struct("<BQIIQ")
_KEY = struct.Struct(f"<BQ{KEY_BYTES}s")
_ANSWER = struct.Struct("<BQ?")

# The error for bytes that are no message says the sizes of this many frames.
_FRAMES_SHOWN = 8

(
    _HELLO,
    _NEW_OUTBOX,
    _SEGMENT_READY,
    _RESULT_READY,
    _INITIALIZER_FAILED,
    _GOODBYE,
    _WELCOME,
    _FUNCTION,
    _TASKS_READY,
    _ACCEPTED,
    _STOP,
    _READY,
    _SKIPPED,
    _TASK_RECORDING_ROWS,
    _TASK_BEGAN,
    _TASK_ENDED,
    _SYNC,
    _SYNCED,
    _UNDELIVERED,
    _RESULT_IN_MEMORY,
    _ROWS_COUNTED,
    _FLUSH,
    _INDICES_WANTED,
    _INDICES,
    _KEY_WANTED,
    _KEY_ANSWER,
) = range(26)


# The messages without fields, by their kind.
_BARE: dict[int, type[Goodbye | Flush | Stop]] = {_GOODBYE: Goodbye, _FLUSH: Flush, _STOP: Stop}
_OF_ONE_NUMBER: dict[int, type[Ready | RowsCounted | Skipped | IndicesWanted]] = {
    _READY: Ready,
    _ROWS_COUNTED: RowsCounted,
    _SKIPPED: Skipped,
    _INDICES_WANTED: IndicesWanted,
}
_BARE_KINDS = {bare: kind for kind, bare in _BARE.items()}


def encode(message: Upstream | Downstream) -> Frames:
    """Return the frames (parts of a ZeroMQ message) of `message`. `decode` turns the frames back into a message."""
    match message:
        case SegmentReady(outbox, start, end, data):
            head = _SEGMENT.pack(_SEGMENT_READY, outbox, start, end)
            return [head] if data is None else [head, data]
        case Result(payload=payload):
            return [_result_head(_RESULT_READY, message), *payload]
        case ResultInMemory(result, area, sizes):
            return [_result_head(_RESULT_IN_MEMORY, result), _PLACE.pack(area) + sizes]
        case Tasks(work_item, sequence, mode, first, again, attempt, index, digest, payload):
            return [
                _TASKS.pack(_TASKS_READY, work_item, sequence, mode, first, again, attempt, index, digest),
                *payload,
            ]
        case Accepted(outbox, end):
            return [_OFFSETS.pack(_ACCEPTED, outbox, end)]
        case Hello():
            fields = {name: getattr(message, name) for name in Hello.__slots__}
            return [_KIND.pack(_HELLO), json.dumps(fields).encode()]
        case NewOutbox(address):
            return [_KIND.pack(_NEW_OUTBOX), address.encode()]
        case InitializerFailed(payload):
            return [_KIND.pack(_INITIALIZER_FAILED), *payload]
        case TaskBegan(work_item, task, attempt, started_nanos):
            return [_TASK.pack(_TASK_BEGAN, work_item, task, attempt, started_nanos)]
        case TaskEnded(seconds, error):
            return [_KIND.pack(_TASK_ENDED), json.dumps([seconds, error]).encode()]
        case TaskRecordingRows(data, recording, counted):
            return [_TWO_NUMBERS.pack(_TASK_RECORDING_ROWS, recording, counted), data]
        case Ready(micros):
            return [_NUMBER.pack(_READY, micros)]
        case RowsCounted(rows):
            return [_NUMBER.pack(_ROWS_COUNTED, rows)]
        case Skipped(sequence):
            return [_NUMBER.pack(_SKIPPED, sequence)]
        case Undelivered(reason, rows_are_lost):
            return [_NUMBER.pack(_UNDELIVERED, rows_are_lost), reason.encode()]
        case Sync(number, keys):
            head = _NUMBER.pack(_SYNC, number)
            return [head, keys] if keys else [head]
        case Synced(number, failure, until):
            return [_TWO_NUMBERS.pack(_SYNCED, number, until), failure.encode()]
        case Goodbye() | Flush() | Stop():
            return [_KIND.pack(_BARE_KINDS[type(message)])]
        case IndicesWanted(count):
            return [_NUMBER.pack(_INDICES_WANTED, count)]
        case Indices(first, count):
            return [_OFFSETS.pack(_INDICES, count, first)]
        case KeyWanted(number, key):
            return [_KEY.pack(_KEY_WANTED, number, key)]
        case KeyAnswer(number, is_complete):
            return [_ANSWER.pack(_KEY_ANSWER, number, is_complete)]
        case Welcome(inline, number, key_filter):
            return [_OFFSETS.pack(_WELCOME, inline, number), key_filter.encode()]
        case Function(digest, code):
            return [_KIND.pack(_FUNCTION), digest, code]


def _result_head(kind: int, result: Result) -> bytes:
    return _RESULT.pack(
        kind,
        result.work_item,
        result.first,
        result.count,
        result.status,
        result.last,
        result.micros,
        result.flush_micros,
        result.rows,
        result.data_bytes,
        result.number,
        result.ended_nanos,
    )


def decode(frames: Frames) -> Upstream | Downstream:
    """Return the message that `encode` has turned into `frames`.

    Raises `MessageError` if `frames` are no message of this version.
    """
    try:
        return _decode(frames)
    except Exception as error:  # noqa: BLE001  # also `RecursionError` and `MemoryError`, for JSON that is deep or long
        parts = ", ".join(f"{len(frame)} bytes" for frame in frames[:_FRAMES_SHOWN])
        begin = bytes(frames[0][:32]).hex() if frames else ""
        raise MessageError(f"not a message of protocol {PROTOCOL}: {error} ({parts}, from {begin!r} on)") from None


def _result(head: bytes, payload: Sequence[Buffer]) -> Result:
    _, work_item, first, count, status, last, micros, *spent = _RESULT.unpack(head)
    return Result(work_item, first, count, status, bool(last), micros, payload, *spent)


def _synced(head: bytes, frames: Frames) -> Synced:
    _, number, until = _TWO_NUMBERS.unpack(head)
    return Synced(number, bytes(frames[1]).decode(), until)


def _task_ended(data: bytes) -> TaskEnded:
    seconds, error = json.loads(data)
    if type(seconds) is not float or not (error is None or type(error) is str):
        raise MessageError("the end of a task with fields of the wrong types")
    if error is not None:
        # Raises an error if UTF-8 cannot encode the text. JSON may contain such a text.
        error.encode()
    return TaskEnded(seconds, error)


def _keys(frames: Frames) -> bytes:
    keys = b"".join(bytes(frame) for frame in frames)
    if len(keys) % KEY_BYTES:
        raise MessageError("keys of a wrong size")
    return keys


def _decode(frames: Frames) -> Upstream | Downstream:
    head = bytes(frames[0])
    kind = head[0]
    if kind == _RESULT_READY:
        return _result(head, frames[1:])
    if kind == _RESULT_IN_MEMORY:
        place = bytes(frames[1])
        return ResultInMemory(_result(head, []), _PLACE.unpack_from(place)[0], place[_PLACE.size :])
    if kind == _TASKS_READY:
        _, work_item, sequence, mode, first, again, attempt, index, digest = _TASKS.unpack(head)
        return Tasks(work_item, sequence, mode, first, again, attempt, index, digest, frames[1:])
    if kind == _SEGMENT_READY:
        _, outbox, start, end = _SEGMENT.unpack(head)
        data = bytes(frames[1]) if len(frames) > 1 else None
        if end < start or (data is not None and len(data) != end - start):
            raise MessageError("a segment whose size is not what it says")
        return SegmentReady(outbox, start, end, data)
    if kind == _ACCEPTED:
        return Accepted(*_OFFSETS.unpack(head)[1:])
    if kind == _HELLO:
        fields = json.loads(bytes(frames[1]))
        hello = Hello(**fields)
        texts = (hello.secret, hello.route, hello.address, hello.status_page)
        numbers = (hello.worker, hello.pid, hello.protocol)
        has_types = all(isinstance(each, str) for each in texts) and all(type(each) is int for each in numbers)
        if not has_types or type(hello.is_owner) is not bool:
            raise MessageError("a hello with fields of the wrong types")
        return hello
    if kind == _NEW_OUTBOX:
        return NewOutbox(bytes(frames[1]).decode())
    if kind == _INITIALIZER_FAILED:
        return InitializerFailed(frames[1:])
    if kind == _TASK_BEGAN:
        return TaskBegan(*_TASK.unpack(head)[1:])
    if kind == _TASK_ENDED:
        return _task_ended(bytes(frames[1]))
    if kind == _TASK_RECORDING_ROWS:
        return TaskRecordingRows(bytes(frames[1]), *_TWO_NUMBERS.unpack(head)[1:])
    if kind in _OF_ONE_NUMBER:
        return _OF_ONE_NUMBER[kind](_NUMBER.unpack(head)[1])
    if kind == _SYNC:
        return Sync(_NUMBER.unpack(head)[1], _keys(frames[1:]))
    if kind == _KEY_WANTED:
        return KeyWanted(*_KEY.unpack(head)[1:])
    if kind == _KEY_ANSWER:
        return KeyAnswer(*_ANSWER.unpack(head)[1:])
    if kind == _SYNCED:
        return _synced(head, frames)
    if kind == _UNDELIVERED:
        return Undelivered(bytes(frames[1]).decode(), bool(_NUMBER.unpack(head)[1]))
    if kind == _WELCOME:
        _, inline, number = _OFFSETS.unpack(head)
        return Welcome(bool(inline), number, bytes(frames[1]).decode())
    if kind == _INDICES:
        _, count, first = _OFFSETS.unpack(head)
        return Indices(first, count)
    if kind == _FUNCTION:
        return Function(bytes(frames[1]), bytes(frames[2]))
    if kind in _BARE:
        return _BARE[kind]()
    raise MessageError(f"unknown kind {kind}")

"""Defines the messages between a producer and the parent: as frozen values, and as lists of frames on the wire.

A *producer* is a process that logs, such as a worker. Its rows are in an *outbox*, a file in memory (`outbox.py`).
A *frame* is one part of a ZeroMQ message here, and not a frame of a Rerun file. The first frame is a fixed header.
Further frames are JSON or payload. This module unpickles nothing. The receiver unpickles a payload only if the sender
has shown the recording's secret.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from mpr.transport.packing import Buffer, Frames, MessageError

PROTOCOL = 5

_KIND = struct.Struct("<B")
_SEGMENT = struct.Struct("<BIQQ")
_RESULT = struct.Struct("<BQIIBBQQQQQQ")
_PLACE = struct.Struct("<B")
_TASKS = struct.Struct("<BQQBIIHQ16s")
_OFFSETS = struct.Struct("<BIQ")
_NUMBER = struct.Struct("<BQ")
_TASK = struct.Struct("<BQIIQ")


# --- upstream: worker to parent -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """Introduces a producer. It is the first message of the producer.

    Attributes
    ----------
    secret:
        The recording's secret.
    worker, pid:
        The producer's number in the pool (0: no worker), and its process id.
    route:
        The producer's name on the downstream socket.
    address, status_page:
        The paths at which the parent opens the producer's first outbox and its status page (empty: no page).
    protocol:
        The version of the messages.
    """

    #: Not part of `repr`, because the text of a message may be logged.
    secret: str = field(repr=False)
    worker: int
    pid: int
    route: str
    address: str
    status_page: str = ""
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Ready:
    """Says that the worker takes tasks. Its initializer has returned, after `micros` microseconds."""

    micros: int = 0


@dataclass(frozen=True, slots=True)
class NewOutbox:
    """Asks the parent to open the outbox at `address`. The producer writes there after `Accepted` with `end` 0."""

    address: str


@dataclass(frozen=True, slots=True)
class SegmentReady:
    """Announces that outbox number `outbox` was written up to `end`.

    If the parent cannot open the outbox, `data` has the bytes from `start` to `end`. If `outbox` is one higher than in
    the last message, the outbox before it is complete, with its manifest.
    """

    outbox: int
    start: int
    end: int
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class RowsCounted:
    """Says that the outboxes until the end of the present one have at least `rows` rows."""

    rows: int


@dataclass(frozen=True, slots=True)
class TaskRecordingRows:
    """Carries rows of a recording that a task has made itself. `data` is a whole stream, header to footer.

    The parent answers with `Accepted`. In this answer, `outbox` is `TASK_RECORDING_ROWS`, and `end` is the number of
    bytes that the sinks have taken from all such messages of the producer.
    """

    data: Buffer


TASK_RECORDING_ROWS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Result:
    """Carries the outcomes of `count` tasks of a work item, from `first` on. Earlier outcomes are known already.

    Attributes
    ----------
    work_item, first, count:
        The number of the work item, the first task of this result, and the number of tasks in it.
    status:
        `RETURNED`, `MIXED` or `RAISED`.
    last:
        Whether this is the last result of the work item.
    micros:
        The time since the worker began the work item, in microseconds.
    payload:
        The outcomes, packed by `pickling`.
    flush_micros, rows, data_bytes:
        All since the last result of the worker: the microseconds that the worker has waited for the SDK to encode rows,
        the number of logged rows, and the number of their bytes.
    number:
        The number of this result among those of the worker, counted from 1.
    ended_nanos:
        When the result was ready (`time.monotonic_ns()`). It may be sent later, with those of other short tasks.
    """

    work_item: int
    first: int
    count: int
    status: int
    last: bool
    micros: int
    payload: Sequence[Buffer]
    flush_micros: int = 0
    rows: int = 0
    data_bytes: int = 0
    number: int = 0
    ended_nanos: int = 0


@dataclass(frozen=True, slots=True)
class ResultInMemory:
    """Carries `result` without its payload. The worker has left the payload in area `area` of its journal.

    `sizes` has the sizes of the parts of the payload, packed by the journal.
    """

    result: Result
    area: int
    sizes: bytes


#: The kinds of outcomes. `RETURNED`: a list of results. `MIXED`: a list with a `task_pickling.Failure` for each task
#: that raised. `RAISED`: one error for all tasks, because the worker could not open the work item (`count` is 0).
RETURNED, MIXED, RAISED = range(3)


@dataclass(frozen=True, slots=True)
class TaskBegan:
    """Marks that the next rows belong to attempt `attempt` of task `task`, begun at `started_nanos` (`time_ns`).

    Workers send `TaskBegan` and `TaskEnded` only if a sink keeps the rows of each task apart.
    """

    work_item: int
    task: int
    attempt: int
    started_nanos: int


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """Marks that the task has ended after `seconds`, with `error` if it raised. Its outbox is completed next."""

    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Says that the worker does not run its `sequence`-th work item, because the parent has taken the item back."""

    sequence: int


@dataclass(frozen=True, slots=True)
class InitializerFailed:
    """Carries the exception that the worker's initializer has raised."""

    payload: Sequence[Buffer]


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Says that the producer has sent all its messages, and that its last outbox is complete."""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Says that the producer cannot write to a sink or its outbox. With `rows_are_lost`, no other sink has the rows."""

    reason: str
    rows_are_lost: bool


@dataclass(frozen=True, slots=True)
class Sync:
    """Asks for `Synced` with this number, as soon as the sinks have accepted all rows that were announced before.

    Number 0 asks for nothing. It answers `Flush`: all rows that the process had logged were announced before.
    """

    number: int


# --- downstream: parent to worker ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """Accepts the producer. With `inline`, the producer has to send the bytes of its outbox in messages."""

    inline: bool


@dataclass(frozen=True, slots=True)
class Function:
    """Carries a task function. A worker gets it once, before the first work item that needs it."""

    digest: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Tasks:
    """Carries a work item: one or more tasks of one call of the pool.

    Attributes
    ----------
    work_item:
        The number of the work item in the pool.
    sequence:
        The number of the work item among those that were sent to this worker.
    mode:
        How the function gets each item of the arguments: `CALL`, `EACH` or `STAR`.
    first:
        The task to begin with. Earlier tasks are done.
    again, attempt:
        From `first` on, `again` tasks run for the `attempt`-th time. The tasks after them run for the first time.
    index:
        The index of task 0 of this work item in its call.
    digest:
        The digest of the function to call: 16 bytes.
    payload:
        The arguments of all tasks, packed by `pickling`.
    """

    work_item: int
    sequence: int
    mode: int
    first: int
    again: int
    attempt: int
    index: int
    digest: bytes
    payload: Sequence[Buffer]


#: The ways to call the function: `function(*args, **kwargs)`, `function(item)` and `function(*item)`.
CALL, EACH, STAR = range(3)


@dataclass(frozen=True, slots=True)
class Accepted:
    """Says that outbox number `outbox` is open (`end` is 0), or that the sinks have its bytes up to `end`.

    The second is said only of bytes that came in messages. For bytes in shared memory no message is needed.
    """

    outbox: int
    end: int


@dataclass(frozen=True, slots=True)
class Synced:
    """Answers the `Sync` of this number: the sinks have all rows announced before, unless `failure` says why not."""

    number: int
    failure: str


@dataclass(frozen=True, slots=True)
class Flush:
    """Asks a process that has joined for all its rows now, because the recording is about to close."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Ends the worker, because there are no more tasks."""


Upstream: TypeAlias = (
    Hello
    | Ready
    | NewOutbox
    | SegmentReady
    | RowsCounted
    | TaskRecordingRows
    | Result
    | ResultInMemory
    | TaskBegan
    | TaskEnded
    | Skipped
    | InitializerFailed
    | Undelivered
    | Sync
    | Goodbye
)
Downstream: TypeAlias = Welcome | Function | Tasks | Accepted | Synced | Flush | Stop

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
) = range(22)


_BARE: dict[int, type[Goodbye | Flush | Stop]] = {_GOODBYE: Goodbye, _FLUSH: Flush, _STOP: Stop}
_BARE_KINDS = {bare: kind for kind, bare in _BARE.items()}


def encode(message: Upstream | Downstream) -> Frames:
    """Return the frames of `message` for the wire."""
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
        case TaskRecordingRows(data):
            return [_KIND.pack(_TASK_RECORDING_ROWS), data]
        case Ready(micros):
            return [_NUMBER.pack(_READY, micros)]
        case RowsCounted(rows):
            return [_NUMBER.pack(_ROWS_COUNTED, rows)]
        case Skipped(sequence):
            return [_NUMBER.pack(_SKIPPED, sequence)]
        case Undelivered(reason, rows_are_lost):
            return [_NUMBER.pack(_UNDELIVERED, rows_are_lost), reason.encode()]
        case Sync(number):
            return [_NUMBER.pack(_SYNC, number)]
        case Synced(number, failure):
            return [_NUMBER.pack(_SYNCED, number), failure.encode()]
        case Goodbye() | Flush() | Stop():
            return [_KIND.pack(_BARE_KINDS[type(message)])]
        case Welcome(inline):
            return [_NUMBER.pack(_WELCOME, inline)]
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
    """Return the message in `frames`. Raises `MessageError` if they are no message, whatever the bytes are."""
    try:
        return _decode(frames)
    except (struct.error, ValueError, TypeError, IndexError, RecursionError) as error:
        parts = ", ".join(f"{len(frame)} bytes" for frame in frames)
        begin = bytes(frames[0][:32]).hex() if frames else ""
        raise MessageError(f"not a message of protocol {PROTOCOL}: {error} ({parts}, from {begin!r} on)") from None


def _result(head: bytes, payload: Sequence[Buffer]) -> Result:
    _, work_item, first, count, status, last, micros, *spent = _RESULT.unpack(head)
    return Result(work_item, first, count, status, bool(last), micros, payload, *spent)


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
        if not all(isinstance(each, str) for each in texts) or not all(type(each) is int for each in numbers):
            raise MessageError("a hello with fields of the wrong types")
        return hello
    if kind == _NEW_OUTBOX:
        return NewOutbox(bytes(frames[1]).decode())
    if kind == _INITIALIZER_FAILED:
        return InitializerFailed(frames[1:])
    if kind == _TASK_BEGAN:
        return TaskBegan(*_TASK.unpack(head)[1:])
    if kind == _TASK_ENDED:
        seconds, error = json.loads(bytes(frames[1]))
        if type(seconds) is not float or not (error is None or type(error) is str):
            raise MessageError("the end of a task with fields of the wrong types")
        return TaskEnded(seconds, error)
    if kind == _TASK_RECORDING_ROWS:
        return TaskRecordingRows(bytes(frames[1]))
    if kind == _READY:
        return Ready(_NUMBER.unpack(head)[1])
    if kind == _ROWS_COUNTED:
        return RowsCounted(_NUMBER.unpack(head)[1])
    if kind == _SKIPPED:
        return Skipped(_NUMBER.unpack(head)[1])
    if kind == _SYNC:
        return Sync(_NUMBER.unpack(head)[1])
    if kind == _SYNCED:
        return Synced(_NUMBER.unpack(head)[1], bytes(frames[1]).decode())
    if kind == _UNDELIVERED:
        return Undelivered(bytes(frames[1]).decode(), bool(_NUMBER.unpack(head)[1]))
    if kind == _WELCOME:
        return Welcome(bool(_NUMBER.unpack(head)[1]))
    if kind == _FUNCTION:
        return Function(bytes(frames[1]), bytes(frames[2]))
    if kind in _BARE:
        return _BARE[kind]()
    raise MessageError(f"unknown kind {kind}")

"""What travels between a worker and its parent: each message is a frozen value, and a list of frames on the wire.

The first frame is a fixed header or JSON, further frames are payload. Nothing is unpickled here: a payload is opened
by whoever is meant to have it, after the sender has shown the recording's secret.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

PROTOCOL = 4

Buffer: TypeAlias = bytes | memoryview
Frames: TypeAlias = list[Any]

_KIND = struct.Struct("<B")
_SEGMENT = struct.Struct("<BIQQ")
_RESULT = struct.Struct("<BQIIBBQBQQQQQ")
_TASKS = struct.Struct("<BQQBIIHQ16s")
_OFFSETS = struct.Struct("<BIQ")
_NUMBER = struct.Struct("<BQ")
_TASK = struct.Struct("<BQIIQ")


class MessageError(ValueError):
    """Frames that are no message of this protocol."""


# --- upstream: worker to parent -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a producer.

    `route` is its name on the downstream socket, `address` its first outbox, `status_page` where it writes down its
    results.
    """

    #: A secret: not in the text of a message, which may be logged.
    secret: str = field(repr=False)
    worker: int
    pid: int
    route: str
    address: str
    status_page: str = ""
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker's initializer has returned, after `micros`: it takes tasks."""

    micros: int = 0


@dataclass(frozen=True, slots=True)
class NewOutbox:
    """The producer will go on in the outbox at `address`, as soon as the parent has it open (`Accepted` with end 0)."""

    address: str


@dataclass(frozen=True, slots=True)
class SegmentReady:
    """Outbox number `outbox` was written up to `end`; where it cannot be opened, `data` has its bytes from `start`.

    A number that is one higher than before says that the last outbox is complete, with its manifest.
    """

    outbox: int
    start: int
    end: int
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class TaskRecordingRows:
    """Rows of a recording that a task has made itself: `data` is a whole stream, header to footer.

    They are accepted like those of an outbox with the number `TASK_RECORDING_ROWS`, whose end is the sum of all sizes.
    """

    data: Buffer


TASK_RECORDING_ROWS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Result:
    """What became of the tasks `first` to `first + count` of a work item, all of its tasks before `first` being known.

    `status` is one of the three below, `payload` what `pickling` made of the outcomes. `last` says that the worker is
    done with the work item, which took `micros` from its first task on. With `in_memory` the payload only says where on
    the
    worker's status page the outcomes are. Since its last result the worker has logged `rows` rows, in `data_bytes`
    bytes, and
    waited `flush_micros` for the SDK to encode them. It is the worker's result with that `number`, counted from 1, and
    was there at `ended_nanos` (`time.monotonic_ns()`): results of short tasks are sent together.
    """

    work_item: int
    first: int
    count: int
    status: int
    last: bool
    micros: int
    payload: Sequence[Buffer]
    in_memory: bool = False
    flush_micros: int = 0
    rows: int = 0
    data_bytes: int = 0
    number: int = 0
    ended_nanos: int = 0


#: A list of results; a list of results with a `pickling.Failure` for each task that raised; one error for all of them,
#: where the work item could not be opened (`count` is 0 then).
RETURNED, MIXED, RAISED = range(3)


@dataclass(frozen=True, slots=True)
class TaskBegan:
    """Rows from here on are of task `task` of a work item, tried for the `attempt`-th time, begun at `started_nanos`.

    Sent, as the next one, only where a sink keeps the rows of each task apart.
    """

    work_item: int
    task: int
    attempt: int
    started_nanos: int


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """The task that had begun has ended after `seconds`, with `error`, if any. Its outbox is complete in a moment."""

    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """The worker has not begun the work item that it was sent as its `sequence`-th: the parent has taken it back."""

    sequence: int


@dataclass(frozen=True, slots=True)
class InitializerFailed:
    payload: Sequence[Buffer]


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The producer has sent all it will ever send, and its last outbox is closed."""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A producer that opens its sinks itself has lost one; with `rows_are_lost`, none is left that has its rows."""

    reason: str
    rows_are_lost: bool


@dataclass(frozen=True, slots=True)
class Sync:
    """The producer waits for `Synced` with this number: until all that it has announced is accepted."""

    number: int


# --- downstream: parent to worker ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """The producer is accepted; with `inline` it has to send the bytes of its outbox in its messages."""

    inline: bool


@dataclass(frozen=True, slots=True)
class Function:
    """A task function, sent once per worker before the first work item that needs it."""

    digest: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Tasks:
    """A work item: one or several tasks of one call of the pool.

    Attributes
    ----------
    work item:
        Its number in the pool.
    turn:
        It is the `sequence`-th work item that this worker is sent.
    mode:
        How each item of the arguments is handed to the function, one of the three below.
    first:
        The task to begin with; those before it are done.
    again, attempt:
        The next `again` tasks are tried for the `attempt`-th time; those behind them for the first time.
    index:
        Index of task 0 of this work item in its call.
    digest:
        Which function to call: 16 bytes.
    payload:
        A list with the arguments of each task.
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


#: `function(*args, **kwargs)`, `function(item)`, `function(*item)`.
CALL, EACH, STAR = range(3)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The sinks have outbox number `outbox` up to `end`: sent where the bytes travel inline, and when it was opened."""

    outbox: int
    end: int


@dataclass(frozen=True, slots=True)
class Synced:
    """All that was announced before the `Sync` of this number is accepted; or is not, because of `failure`."""

    number: int
    failure: str


@dataclass(frozen=True, slots=True)
class Stop:
    """No more tasks: say goodbye and end."""


Upstream: TypeAlias = (
    Hello
    | Ready
    | NewOutbox
    | SegmentReady
    | TaskRecordingRows
    | Result
    | TaskBegan
    | TaskEnded
    | Skipped
    | InitializerFailed
    | Undelivered
    | Sync
    | Goodbye
)
Downstream: TypeAlias = Welcome | Function | Tasks | Accepted | Synced | Stop

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
) = range(19)


def encode(message: Upstream | Downstream) -> Frames:
    """`message` as frames for the wire."""
    match message:
        case SegmentReady(outbox, start, end, data):
            head = _SEGMENT.pack(_SEGMENT_READY, outbox, start, end)
            return [head] if data is None else [head, data]
        case Result(
            work_item, first, count, status, last, micros, payload, in_memory, flush, rows, size, number, ended
        ):
            numbers = (work_item, first, count, status, last, micros, in_memory, flush, rows, size, number, ended)
            return [_RESULT.pack(_RESULT_READY, *numbers), *payload]
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
        case Skipped(sequence):
            return [_NUMBER.pack(_SKIPPED, sequence)]
        case Undelivered(reason, rows_are_lost):
            return [_NUMBER.pack(_UNDELIVERED, rows_are_lost), reason.encode()]
        case Goodbye():
            return [_KIND.pack(_GOODBYE)]
        case Sync(number):
            return [_NUMBER.pack(_SYNC, number)]
        case Synced(number, failure):
            return [_NUMBER.pack(_SYNCED, number), failure.encode()]
        case Welcome(inline):
            return [_NUMBER.pack(_WELCOME, inline)]
        case Function(digest, code):
            return [_KIND.pack(_FUNCTION), digest, code]
        case Stop():
            return [_KIND.pack(_STOP)]


def decode(frames: Frames) -> Upstream | Downstream:
    """The message in `frames`; raises `MessageError` for anything else, whatever the bytes are."""
    try:
        return _decode(frames)
    except (struct.error, ValueError, TypeError, IndexError, RecursionError) as error:
        raise MessageError(f"not a message of protocol {PROTOCOL}: {error}") from None


def _decode(frames: Frames) -> Upstream | Downstream:
    head = bytes(frames[0])
    kind = head[0]
    if kind == _RESULT_READY:
        _, work_item, first, count, status, last, micros, in_memory, *spent = _RESULT.unpack(head)
        return Result(work_item, first, count, status, bool(last), micros, frames[1:], bool(in_memory), *spent)
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
    if kind == _SKIPPED:
        return Skipped(_NUMBER.unpack(head)[1])
    if kind == _GOODBYE:
        return Goodbye()
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
    if kind == _STOP:
        return Stop()
    raise MessageError(f"unknown kind {kind}")

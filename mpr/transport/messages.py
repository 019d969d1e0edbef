"""Defines the messages between a producer and the parent as frozen values. `encoding.py` has their form on the wire.

A *producer* is a process that logs, such as a worker. Its rows are in an *outbox*, a file in memory (`outbox.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from mpr.transport.packing import Buffer

PROTOCOL = 6


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
        The addresses by which the parent opens the producer's first outbox and its status page (empty: no page).
    protocol:
        The version of the messages.
    is_owner:
        Whether the producer is the process that has made the recording. Such a producer gets no number.
    """

    #: Not part of `repr`, because the text of a message may be logged.
    secret: str = field(repr=False)
    worker: int
    pid: int
    route: str
    address: str
    status_page: str = ""
    protocol: int = PROTOCOL
    is_owner: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """Says that the worker takes tasks. Its initializer has returned, after `micros` microseconds."""

    micros: int = 0


@dataclass(frozen=True, slots=True)
class NewOutbox:
    """Asks the parent to open the outbox at `address`.

    The parent answers with `Accepted`, in which `end` is 0. The producer writes into this outbox only after the answer.
    """

    address: str


@dataclass(frozen=True, slots=True)
class SegmentReady:
    """Announces that outbox number `outbox` was written up to `end`.

    If the parent cannot open the outbox, `data` has the bytes from `start` to `end`. If `outbox` is one higher than in
    the last message, the previous outbox is complete and has its manifest.
    """

    outbox: int
    start: int
    end: int
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class RowsCounted:
    """Says how many rows the producer has counted: its outboxes until now must have at least `rows` rows together.

    The producer sends this message after it has announced the last bytes of an outbox, and before it announces the next
    one. If the outboxes have fewer rows, rows are lost.
    """

    rows: int


@dataclass(frozen=True, slots=True)
class TaskRecordingRows:
    """Carries rows of a recording that a task has made itself. `data` is a complete Rerun stream, header to footer.

    The parent answers with `Accepted`. In this answer, `outbox` is `TASK_RECORDING_ROWS`, and `end` is the number of
    bytes that the sinks have taken from all such messages of the producer.
    """

    data: Buffer


TASK_RECORDING_ROWS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Result:
    """Carries the outcomes of `count` tasks of a work item, from task `first` on.

    Earlier results have carried the outcomes of the tasks before.

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
        The outcomes, packed by `processes/pickling.py`.
    flush_micros, rows, data_bytes:
        All since the last result of the worker: the microseconds that the worker has waited for the SDK to encode rows,
        the number of logged rows, and the number of their bytes.
    number:
        The number of this result among those of the worker, counted from 1.
    ended_nanos:
        When the result was ready (`time.monotonic_ns()`). The worker may send the result later, together with the
        results of other short tasks.
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

    `sizes` has the sizes of the parts of the payload, as `result_journal.py` packs them.
    """

    result: Result
    area: int
    sizes: bytes


#: The kinds of outcomes. `RETURNED`: a list of results. `MIXED`: a list with a `task_pickling.Failure` for each task
#: that raised. `RAISED`: one error for all tasks, because the worker could not open the work item (`count` is 0).
RETURNED, MIXED, RAISED = range(3)


@dataclass(frozen=True, slots=True)
class TaskBegan:
    """Marks that the next rows belong to attempt `attempt` of task `task`, begun at `started_nanos` (`time.time_ns()`).

    Workers send `TaskBegan` and `TaskEnded` only if a sink keeps the rows of each task apart.
    """

    work_item: int
    task: int
    attempt: int
    started_nanos: int


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """Marks that the task has ended after `seconds`, with `error` if it raised.

    The worker then completes the current outbox, so that no rows of another task are in this outbox.
    """

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


@dataclass(frozen=True, slots=True)
class IndicesWanted:
    """Asks for `count` indices of tasks. The parent answers with `Indices`."""

    count: int


# --- downstream: parent to worker ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """Accepts the producer. With `inline`, the producer has to send the bytes of its outbox in messages.

    `number` is the number of the process in the recording: for a worker its own one, and 0 for the process that has
    made the recording.
    """

    inline: bool
    number: int = 0


@dataclass(frozen=True, slots=True)
class Function:
    """Carries a task function. The parent sends it before a work item, if the worker does not have the function.

    A worker keeps only the functions that it used last (`function_cache.py`).
    """

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
        The arguments of all tasks, packed by `processes/pickling.py`.
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

    The parent sends the second kind only for bytes that came in messages. For an outbox in shared memory, the producer
    itself sees how many bytes the parent has not released yet.
    """

    outbox: int
    end: int


@dataclass(frozen=True, slots=True)
class Synced:
    """Answers the `Sync` of this number: the sinks have all rows announced before, unless `failure` says why not."""

    number: int
    failure: str


@dataclass(frozen=True, slots=True)
class Indices:
    """Answers `IndicesWanted`: the indices from `first` on, `count` of them, belong to this producer."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Flush:
    """Asks a process that has joined for all its rows now, because the recording is about to close."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Asks the worker to end when it has done the work items that were sent before."""


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
    | IndicesWanted
    | Goodbye
)
Downstream: TypeAlias = Welcome | Function | Tasks | Accepted | Synced | Indices | Flush | Stop

"""Defines the messages between a producer and the parent, as frozen dataclasses. `encoding.py` turns them into bytes.

A *producer* is a process that logs, such as a worker. Its rows are in an *outbox*, a file in memory (`outbox.py`). A
*work item* is one or several tasks of one call, which a worker gets in one message.

Covers: the types and the fields of all messages.
Does not cover: their bytes (`encoding.py`), and sending them (`sockets.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from mpr.transport.packing import Buffer

#: The version of the messages. A parent refuses a producer that has another version.
PROTOCOL = 7

#: The size of a key in bytes. A key stands for one task of another engine (`tasks/engine_task.py`).
KEY_BYTES = 16


# --- upstream: worker to parent -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """Is the first message of a producer, which tells the parent who the producer is.

    Attributes
    ----------
    secret:
        The recording's secret, which proves that the producer may join.
    worker, pid:
        The producer's number if it is a worker of a pool (0: it is no worker), and its process id.
    route:
        The producer's name, by which the parent sends messages to it.
    address, status_page:
        The addresses of the producer's first outbox and of its status page (`status_page.py`; empty: no page), which
        the parent opens.
    protocol:
        The version of the messages.
    is_owner:
        True if the producer is the process that has made the recording. Such a producer has the number 0.
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
    """Says that the worker can run tasks from now on. Its initializer took `micros` microseconds."""

    micros: int = 0


@dataclass(frozen=True, slots=True)
class NewOutbox:
    """Asks the parent to open the producer's next outbox, which is at `address`.

    The parent answers with `Accepted`, in which `end` is 0. The producer writes into this outbox only after the answer.
    """

    address: str


@dataclass(frozen=True, slots=True)
class SegmentReady:
    """Announces that outbox number `outbox` was written up to byte `end`.

    If the parent cannot open the outbox, `data` has the bytes from `start` to `end`. If `outbox` is one higher than in
    the last message, the previous outbox is complete: it ends with the list of its chunks (the manifest).
    """

    outbox: int
    start: int
    end: int
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class RowsCounted:
    """Says how many rows the producer has counted: all its outboxes until now must have at least `rows` rows together.

    The producer sends this message after it has announced the last bytes of an outbox, and before it announces the next
    one. If the outboxes have fewer rows, rows are lost.
    """

    rows: int


@dataclass(frozen=True, slots=True)
class TaskRecordingRows:
    """Carries rows of a recording that a task has made itself. `data` is a complete Rerun stream, header to footer.

    `recording` is the number of this recording among those of the process. `counted` is the number of rows that the
    process has counted for the recording since the last such message. `data` is empty if the SDK had no rows.

    The parent answers with `Accepted`. In this answer, `outbox` is `TASK_RECORDING_ROWS`, and `end` is the number of
    bytes that the sinks have got from all such messages of the producer.
    """

    data: Buffer
    recording: int = 0
    counted: int = 0


#: The value of `Accepted.outbox` in the answer to `TaskRecordingRows`. No outbox has this number.
TASK_RECORDING_ROWS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Result:
    """Carries the outcomes of `count` tasks of a work item, from task `first` on (task 0 is the first one).

    Earlier results have carried the outcomes of the tasks before `first`.

    Attributes
    ----------
    work_item, first, count:
        The number of the work item, the first task of this result, and the number of tasks in this result.
    status:
        The form of the payload. `RETURNED`: one list of results. `APART`: results and errors that were pickled one by
        one. `RAISED`: one error for all tasks, because the worker could not open the work item (`count` is 0).
    last:
        True if this is the last result of the work item.
    micros:
        The time since the worker began the work item, in microseconds.
    payload:
        The outcomes, pickled by `processes/pickling.py`.
    flush_micros, rows, data_bytes:
        All three are counted from the worker's last result on: the time that the worker has waited for the SDK to
        encode rows (microseconds), the number of logged rows, and the number of their bytes.
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
    """Carries `result` without its payload, because the payload is large.

    The worker has written the payload into area `area` of its journal (`result_journal.py`). An area is a part of the
    journal for one large payload. The parent reads the payload there. `sizes` has the size of each part of the payload:
    8 bytes per size, little-endian.
    """

    result: Result
    area: int
    sizes: bytes


#: The kinds of outcomes. `RETURNED`: a list of results. `APART`: results and errors that were pickled one by one, see
#: `parts_of_results` in `processes/task_pickling.py`. `RAISED`: one error for all tasks, because the worker could not
#: open the work item (`count` is 0).
RETURNED, APART, RAISED = range(3)


@dataclass(frozen=True, slots=True)
class TaskBegan:
    """Says that the next rows belong to attempt `attempt` of task `task` of a work item.

    The attempt began at `started_nanos` (`time.time_ns()`). Workers send `TaskBegan` and `TaskEnded` only if a sink
    keeps the rows of each task apart.
    """

    work_item: int
    task: int
    attempt: int
    started_nanos: int


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """Says that the task of the last `TaskBegan` has ended after `seconds` seconds.

    `error` is a text about the exception that the task has raised; None if it has raised nothing. After this message,
    the worker completes the current outbox, so that no rows of another task are in this outbox.
    """

    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Says that the worker does not run its `sequence`-th work item, because the parent has taken the item back.

    The first work item of a worker has the sequence 1.
    """

    sequence: int


@dataclass(frozen=True, slots=True)
class InitializerFailed:
    """Carries the pickled exception that the worker's initializer has raised. The parent then ends the pool."""

    payload: Sequence[Buffer]


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Says that the producer sends no more messages, and that its last outbox is complete."""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Says that the producer cannot write rows to a sink or to its outbox, and gives the `reason`.

    `rows_are_lost` is True if no other sink has these rows.
    """

    reason: str
    rows_are_lost: bool


@dataclass(frozen=True, slots=True)
class Sync:
    """Asks the parent to answer with `Synced(number)` when the sinks have all rows that were announced before.

    Number 0 asks for no answer. The process sends it as its own answer to `Flush`, after it has announced all its rows.

    `keys` are the keys of engine tasks that have ended, each `KEY_BYTES` long. All rows of these tasks were announced
    before. If the sinks have these rows, the parent remembers that the tasks are complete (see `KeyWanted`).
    """

    number: int
    keys: bytes = b""


@dataclass(frozen=True, slots=True)
class IndicesWanted:
    """Asks the parent to reserve `count` indices for tasks that no pool runs. The parent answers with `Indices`."""

    count: int


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """Asks the parent if the engine task with the key `key` is complete: all its rows are in the sinks.

    The parent answers with `KeyAnswer(number)`. The producer does not log the rows of a complete task again.
    """

    number: int
    key: bytes


# --- downstream: parent to worker ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """Answers a `Hello`: the parent accepts the producer.

    If `inline` is True, the parent cannot open the producer's outboxes, for example because the producer runs in
    another container. The producer then sends the bytes of its outboxes in messages. `number` is the number of the
    producer in the recording. It is equal to `Hello.worker` for a worker, and 0 for the process that has made the
    recording. For any other process, `Hello.worker` is 0, and `number` is a new number that no other process has.
    `key_filter` is the address of the memory in which the producer sees that a task is not complete (`key_filter.py`).
    It is empty if there is none, so that the producer must ask about each key.
    """

    inline: bool
    number: int = 0
    key_filter: str = ""


@dataclass(frozen=True, slots=True)
class Function:
    """Carries a pickled task function. The parent sends it before a work item if the worker lacks the function.

    `digest` is a hash of the pickle: 16 bytes. A worker keeps only the functions that it used last
    (`function_cache.py`).
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
        The number of the work item among those that were sent to this worker, counted from 1.
    mode:
        How the worker calls the function. `CALL`: `function(*args, **kwargs)`. `EACH`: `function(item)`. `STAR`:
        `function(*item)`.
    first:
        The number of the first task to run, counted from 0 in the work item. Earlier tasks have their results already.
    again, attempt:
        The first `again` tasks, from `first` on, run for the `attempt`-th time. The tasks after them run for the first
        time.
    index:
        The index of task 0 of this work item in its call.
    digest:
        The digest of the function to call: 16 bytes.
    payload:
        The arguments of all tasks, pickled by `processes/pickling.py`.
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
    """Says that the parent has opened outbox number `outbox` (`end` is 0), or that the sinks have `end` bytes of it.

    The parent sends the second kind only for bytes that came in messages. For an outbox in shared memory, the producer
    itself sees how many bytes the parent has not released yet. The message also answers `TaskRecordingRows`: `outbox`
    is then `TASK_RECORDING_ROWS`.
    """

    outbox: int
    end: int


@dataclass(frozen=True, slots=True)
class Synced:
    """Answers the `Sync` of this number: the sinks have all rows that were announced before, or rows are lost.

    `failure` says why rows are lost. It concerns each task that began before the process sent its request number
    `until`. If `until` is `NO_END`, no later row comes either. If `until` is 0, no row is lost.
    """

    number: int
    failure: str = ""
    until: int = 0


#: The value of `Synced.until` if all later rows of the process are lost, too.
NO_END = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Indices:
    """Answers `IndicesWanted`: only this producer may use the `count` indices from `first` on for its tasks."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """Answers `KeyWanted(number)`. `is_complete` says if all rows of the engine task are in the sinks."""

    number: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Flush:
    """Asks a process that has joined to announce all its rows now, because the recording is about to close.

    The process then answers with `Sync(0)`.
    """


@dataclass(frozen=True, slots=True)
class Stop:
    """Asks the worker to end after it has run the work items that were sent before."""


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
    | KeyWanted
    | Goodbye
)
Downstream: TypeAlias = Welcome | Function | Tasks | Accepted | Synced | Indices | KeyAnswer | Flush | Stop

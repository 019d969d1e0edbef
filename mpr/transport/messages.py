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
PROTOCOL = 8

#: The size of a key in bytes. A key stands for one task of another engine (`tasks/engine_task.py`).
KEY_BYTES = 16


# --- upstream: worker to parent -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """Is the first message of a producer. It identifies the producer.

    Attributes
    ----------
    secret:
        The recording's secret, which proves that the producer may join.
    worker:
        The number of the worker; 0 if the producer is no worker of a pool.
    pid:
        The process id.
    route:
        The producer's name, by which the parent sends messages to it.
    address:
        The address of the producer's first outbox.
    status_page:
        The address of the producer's status page (`status_page.py`); empty if there is none.
    protocol:
        The version of the messages (`PROTOCOL`).
    is_owner:
        True if the producer is the process that has made the recording.
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

    The parent answers with `Accepted`, in which `end` is 0, even if it cannot open the outbox.
    """

    address: str


@dataclass(frozen=True, slots=True)
class SegmentReady:
    """Announces that outbox number `outbox` was written up to byte `end`.

    The producer has announced the bytes before `start` already. If the parent cannot open the outbox, `data` has the
    bytes from `start` up to, but without, `end`. If it can, `data` is None. If `outbox` is higher than in the message
    before, the previous outbox is complete.
    """

    outbox: int
    start: int
    end: int
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class RowsCounted:
    """Says that all outboxes of the producer until now must have at least `rows` rows together.

    If the outboxes have fewer rows, rows are lost.
    """

    rows: int


@dataclass(frozen=True, slots=True)
class TaskRecordingRows:
    """Carries rows of a recording that a task has made itself.

    The parent answers with `Accepted`, in which `outbox` is `TASK_RECORDING_ROWS`.

    Attributes
    ----------
    data:
        A complete Rerun stream, from header to footer; empty if the SDK had no rows.
    recording:
        The number of this recording in the process. No other recording of the process has this number.
    counted:
        How many rows the process has counted for this recording since its last `TaskRecordingRows` about this
        recording.
    """

    data: Buffer
    recording: int = 0
    counted: int = 0


#: The value of `Accepted.outbox` in the answer to `TaskRecordingRows`. No outbox has this number.
TASK_RECORDING_ROWS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Result:
    """Carries the outcomes (results or errors) of `count` tasks of a work item, from task `first` on.

    Attributes
    ----------
    work_item:
        The number of the work item in the pool.
    first:
        The number of the first task, counted from 0 in the work item.
    count:
        The number of tasks; 0 if `status` is `RAISED`. All tasks from `first` on then have the one error in `payload`.
    status:
        The form of the payload: one of the constants `RETURNED`, `APART` and `RAISED` of this module.
    last:
        True if this is the last result of the work item.
    micros:
        The time since the worker began the work item, in microseconds.
    payload:
        The outcomes, pickled by `processes/pickling.py`.
    flush_micros:
        How long the worker waited after these tasks until the SDK had encoded their rows, in microseconds.
    rows, data_bytes:
        How many rows the worker has logged since its last result, and how many bytes of rows it has written since then.
    number:
        The number of this result, counted from 1 in the worker.
    ended_nanos:
        The time at which the result was ready (`time.monotonic_ns()`). The worker may send the result later.
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

    The payload is in area number `area` of the worker's journal (`result_journal.py`). `sizes` has the size in bytes of
    each part of the payload, as 8 bytes each (little-endian).
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
    """Says that a task has begun, and that the next rows belong to it: task number `task` of work item `work_item`.

    This is the `attempt`-th run of the task. It began at `started_nanos` (`time.time_ns()`). Workers send `TaskBegan`
    and `TaskEnded` only if a sink keeps the rows of each task apart.
    """

    work_item: int
    task: int
    attempt: int
    started_nanos: int


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """Says that the task of the last `TaskBegan` has ended after `seconds` seconds.

    `error` is a text about the exception that the task has raised; None if it has raised nothing.
    """

    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Says that the worker does not run a work item, because the parent has taken the work item back.

    The work item is the `sequence`-th one that was sent to this worker, counted from 1.
    """

    sequence: int


@dataclass(frozen=True, slots=True)
class InitializerFailed:
    """Carries, as a pickle, an exception of the worker's initializer, or of unpickling the initializer.

    The worker then ends without running a task.
    """

    payload: Sequence[Buffer]


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Says that the producer sends no more messages, and has announced all bytes of its last outbox."""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Says that the producer cannot write rows to a sink or to its outbox, and gives the `reason`.

    `rows_are_lost` is True if no sink has these rows. It is False if another sink, such as a file, has them.
    """

    reason: str
    rows_are_lost: bool


@dataclass(frozen=True, slots=True)
class Sync:
    """Asks the parent to answer with `Synced(number)` when the sinks have all rows that were announced before.

    The parent also answers if rows are lost. It does not answer if `number` is 0, as in the reply to `Flush`.

    `keys` are the keys of engine tasks that have ended, `KEY_BYTES` bytes each. If the sinks have the rows of these
    tasks, the parent remembers that the tasks are complete.
    """

    number: int
    keys: bytes = b""


@dataclass(frozen=True, slots=True)
class IndicesWanted:
    """Asks the parent to reserve `count` indices for tasks that no pool runs. The parent answers with `Indices`.

    No other such task gets one of these indices. Tasks of pools may have the same indices, because each pool numbers
    its own tasks.
    """

    count: int


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """Asks the parent if the engine task with the key `key` is complete: if the sinks have all rows of this task.

    The parent answers with a `KeyAnswer` that has the same `number`.
    """

    number: int
    key: bytes


# --- downstream: parent to worker ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """Answers a `Hello`: the parent accepts the producer.

    Attributes
    ----------
    inline:
        True if the parent cannot open the producer's outboxes, for example because the producer runs in another
        container. The producer then sends the bytes of its outboxes in messages.
    number:
        The number of the producer in the recording: for a worker `Hello.worker`, for the process that has made the
        recording 0, and for another process a number that no other process has.
    key_filter:
        The address of the memory in which the producer sees that an engine task is not complete (`key_filter.py`).
        Empty if there is none.
    """

    inline: bool
    number: int = 0
    key_filter: str = ""


@dataclass(frozen=True, slots=True)
class Function:
    """Carries a pickled task function, because the worker does not have the function of its next work item.

    `digest` is a hash of the pickle: 16 bytes.
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
        How many work items were sent to this worker until now, including this one.
    mode:
        How the worker calls the function. `CALL`: `function(*args, **kwargs)`. `EACH`: `function(item)`. `STAR`:
        `function(*item)`.
    first:
        The number of the first task to run, counted from 0 in the work item. The earlier tasks need not run any more.
    again, attempt:
        The first `again` tasks, from `first` on, run for the `attempt`-th time. The tasks after them run for the first
        time.
    index:
        The index of task 0 of this work item: its position in its `map`, counted from 0. In a call that is no `map`, it
        is the number of the task in the pool.
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
    """Answers `NewOutbox` (`end` is 0), or says that the producer may free the first `end` bytes of an outbox.

    `outbox` is the number of this outbox. The second case exists only for bytes that came in messages: the sinks have
    these bytes, or the parent drops them. If `outbox` is `TASK_RECORDING_ROWS`, the parent has processed `end` bytes of
    all `TaskRecordingRows` of the producer.
    """

    outbox: int
    end: int


@dataclass(frozen=True, slots=True)
class Synced:
    """Answers the `Sync` with this number: the sinks have all rows that were announced before, or rows are lost.

    If `until` is 0, no rows are lost. If not, `failure` says why rows are lost, and each task that began before the
    producer sent `Sync` number `until` may lack rows. If `until` is `NO_END`, all later rows of the producer are lost,
    too.
    """

    number: int
    failure: str = ""
    until: int = 0


#: The value of `Synced.until` if all later rows of the process are lost, too.
NO_END = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Indices:
    """Answers `IndicesWanted`: only this producer may use the `count` indices from `first` on."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """Answers the `KeyWanted` with the same `number`. `is_complete` is True if the sinks have all rows of the task."""

    number: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Flush:
    """Asks a process that has joined to announce all its rows now, because the recording is about to close.

    The process then sends a `Sync` with the number 0.
    """


@dataclass(frozen=True, slots=True)
class Stop:
    """Asks the worker to run all work items that were sent before and not taken back, and then to end."""


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

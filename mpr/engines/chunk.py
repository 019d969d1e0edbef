"""Runs the tasks of one work item in a worker of an engine, and returns their outcomes.

Covers: joining the recording, loading function and arguments, calling the function, and delivering the rows.
Does not cover: how a chunk reaches the worker (the module of the engine), and what the parent does with an answer
(`dispatcher.py`).
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from mpr.errors import RecordingClosedError, describe_process
from mpr.processes import task_pickling
from mpr.tasks import current, engine_task
from mpr.tasks.call_modes import CALLS, TaskNotes
from mpr.tasks.current import CurrentTask
from mpr.tasks.decorator import decorated, undecorated
from mpr.threads import aside
from mpr.transport import connection_info, ipc_folder
from mpr.transport.messages import APART, KEY_BYTES, RAISED, RETURNED

if TYPE_CHECKING:
    from mpr.producer.producer import Producer
    from mpr.transport.connection_info import ConnectionInfo

# A chunk checks between two tasks, at this interval (seconds), whether the recording is still open.
_LOOK_SECS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The tasks of one work item, in a form that every pickler can pickle.

    Attributes
    ----------
    recording:
        The connection info of the recording as text. It contains the secret of the recording.
    function:
        The pickled task function.
    mode:
        `CALL`, `EACH` or `STAR` of `transport/messages.py`: how the function is called with each argument.
    index:
        The index of the first task in its call.
    arguments:
        The pickled arguments, and their buffers.
    key:
        The key by which the parent remembers that the chunk is complete; empty if the engine never runs a chunk again.
    """

    recording: str
    function: bytes
    mode: int
    index: int
    arguments: Sequence[bytes]
    key: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The outcomes of the tasks of one chunk, and numbers for the telemetry.

    Attributes
    ----------
    status, payload:
        `RETURNED`, `RAISED` or `APART` of `transport/messages.py`, and the pickled results or errors of the tasks.
    worker, pid:
        The number of the engine's worker in the recording (0: the chunk as a whole has failed), and its process id.
    micros, flush_micros:
        The time from the start of the chunk until its rows were delivered, and the part of this time after the last
        task. The two times are in microseconds.
    rows:
        The number of rows that the process has logged in this time.
    ended_nanos:
        The time at which the rows were delivered (`time.monotonic_ns()` of the worker's machine).
    """

    status: int
    payload: Sequence[bytes]
    worker: int = 0
    pid: int = 0
    micros: int = 0
    flush_micros: int = 0
    rows: int = 0
    ended_nanos: int = 0


def key_of(pool: bytes, work_item: int) -> bytes:
    """Return the key of the chunk with the number `work_item`.

    `pool` has the random bytes of one pool, so that the chunks of two pools do not have equal keys.
    """
    return blake2b(work_item.to_bytes(8, "little"), key=pool, digest_size=KEY_BYTES).digest()


def run_chunk(chunk: Chunk) -> Answer:
    """Run the tasks of `chunk` one after another. Returns when every durable sink (such as a file) has their rows.

    If all rows of `chunk` are in the recording from an earlier run, the tasks run again, but their rows are dropped.

    This function raises nothing, because engines wrap exceptions in classes of their own. If a step outside of the
    tasks fails, such as joining the recording or delivering the rows, the error is the outcome of all tasks.
    """
    started_ns = time.monotonic_ns()
    try:
        return _run(chunk, started_ns)
    except BaseException as error:  # noqa: BLE001  # see above
        return Answer(status=RAISED, payload=_as_bytes(task_pickling.dump_exception(error)), pid=os.getpid())


def _run(chunk: Chunk, started_ns: int) -> Answer:
    # Imported here because these modules import the Rerun SDK, and the parent needs only the classes of this module.
    from mpr.producer import membership
    from mpr.transport.status_page import ROWS

    config = connection_info.from_text(chunk.recording)
    producer = membership.attach(config)
    counters = producer.status_page.counters
    engine_call = engine_task.EngineCall(chunk.key, engine_task.current_attempt())
    is_muted = engine_call.is_repeated(producer.key_questions.is_complete)
    attempt = 1 + (engine_call.attempt or 0)
    began = producer.deliveries.last
    entered, rows = producer.log_counters.entered, counters[ROWS]
    with membership.capture(producer, is_muted=is_muted):
        results, notes = _run_tasks(chunk, producer, attempt, is_muted=is_muted)
    payload, together = task_pickling.dump_results(results, notes.of)
    ended_ns = time.monotonic_ns()
    if producer.log_counters.entered != entered and not is_muted:
        aside(lambda: producer.deliver(chunk.key))
        producer.deliveries.check(began)
    now_ns = time.monotonic_ns()
    return Answer(
        status=RETURNED if together else APART,
        payload=_as_bytes(payload),
        worker=producer.number,
        pid=os.getpid(),
        micros=(now_ns - started_ns) // 1000,
        flush_micros=(now_ns - ended_ns) // 1000,
        rows=counters[ROWS] - rows,
        ended_nanos=now_ns,
    )


def _run_tasks(chunk: Chunk, producer: Producer, attempt: int, *, is_muted: bool) -> tuple[list[Any], TaskNotes]:
    """Run the tasks one after another. Return (list of their results, notes for their errors).

    If a task has raised, the list has a `Failure` with the error in place of the result.

    A task shares the context of the task before it, unless that task has changed the context, for example by setting a
    time. If the function has a prefix or a timeline of its own, each task has a new context.
    """
    from mpr.producer import muted
    from mpr.tasks.context import TaskContext
    from mpr.tasks.execution import note_error

    config = producer.config
    body, options = undecorated(_function(chunk.function))
    arguments = task_pickling.load_arguments(chunk.arguments)
    # A prefix or a timeline is of one task, so the decorated function makes a context for each.
    has_own = options.entity_path_prefix is not None or options.timeline is not None
    call = functools.partial(CALLS[chunk.mode], decorated(body, options, config) if has_own else body)
    name = options.function if has_own else options.name
    first = CurrentTask(name=name, index=chunk.index, attempt=attempt, worker=producer.number)
    target = muted.stand_in(producer) if is_muted else producer
    where = describe_process(producer.number, os.getpid())
    notes = TaskNotes(name, chunk.mode, chunk.index, arguments, where, attempt, len(arguments))

    def outcome(number: int) -> Any:
        try:
            return call(arguments[number])
        except BaseException as error:  # noqa: BLE001  # SystemExit is the task's error too, as in a pool
            if not has_own:
                note_error(name, error)
            return task_pickling.Failure(error, notes.of(number))

    results: list[Any] = []
    position = [0]
    look_at = time.monotonic() + _LOOK_SECS
    with current.running(first, position), current.delivered_together():
        while len(results) < len(arguments):
            context = TaskContext(target)
            with nullcontext() if has_own and not is_muted else context.step():
                for number in range(len(results), len(arguments)):
                    position[0] = 2 * number
                    results.append(outcome(number))
                    if time.monotonic() > look_at:
                        look_at = time.monotonic() + _LOOK_SECS
                        _check_open(config)
                    if has_own or not context.is_as_new():
                        break
    return results, notes


def _check_open(config: ConnectionInfo) -> None:
    """Raise `RecordingClosedError` if the recording was closed, because nobody wants the results of more tasks."""
    if not ipc_folder.is_owned(config.folder):
        raise RecordingClosedError(f"the recording {config.application_id!r} was closed meanwhile")


@functools.lru_cache(maxsize=16)
def _function(code: bytes) -> Callable[..., Any]:
    """Return the task function in the pickle `code`. The last 16 functions are cached."""
    return task_pickling.load_function(code)


def _as_bytes(payload: Sequence[Any]) -> list[bytes]:
    # The picklers of the engines take no `memoryview`.
    return [bytes(part) for part in payload]

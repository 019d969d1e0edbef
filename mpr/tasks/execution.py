"""Runs one task in this process: finds its recording, sets its context, and delivers its rows at the end.

Covers: `@mpr.task` and `SharedRecording.wrap`. For a decorated function in a worker of a pool, only its prefix and its
timeline.
Does not cover: running tasks of a pool and delivering their rows (`worker/loop.py`).
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeAlias

from mpr.errors import RecordingError, describe_process
from mpr.producer import async_delivery, membership, muted
from mpr.producer.producer import Producer
from mpr.producer.route_state import thread_state
from mpr.tasks import call_modes, context, current, engine_task, prefix
from mpr.tasks.current import CurrentTask, TaskOptions
from mpr.threads import aside
from mpr.transport.connection_info import ConnectionInfo
from mpr.user_code import around, is_a, traceback_text
from mpr.user_code import log as _log

#: The positional and the keyword arguments of a call.
Call: TypeAlias = tuple[tuple[Any, ...], Mapping[str, Any]]

# Counts the tasks of this process that have no recording to join.
_unrecorded = itertools.count()


class Execution:
    """One run of a task, from its creation just before the body to `close`.

    If another decorated or wrapped function runs in this thread, this task is a part of that task, and the methods
    do nothing. If an engine such as Ray repeats a task whose rows are all in the recording, the rows of this run are
    dropped.

    Parameters
    ----------
    options:
        The arguments of the task's decorator.
    config:
        The recording that the task logs to; None for the inherited recording, or for the current recording if none was
        inherited.
    arguments:
        The arguments of the call, by name, for the fields of the prefix; None for none.
    call:
        The positional and the keyword arguments of the call, for the note of an error.

    Raises
    ------
    RecordingClosedError, JoinError
        If the recording cannot be joined, or is closed before the task has its index.
    DeliveryError
        If the parent does not answer a request of this process.
    ConfigError
        If the prefix cannot be filled in.
    """

    def __init__(
        self,
        options: TaskOptions,
        config: ConnectionInfo | None = None,
        arguments: Mapping[str, Any] | None = None,
        call: Call = ((), {}),
    ) -> None:
        self._context: context.TaskContext | None = None
        self._is_over = False
        self._call = call
        if thread_state.context is not None:
            # Another task calls this one, so this one is a part of that task.
            return
        producer = membership.extracted_producer() if config is None else membership.attach(config)
        self._producer = producer
        # The number of the last delivery before this run.
        self._began = 0 if producer is None else producer.deliveries.last
        self._captures = config is not None
        #: Whether a pool runs this task. The code that runs several tasks of a pool delivers their rows together.
        self._in_pool = producer is not None and (membership.is_worker(producer) or current.is_delivered_together())
        #: The call of another engine's task; None if no such task runs.
        self._engine_call: engine_task.EngineCall | None = None
        outer = current.current_task() if self._in_pool else None
        if outer is None or outer.name != options.function:
            # This is not the task of a pool itself. Either a task of a pool calls this one, or there is no pool.
            if producer is None:
                self._task = CurrentTask(name=options.name, index=next(_unrecorded))
            else:
                self._task = self._new_task(options, producer)
        else:
            self._task = replace(outer, name=options.name)
        path = options.entity_path_prefix
        self._is_muted = False
        target: Producer | muted.MutedProducer | None = producer
        if producer is not None and self._engine_call is not None:
            self._is_muted = self._engine_call.is_repeated(producer.key_questions.is_complete)
            target = muted.stand_in(producer) if self._is_muted else producer
        self._context = context.TaskContext(target, path and prefix.fill(path, self._task, arguments or {}))
        if options.timeline is not None:
            self._begin_timeline(options.timeline)

    def _new_task(self, options: TaskOptions, producer: Producer) -> CurrentTask:
        """Return the identity, with a new index, of a task that no pool has submitted.

        Outside of a pool, also set `_engine_call`, the call of another engine's task, if there is one.
        """
        attempt = 1
        if not self._in_pool:
            self._engine_call = engine_task.current_call(options.function, producer.config.recording_id)
            if self._engine_call is not None:
                attempt += self._engine_call.attempt or 0
        index = producer.indices.next()
        return CurrentTask(name=options.name, index=index, attempt=attempt, worker=producer.number)

    def _begin_timeline(self, timeline: str) -> None:
        import rerun as rr

        with self.step():
            rr.set_time(timeline, sequence=self._task.index)

    def capture(self) -> AbstractContextManager[None]:
        """Return a context manager that sends logging calls of all threads to the recording of a wrapped function.

        `membership.capture` says which calls these are. The context manager does nothing for a task of `@mpr.task`, or
        for a part of another task.
        """
        if self._context is None or self._producer is None or not self._captures:
            return nullcontext()
        return membership.capture(self._producer, is_muted=self._is_muted)

    @around
    def step(self) -> Iterator[None]:
        """Within the `with` block, set the task's context, make this the current task, and do what `capture` does.

        The block runs one step: a whole function, or a generator or coroutine up to its next pause.
        """
        if self._context is None:
            yield
            return
        with self.capture(), self._context.step(), current.running(self._task):
            yield

    def close(self, error: BaseException | None) -> None:
        """Deliver the rows of the task to every durable sink. Only the first call does this.

        `error` is the exception of the body; None if the body has returned. In a pool, the rows are delivered with the
        result instead. Raises `DeliveryError` or `RecordingClosedError` if the delivery fails and `error` is None.
        Otherwise the failure is logged, because the caller must get `error`.
        """
        producer = self._to_deliver(error)
        if producer is not None:
            with _logged_after(error):
                if is_a(error, GeneratorExit):
                    async_delivery.deliver_of_closed(producer)
                else:
                    # Aside, because a handler of a signal may run a task, too, and may deliver its rows meanwhile.
                    keys = self._keys(error)
                    aside(lambda: producer.deliver(keys))
                producer.deliveries.check(self._began)

    async def close_in_loop(self, error: BaseException | None) -> None:
        """Do the same as `close(error)`, but let other coroutines of the event loop run meanwhile."""
        producer = self._to_deliver(error)
        if producer is not None:
            with _logged_after(error):
                await async_delivery.deliver(producer, self._keys(error))
                producer.deliveries.check(self._began)

    def _to_deliver(self, error: BaseException | None) -> Producer | None:
        """Mark the task as ended. Return the producer that must deliver its rows; None if no delivery is needed.

        `error` is the exception of the body; None if the body has returned. Its text is logged by `note_error`.
        """
        if self._context is None or self._context.forked or self._is_over:
            return None
        self._is_over = True
        raised = None if error is None or _is_an_ending(error) else error
        if raised is not None and not self._is_muted:
            with self.step():
                note_error(self._task.name, raised)
        if raised is not None and not self._in_pool:
            # In a pool, the process that gets the error adds a note with the task of the pool.
            call_modes.add_note(raised, self._note())
        if self._is_muted:
            return None
        return self._producer if self._context.has_logged and not self._in_pool else None

    def _note(self) -> str:
        task, arguments = self._task, call_modes.described(*self._call)
        where = describe_process(task.worker or 0, os.getpid())
        return call_modes.note(f"{task.name}[{task.index}]", task.name, arguments, where, task.attempt)

    def _keys(self, error: BaseException | None) -> bytes:
        """Return the key of the engine's task, which is complete when its rows are delivered.

        Returns b"" if there is no such task, or if the body has raised `error`, because the engine may then run the
        task again.
        """
        return b"" if error is not None or self._engine_call is None else self._engine_call.key


def note_error(name: str, error: BaseException) -> None:
    """Log the text of `error`, with its traceback, to `mpr/tasks/<name>`, at the times that the task `name` has set.

    Does nothing if `error` only means that a generator was closed or a coroutine was cancelled. If the SDK raises, a
    warning is logged.
    """
    if _is_an_ending(error):
        return
    import rerun as rr

    text = traceback_text(error)
    # In strict mode the SDK may raise here, but the task's own error is the one to report.
    try:
        rr.log(f"mpr/tasks/{rr.escape_entity_path_part(name)}", rr.TextLog(text, level=rr.TextLogLevel.ERROR))
    except Exception as failure:  # noqa: BLE001  # see above
        _log.warning("the error of task %s cannot be written into the recording: %r", name, failure)


@contextmanager
def _logged_after(error: BaseException | None) -> Iterator[None]:
    """If `error` is not None, log a `RecordingError` of the `with` block instead of raising it."""
    try:
        yield
    except RecordingError as failure:
        if error is None:
            raise
        _log.error("%s", failure)


def _is_an_ending(error: BaseException) -> bool:
    """Return True if `error` only means that a generator was closed or a coroutine was cancelled."""
    asyncio = sys.modules.get("asyncio")
    return is_a(error, GeneratorExit) or (asyncio is not None and is_a(error, asyncio.CancelledError))

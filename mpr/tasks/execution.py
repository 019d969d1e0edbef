"""One run of a task in this process: where its rows go, what it has of its own, and how it ends.

Covers: `@mpr.task` and `SharedRecording.wrap`. The tasks of a pool are `worker/loop.py`'s; a decorated function that
runs as one adds its prefix and its timeline, and leaves the end to the worker.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from mpr.errors import RecordingError
from mpr.producer import async_delivery, membership
from mpr.producer.producer import Producer
from mpr.producer.router import thread_state
from mpr.tasks import context, current
from mpr.tasks.current import CurrentTask, TaskOptions
from mpr.transport.connection_info import ConnectionInfo

_log = logging.getLogger("mpr")

# How often each function was called in this process, by its name.
_calls: dict[str, Iterator[int]] = {}
# As long as one runs, the recording of plain `rr.log` must stay what it is.
_running: weakref.WeakSet[Execution] = weakref.WeakSet()


class Execution:
    """One run of a task; made when its body is about to begin.

    Parameters
    ----------
    options:
        What its decorator was given.
    config:
        The recording that it belongs to; None for the one that this process inherited, or else the current one.

    Raises
    ------
    RecordingClosedError, JoinError
        If the recording of `config` cannot be joined.
    """

    def __init__(self, options: TaskOptions, config: ConnectionInfo | None = None) -> None:
        self._context: context.TaskContext | None = None
        self._is_over = False
        if thread_state.context is not None:
            # Called by another task: a plain call, and part of that.
            return
        producer = (
            membership.extracted_producer() if config is None else membership.attach(config, takes_over=not _running)
        )
        _running.add(self)
        self._producer = producer
        #: A pool's worker brings its rows along with the result.
        self._in_worker = producer is not None and membership.is_worker(producer)
        outer = current.current_task() if self._in_worker else None
        if outer is None or outer.name != options.function:
            # Not the task of the pool itself, but started by it.
            index = next(_calls.setdefault(options.name, itertools.count()))
            worker = producer.worker if producer is not None and self._in_worker else None
            self._task = CurrentTask(name=options.name, index=index, worker=worker)
        else:
            self._task = replace(outer, name=options.name)
        self._context = context.TaskContext(producer, _prefix(options, self._task))
        if options.timeline is not None:
            self._begin_timeline(options.timeline)

    def _begin_timeline(self, timeline: str) -> None:
        import rerun as rr

        with self.step():
            rr.set_time(timeline, sequence=self._task.index)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Within, the body runs: all of a function, or a generator from one `yield` to the next."""
        if self._context is None:
            yield
            return
        with self._context.step(), current.running(self._task):
            yield

    def end(self, error: BaseException | None) -> None:
        """The body has returned or raised `error`: bring its rows to every durable sink. A second call does nothing.

        Raises `DeliveryError` or `RecordingClosedError` where that fails; after an error of the task's own it is
        logged, so that the task's goes on.
        """
        producer = self._to_deliver(error)
        if producer is not None:
            with _logged_after(error):
                if isinstance(error, GeneratorExit):
                    async_delivery.deliver_of_closed(producer)
                else:
                    producer.deliver()

    async def end_in_loop(self, error: BaseException | None) -> None:
        """As `end`, and other coroutines run meanwhile."""
        producer = self._to_deliver(error)
        if producer is not None:
            with _logged_after(error):
                await async_delivery.deliver(producer)

    def _to_deliver(self, error: BaseException | None) -> Producer | None:
        """The producer that has rows of this task, which has ended with `error`, still to bring."""
        if self._context is None or self._context.forked or self._is_over:
            return None
        self._is_over = True
        _running.discard(self)
        if error is not None and not _is_an_ending(error):
            self._note(error)
        return self._producer if self._context.has_logged and not self._in_worker else None

    def _note(self, error: BaseException) -> None:
        """Write the error's text into the recording, under the times at which it came."""
        import rerun as rr

        text = "".join(traceback.format_exception(error))
        path = f"mpr/tasks/{rr.escape_entity_path_part(self._task.name)}"
        # The SDK may raise where the task has made it (strict mode), and the task's own error is what counts.
        try:
            with self.step():
                rr.log(path, rr.TextLog(text, level=rr.TextLogLevel.ERROR))
        except Exception as failure:  # noqa: BLE001  # see above
            _log.warning("the error of task %s cannot be written into the recording: %r", self._task.name, failure)


@contextmanager
def _logged_after(error: BaseException | None) -> Iterator[None]:
    """After an `error` of the task's own, that its rows cannot be delivered is only logged."""
    try:
        yield
    except RecordingError as failure:
        if error is None:
            raise
        _log.error("%s", failure)


def _is_an_ending(error: BaseException) -> bool:
    """Whether `error` only says that a generator was closed or a coroutine cancelled."""
    asyncio = sys.modules.get("asyncio")
    return isinstance(error, GeneratorExit) or (asyncio is not None and isinstance(error, asyncio.CancelledError))


def _prefix(options: TaskOptions, task: CurrentTask) -> str | None:
    if options.entity_path_prefix is None:
        return None
    import rerun as rr

    name = rr.escape_entity_path_part(task.name)
    worker = "" if task.worker is None else task.worker
    return options.entity_path_prefix.format(
        task=f"{name}/{task.index}",
        name=name,
        index=task.index,
        attempt=task.attempt,
        worker=worker,
        pid=os.getpid(),
    )

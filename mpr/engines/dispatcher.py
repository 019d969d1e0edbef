"""Submits the work items of one pool to an engine, and hands the outcomes to the callers.

```
callers ── submit ──► EngineDispatcher ── chunks ──► Engine
   ▲                       │     ▲                     │
   └────── outcomes ───────┘     └────── answers ──────┘
```

One thread, `mpr-engine`, changes the state of the dispatcher and calls the engine. Other threads give steps (functions)
to this thread, and put submitted work items into a queue. So there is no lock, and a handler of a signal may call any
method. When this thread has ended, the thread that gives a step runs the step.

Covers: submitting, cancelling, answers, closing and terminating.
Does not cover: which worker runs a chunk, and what happens if the worker dies (the engine decides), how a chunk runs
(`chunk.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

from mpr.engines.chunk import Answer, Chunk, key_of
from mpr.engines.engine import Engine
from mpr.engines.step_thread import StepThread
from mpr.scheduler import outcomes
from mpr.scheduler.callbacks import Callbacks
from mpr.scheduler.observer import PoolObserver, PoolObservers
from mpr.scheduler.outcomes import Outcome, open_result
from mpr.scheduler.pending_work import PendingWork
from mpr.scheduler.state import PoolLifecycle, PoolState
from mpr.scheduler.task_dispatcher import TaskDispatcher
from mpr.scheduler.work_item import Describe, TaskFunction, WorkItem, describe_nothing
from mpr.threads import Latch
from mpr.transport.messages import Hello, Result
from mpr.user_code import Contained


class EngineDispatcher(TaskDispatcher):
    """Accepts the tasks of one pool, and has an engine run them.

    Parameters
    ----------
    engine:
        The engine.
    recording:
        The connection info of the recording as text, for the engine's workers.
    observer:
        Gets a call for each event of tasks and workers; None for no observer.
    first_seen:
        Called with the number of a worker of the engine when the first answer of this worker arrives, before the
        observer is called.

    Attributes
    ----------
    by_value:
        True: functions of `__main__` are pickled by value, because an engine's workers have another `__main__`.
    describe:
        Returns nothing, because the rows of an engine's tasks are not written separately.
    """

    by_value: bool = True
    describe: Describe = staticmethod(describe_nothing)

    def __init__(
        self, engine: Engine, recording: str, observer: PoolObserver | None, first_seen: Callable[[int], None]
    ) -> None:
        self._engine = engine
        self._recording = recording
        #: Random bytes, so that no other pool has the same keys.
        self._key = os.urandom(16)
        self._observer = PoolObservers([] if observer is None else [observer])
        self._first_seen = first_seen
        self.lifecycle: PoolLifecycle = PoolLifecycle()
        self.work: PendingWork = PendingWork()
        self.callbacks: Callbacks = Callbacks(self._begin_callback, self._end_callback)
        # How many callbacks have not run to their end.
        self._callbacks_left = 0
        self._futures: dict[int, Future[Answer]] = {}
        #: The process ids of the engine's workers that have sent an answer. The keys are the numbers of the workers.
        self._pids: dict[int, int] = {}
        #: Set when the pool takes no tasks any more, and every task has its outcome.
        self._all_done = Latch()
        self._thread = StepThread("mpr-engine", self._look)

    def _look(self) -> None:
        """Set `_all_done` if the pool takes no tasks, every task has its outcome, and every callback has ended."""
        feeds = self.work.has_feeders and self.lifecycle.state is not PoolState.TERMINATED
        is_open = self.lifecycle.state is PoolState.RUNNING
        if not is_open and not self.work.has_items and not feeds and not self._callbacks_left:
            self._all_done.set()

    def _begin_callback(self) -> None:
        self._callbacks_left += 1

    def _end_callback(self) -> None:
        def end() -> None:
            self._callbacks_left -= 1

        self._thread.soon(end)

    # --- calls -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> PoolState:
        return self.lifecycle.state

    def ending_error(self) -> BaseException | None:
        return self.lifecycle.ending_error()

    def announce(self, function: TaskFunction, count: int) -> None:
        self._thread.soon(lambda: self._observer.announce(function.name, count))

    def submit(self, *work_items: WorkItem) -> None:
        self.work.submit(work_items)
        self._thread.soon(self._take_submitted)

    def _take_submitted(self) -> None:
        for work_item in self.work.take_submitted():
            self._observer.submitted(work_item.function.name, work_item.count)
            error = self.lifecycle.refusal()
            if error is not None:
                self._hand_over(Outcome.of_rest(work_item, error))
                continue
            self.work.accept(work_item)
            if not outcomes.start(work_item):
                # The caller has cancelled its future before.
                self.work.forget(work_item)
                continue
            self._give(work_item)

    def _give(self, work_item: WorkItem) -> None:
        """Submit `work_item` to the engine. If the engine refuses this, the tasks get the error as their outcome."""
        chunk = Chunk(
            recording=self._recording,
            function=work_item.function.code,
            mode=work_item.mode,
            index=work_item.index,
            arguments=[bytes(part) for part in work_item.payload],
            key=key_of(self._key, work_item.number) if self._engine.runs_again else b"",
        )
        try:
            future = self._futures[work_item.number] = self._engine.submit(chunk)
        except BaseException as error:  # noqa: BLE001  # the error of an engine that takes no work
            self.work.forget(work_item)
            self._hand_over(Outcome.of_rest(work_item, self._engine.failure(error, work_item.name(0))))
            return
        future.add_done_callback(lambda done: self._thread.soon(lambda: self._settle(work_item, done)))

    def pid(self, worker: int) -> int | None:
        """Return the process id of the engine's worker number `worker`; None if no answer of this worker has come."""
        return self._pids.get(worker)

    def begin_feeding(self, feeder: object) -> None:
        self.work.begin_feeding(feeder)
        self._thread.soon(lambda: self._observer.feeding(1))

    def end_feeding(self, feeder: object) -> None:
        def end() -> None:
            if self.work.end_feeding(feeder):
                self._observer.feeding(-1)

        self._thread.soon(end)

    def cancel(self, work_item: WorkItem, *, running: bool) -> bool:
        """Cancel `work_item` if its future can be cancelled (see `Engine.submit`).

        Returns True if this call has cancelled `work_item`, and else False. `running` makes no difference. The tasks
        get a `CancelledError`, even if the engine still runs them.
        """
        cancelled: list[bool] = []
        self._thread.do(lambda: cancelled.append(self._cancel(work_item)))
        return any(cancelled)

    def _cancel(self, work_item: WorkItem) -> bool:
        self._take_submitted()
        future = self._futures.get(work_item.number)
        if work_item not in self.work or future is None or not future.cancel():
            return False
        self._forget(work_item)
        self._hand_over(Outcome.of_rest(work_item, CancelledError()))
        return True

    def drop_waiting(self) -> None:
        """Cancel every work item whose future can be cancelled, as `cancel` does."""
        self._thread.do(lambda: [self._cancel(each) for each in self.work.accepted()])

    # --- answers -----------------------------------------------------------------------------------------------

    def _settle(self, work_item: WorkItem, future: Future[Answer]) -> None:
        """Give the tasks of `work_item` their outcomes from `future`, which is done.

        Does nothing if the tasks have outcomes already.
        """
        if work_item not in self.work:
            # It was cancelled, or the pool was terminated.
            return
        self._forget(work_item)
        try:
            answer = future.result(0)
        except BaseException as error:  # noqa: BLE001  # whatever the engine raises is the outcome
            self._hand_over(Outcome.of_rest(work_item, self._engine.failure(error, work_item.name(0))))
            return
        result = Result(
            work_item.number,
            0,
            work_item.count,
            answer.status,
            True,
            answer.micros,
            answer.payload,
            flush_micros=answer.flush_micros,
            rows=answer.rows,
            ended_nanos=answer.ended_nanos,
        )
        if answer.worker:
            self._report(work_item, result, answer)
        for outcome in open_result(work_item, result, work_item.count, None):
            self._hand_over(outcome)

    def _report(self, work_item: WorkItem, result: Result, answer: Answer) -> None:
        """Report to the observer which worker of the engine has run the tasks, and the times and rows in `result`."""
        hello = Hello("", answer.worker, answer.pid, "", "")
        if answer.worker not in self._pids:
            self._pids[answer.worker] = answer.pid
            self._first_seen(answer.worker)
            self._observer.ready(hello, 0)
        self._observer.result(hello, work_item, work_item.count, result)

    def _forget(self, work_item: WorkItem) -> None:
        self.work.forget(work_item)
        del self._futures[work_item.number]

    def _hand_over(self, outcome: Outcome) -> None:
        self._observer.settled(outcome.work_item, outcome.first, outcome.task_count, outcome.error)
        outcomes.hand_over(outcome)

    # --- the end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Accept no new calls. The tasks of earlier calls still run. Does not wait for them."""
        self._thread.do(self.lifecycle.close)

    def wait_until_done(self) -> None:
        """Wait until every task has its outcome, and every callback has ended. Call this after `close`.

        Ctrl-C ends the wait.
        """
        # No limit: the tasks are the user's, and the engine says if a worker has died.
        self._all_done.wait()
        self._thread.do(self.lifecycle.finish)

    def terminate(self, error: BaseException | None = None) -> None:
        """End the pool, and ask the engine to cancel the pool's chunks. The engine may still run some of them.

        Every task without an outcome gets `error`, or a `PoolTerminatedError` if `error` is None.
        """
        self._thread.do(lambda: self._terminate(error))

    def _terminate(self, error: BaseException | None) -> None:
        pending = self.work.forget_all()
        futures, self._futures = self._futures, {}
        self.lifecycle.terminate(error, is_reported=bool(pending))
        for future in futures.values():
            with Contained("the engine cannot cancel a task"):
                future.cancel()
        for work_item in pending:
            self._hand_over(Outcome.of_rest(work_item, self.ending_error()))
        self._take_submitted()

    def stop(self) -> None:
        """Close the observer, and end the thread `mpr-engine`. Call this after `wait_until_done` or `terminate`."""
        self._observer.close()
        self._thread.close()

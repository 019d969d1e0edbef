"""Submits the work items of one pool to an engine, and hands the outcomes to the callers.

```
callers ── submit ──► EngineDispatcher ── chunks ──► Engine
   ▲                       │     ▲                     │
   └────── outcomes ───────┘     └────── answers ──────┘
```

Covers: submitting, cancelling, answers, closing and terminating.
Does not cover: which worker runs a chunk, and what happens if the worker dies (the engine decides), how a chunk runs
(`chunk.py`).

One thread, `mpr-engine`, changes the state of this object and calls the engine. Other threads only give it steps. So
there is no lock, and a handler of a signal may call any method.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

from mpr.engines.chunk import Answer, Chunk
from mpr.engines.engine import Engine
from mpr.scheduler import outcomes
from mpr.scheduler.observer import PoolObserver, PoolObservers
from mpr.scheduler.outcomes import Outcome, open_result
from mpr.scheduler.pending_work import PendingWork
from mpr.scheduler.state import PoolLifecycle, PoolState
from mpr.scheduler.task_dispatcher import TaskDispatcher
from mpr.scheduler.work_item import TaskFunction, WorkItem
from mpr.threads import Latch, SimpleQueue, start_aside
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
        Hears of tasks and workers.
    first_seen:
        Called with the number of each worker of the engine, before the observer hears of this worker.
    """

    by_value = True

    def __init__(
        self, engine: Engine, recording: str, observer: PoolObserver | None, first_seen: Callable[[int], None]
    ) -> None:
        self._engine = engine
        self._recording = recording
        self._observer = PoolObservers([] if observer is None else [observer])
        self._first_seen = first_seen
        self._lifecycle = PoolLifecycle()
        self._work = PendingWork()
        self._futures: dict[int, Future[Answer]] = {}
        #: The process ids of the engine's workers that have sent an answer. The keys are the numbers of the workers.
        self._pids: dict[int, int] = {}
        #: Set when the pool takes no tasks any more, and every task has its outcome.
        self._all_done = Latch()
        self._steps: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        #: Whether the thread has ended. If so, the calling thread runs its steps itself.
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="mpr-engine", daemon=True)
        start_aside(self._thread)

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            # The engine is code of others, which may raise anything.
            with Contained("a step of the pool's engine raised"):
                step()
            if self._lifecycle.state is not PoolState.RUNNING and not self._has_work():
                self._all_done.set()
        self._is_over = True
        self._run_left()

    def _run_left(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                step = self._steps.get_nowait()
                if step is not None:
                    step()

    def _soon(self, step: Callable[[], object]) -> None:
        """Have the thread run `step` soon."""
        self._steps.put(step)
        if self._is_over:
            self._run_left()

    def _has_work(self) -> bool:
        feeds = self._work.has_feeders and self._lifecycle.state is not PoolState.TERMINATED
        return self._work.has_items or feeds

    def _do(self, step: Callable[[], object]) -> None:
        """Have the thread run `step`, and wait for its end. The thread itself runs `step` at once."""
        if threading.current_thread() is self._thread:
            step()
            return
        is_over = Latch()

        def run() -> None:
            try:
                step()
            finally:
                is_over.set()

        self._soon(run)
        # No limit, because the thread runs only short steps, and lives until `stop`.
        is_over.wait()

    # --- calls -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> PoolState:
        return self._lifecycle.state

    @property
    def unfinished(self) -> int:
        """The number of tasks without an outcome. Any thread may call this."""
        return self._work.unfinished

    @property
    def broke(self) -> bool:
        """Whether an error has ended the pool."""
        return self._lifecycle.broke

    def ending_error(self) -> BaseException | None:
        return self._lifecycle.ending_error()

    def check_running(self) -> None:
        self._lifecycle.check_running()

    def announce(self, function: TaskFunction, count: int) -> None:
        self._soon(lambda: self._observer.announce(function.name, count))

    def submit(self, *work_items: WorkItem) -> None:
        self._work.submit(work_items)
        self._soon(self._take_submitted)

    def _take_submitted(self) -> None:
        for work_item in self._work.take_submitted():
            self._observer.submitted(work_item.function.name, work_item.count)
            error = self._lifecycle.refusal()
            if error is not None:
                self._hand_over(Outcome.of_rest(work_item, error))
                continue
            self._work.accept(work_item)
            if not outcomes.start(work_item):
                # The caller has cancelled its future before.
                self._work.forget(work_item)
                continue
            self._give(work_item)

    def _give(self, work_item: WorkItem) -> None:
        """Submit `work_item` to the engine. If the engine refuses it, the error is the outcome of its tasks."""
        chunk = Chunk(
            recording=self._recording,
            function=work_item.function.code,
            mode=work_item.mode,
            index=work_item.index,
            arguments=[bytes(part) for part in work_item.payload],
        )
        try:
            future = self._futures[work_item.number] = self._engine.submit(chunk)
        except BaseException as error:  # noqa: BLE001  # the error of an engine that takes no work
            self._work.forget(work_item)
            self._hand_over(Outcome.of_rest(work_item, self._engine.failure(error, work_item.name(0))))
            return
        future.add_done_callback(lambda done: self._soon(lambda: self._settle(work_item, done)))

    def pid(self, worker: int) -> int | None:
        """The process id of the engine's worker with the number `worker`; None if it has not sent an answer."""
        return self._pids.get(worker)

    def begin_feeding(self, feeder: object) -> None:
        self._work.begin_feeding(feeder)
        self._soon(lambda: self._observer.feeding(1))

    def end_feeding(self, feeder: object) -> None:
        def end() -> None:
            if self._work.end_feeding(feeder):
                self._observer.feeding(-1)

        self._soon(end)

    def cancel(self, work_item: WorkItem, *, running: bool) -> bool:
        """Cancel `work_item` if the engine can still cancel it. `running` makes no difference."""
        cancelled: list[bool] = []
        self._do(lambda: cancelled.append(self._cancel(work_item)))
        return any(cancelled)

    def _cancel(self, work_item: WorkItem) -> bool:
        self._take_submitted()
        future = self._futures.get(work_item.number)
        if work_item not in self._work or future is None or not future.cancel():
            return False
        self._forget(work_item)
        self._hand_over(Outcome.of_rest(work_item, CancelledError()))
        return True

    def drop_waiting(self) -> None:
        """Cancel every work item that the engine can still cancel."""
        self._do(lambda: [self._cancel(each) for each in self._work.accepted()])

    # --- answers -----------------------------------------------------------------------------------------------

    def _settle(self, work_item: WorkItem, future: Future[Answer]) -> None:
        """Give the tasks of `work_item` their outcomes, because `future` is done."""
        if work_item not in self._work:
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
        """Tell the observer which worker of the engine has run the tasks, and how long they took."""
        hello = Hello("", answer.worker, answer.pid, "", "")
        if answer.worker not in self._pids:
            self._pids[answer.worker] = answer.pid
            self._first_seen(answer.worker)
            self._observer.ready(hello, 0)
        self._observer.result(hello, work_item, work_item.count, result)

    def _forget(self, work_item: WorkItem) -> None:
        self._work.forget(work_item)
        del self._futures[work_item.number]

    def _hand_over(self, outcome: Outcome) -> None:
        self._observer.settled(outcome.work_item, outcome.first, outcome.task_count, outcome.error)
        outcomes.hand_over(outcome)

    # --- the end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no new calls. The tasks of earlier calls still run."""
        self._do(self._lifecycle.close)

    def wait_until_done(self) -> None:
        """Wait until every task has its outcome. Call this after `close`. Ctrl-C ends the wait."""
        # No limit: the tasks are the user's, and the engine says if a worker has died.
        self._all_done.wait()
        self._do(self._lifecycle.finish)

    def terminate(self, error: BaseException | None = None) -> None:
        """End the pool. Every task without an outcome gets `error`, or a `PoolTerminatedError` if `error` is None."""
        self._do(lambda: self._terminate(error))

    def _terminate(self, error: BaseException | None) -> None:
        pending = self._work.forget_all()
        futures, self._futures = self._futures, {}
        self._lifecycle.terminate(error, is_reported=bool(pending))
        for future in futures.values():
            with Contained("the engine cannot cancel a task"):
                future.cancel()
        for work_item in pending:
            self._hand_over(Outcome.of_rest(work_item, self.ending_error()))
        self._take_submitted()

    def stop(self) -> None:
        """End the thread. Call this after `wait_until_done` or `terminate`."""
        self._observer.close()
        self._steps.put(None)

    def raise_unreported(self) -> None:
        """Raise the error that ended the pool, unless a call has raised it before."""
        self._lifecycle.raise_unreported()

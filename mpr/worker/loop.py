"""Runs the tasks that a worker receives, one after another, and sends their results.

Covers: the loop, what it writes into the status page for each task, and the results.
Does not cover: the start of a worker (`main.py`), sending (`producer/result_sender.py`).
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

from mpr import failpoints
from mpr.errors import describe_process
from mpr.processes import task_pickling
from mpr.producer.producer import Producer
from mpr.producer.result_sender import TOGETHER_MICROS
from mpr.tasks.call_modes import CALLS, TaskNotes
from mpr.tasks.current import set_common
from mpr.transport.function_cache import FunctionCache
from mpr.transport.messages import APART, EACH, RAISED, RETURNED, Function, Result, Skipped, Stop, Tasks
from mpr.transport.packing import Buffer
from mpr.transport.status_page import POSITION, ROWS, SINCE
from mpr.user_code import describe, exit_with
from mpr.worker import forked_child
from mpr.worker.capture import Capture
from mpr.worker.clock import Clock

# A message with more results than this is sent at once, so that the parent unpickles it while the worker runs on.
_FEW = 16


class WorkerLoop:
    """Runs the tasks of one worker, and sends their results.

    Parameters
    ----------
    producer:
        The worker's producer, which receives tasks, and sends results and rows.
    capture:
        The capture of the tasks' output, which the loop tells when a task has ended.
    waits:
        True if a result may wait in this process for the results of the next tasks of its work item.
    """

    def __init__(self, producer: Producer, capture: Capture, *, waits: bool) -> None:
        self._waits = waits
        self._clock = Clock(producer.send_results)
        self._producer = producer
        self._capture = capture
        #: The functions by digest. A function that no task has used yet is still a pickle.
        self._functions: FunctionCache[Callable[..., Any] | bytes] = FunctionCache()
        #: The number of results that were handed over.
        self._results = 0
        # Rows and bytes that earlier results have reported.
        self._reported_rows = producer.status_page.counters[ROWS]
        self._reported_bytes = producer.write_out()

    def run(self) -> None:
        """Run tasks until the parent stops this worker, or until this process can send no more rows to the parent."""
        while True:
            message = self._producer.inbox.next_message(self._producer.send_results)
            match message:
                case Tasks():
                    if self._producer.status_page.begin_work_item(message.sequence, message.first):
                        failpoints.reach("worker.claimed")
                        self._run(message)
                    else:
                        # This counts as a use of the function, as in the parent, because both caches must stay equal.
                        self._functions.use(message.digest)
                        self._producer.send(Skipped(message.sequence))
                    if self._producer.spent:
                        return
                case Function(digest, payload):
                    self._functions.keep(digest, payload)
                case Stop():
                    return

    def _run(self, message: Tasks) -> None:
        started_ns = time.monotonic_ns()
        # Loading the function and the arguments counts as part of the first task. So if loading kills the worker, this
        # task fails, and is not tried for ever.
        self._producer.status_page.begin(message.first, started_ns)
        try:
            call = CALLS[message.mode]
            function = self._function(message.digest)
            name = task_pickling.task_name(function)
            arguments = task_pickling.load_arguments(message.payload)
            if forked_child.is_child[0]:
                exit_with(None)
        except BaseException as error:  # noqa: BLE001  # every error is the result of the task
            if forked_child.is_child[0]:
                exit_with(error)
            self._producer.status_page.end(message.first)
            self._hand_over(message, message.first, 0, RAISED, task_pickling.dump_exception(error), started_ns)
            return
        run = function if message.mode == EACH else functools.partial(call, function)
        if self._waits and len(arguments) - message.first > 1:
            self._clock.resume()
        self._run_each(message, run, name, arguments, started_ns)
        self._clock.pause()

    def _run_each(
        self, message: Tasks, run: Callable[[Any], Any], name: str, arguments: list[Any], started_ns: int
    ) -> None:
        """Run the tasks of the work item `message` from number `message.first` on, and hand over their results.

        `run(argument)` runs one task. `arguments` has an entry for each task of the work item, even for the tasks
        before `message.first`. `name` is the name of the function. `started_ns` is the value of `time.monotonic_ns()`
        when the work item began. A task may take less than 1 us, so this loop calls few functions, and reads the clock
        only if `ticked[0]` is True or if the parent needs the time of each task.
        """
        producer, log_counters, clock = self._producer, self._producer.log_counters, time.monotonic_ns
        counters = log_counters.counters
        ticked, each = (self._clock.ticked, self._clock.always) if self._waits else ([True], True)
        is_child = forked_child.is_child
        marks, prints = producer.config.marks_tasks, self._capture.takes_output
        first, again_until = message.first, message.first + message.again
        position_of_task = [2 * first + 1]
        where = describe_process(producer.worker, os.getpid())
        notes = TaskNotes(name, message.mode, message.index, arguments, where, message.attempt, again_until)
        set_common((name, message.index, again_until, message.attempt, producer.worker, position_of_task))
        results: list[Any] = []
        began_ns, raised = started_ns, None
        # In the status page, the position of a running task is twice the task's number plus 1.
        for position, argument in zip(range(2 * first + 1, 2 * len(arguments), 2), arguments[first:], strict=True):
            if ticked[0]:
                task = position // 2
                ticked[0] = each
                if results:
                    # Hand over these results now, so that they are not lost if the worker dies in a later task.
                    self._hand_over_results(message, first, results, notes, started_ns, last=False)
                    first, results = task, []
                counters[SINCE] = clock()
            if log_counters.sdk_used:
                producer.begin_task()
            if marks:
                task = position // 2
                # Not yet in the task, because `mark_begin` takes locks that a handler of a signal must not wait for.
                counters[POSITION] = position - 1
                producer.mark_begin(message.work_item, task, message.attempt if task < again_until else 1)
                counters[SINCE] = began_ns = clock()
                raised = None
            position_of_task[0] = position
            # Does what `StatusPage.begin` does, but without a call. `SINCE` keeps the time of the last tick.
            counters[POSITION] = position
            try:
                results.append(run(argument))
            except BaseException as error:  # noqa: BLE001  # SystemExit and KeyboardInterrupt are the task's errors too
                if is_child[0]:
                    exit_with(error)
                results.append(task_pickling.Failure(error, notes.of(position // 2)))
                raised = describe(error)
            if is_child[0]:
                exit_with(None)
            if prints:
                self._capture.finish_lines()
            if marks:
                ended_ns = clock()
                producer.status_page.end(position // 2)
                producer.mark_end((ended_ns - began_ns) / 1e9, raised)
        set_common(None)
        self._hand_over_results(message, first, results, notes, started_ns, last=True)

    def _hand_over_results(
        self, message: Tasks, first: int, results: list[Any], notes: TaskNotes, started_ns: int, *, last: bool
    ) -> None:
        count = len(results)
        self._producer.status_page.end(first + count - 1)
        payload, together = task_pickling.dump_results(results, lambda position: notes.of(first + position))
        status = RETURNED if together else APART
        self._hand_over(message, first, count, status, payload, started_ns, last=last)

    def _hand_over(
        self,
        message: Tasks,
        first: int,
        count: int,
        status: int,
        payload: list[Buffer],
        started_ns: int,
        *,
        last: bool = True,
    ) -> None:
        """Send the results of `count` tasks from number `first` on, after the rows of these tasks.

        `payload` has the pickled results. `status` is `RETURNED`, `APART` or `RAISED` of `transport/messages.py`, and
        says how `payload` is made. For `RAISED`, `count` is 0, and `payload` is the error of all tasks. `started_ns` is
        the value of `time.monotonic_ns()` when the work item began. `last` is True if these are the last results of the
        work item. The results of short tasks may wait in this process for later ones.
        """
        if forked_child.is_child[0]:
            # Code of a user has forked this process while the results were pickled.
            exit_with(None)
        failpoints.reach("worker.ended")
        producer, ended_ns = self._producer, time.monotonic_ns()
        written_bytes = producer.write_out()
        failpoints.reach("worker.flushed")
        now_ns = time.monotonic_ns()
        rows = producer.status_page.counters[ROWS]
        micros = (now_ns - started_ns) // 1000
        self._results += 1
        result = Result(
            message.work_item,
            first,
            count,
            status,
            last,
            micros,
            payload,
            flush_micros=(now_ns - ended_ns) // 1000,
            rows=rows - self._reported_rows,
            data_bytes=written_bytes - self._reported_bytes,
            number=self._results,
            ended_nanos=now_ns,
        )
        self._reported_rows, self._reported_bytes = rows, written_bytes
        alone = count > _FEW or micros >= TOGETHER_MICROS or self._clock.always or producer.config.marks_tasks
        if producer.hand_over(result, may_wait=not alone):
            # If the next task takes long, the next tick of the clock sends the results that wait.
            self._clock.tick_once()
        failpoints.reach("worker.sent")

    def _function(self, digest: bytes) -> Callable[..., Any]:
        function = self._functions.use(digest)
        assert function is not None, "the parent sends a function before its tasks"
        if not callable(function):
            function = task_pickling.load_function(function)
            self._functions.keep(digest, function)
        return function

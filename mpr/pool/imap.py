"""Reads the input of an `imap` in a thread, only as fast as the caller takes results.

Covers: the thread, the limit of items that are submitted ahead, errors of the input.
Does not cover: the iterator over the results (`results.py`).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import operator
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mpr.pool.results import ResultIterator
from mpr.pool.skipped import SKIPPED, spans
from mpr.processes import task_pickling
from mpr.scheduler.state import PoolState
from mpr.scheduler.task_dispatcher import TaskDispatcher
from mpr.scheduler.work_item import DescribeItems, TaskFunction, WorkItem
from mpr.threads import SimpleQueue, start_aside
from mpr.transport.messages import EACH
from mpr.user_code import end_forked, passes

# The number of chunks per worker that are submitted before the caller takes their results.
_AHEAD = 4
# The interval (seconds) at which a feeder that waits for room checks whether the caller still holds the iterator.
_LOOK_SECS = 0.1


def start(
    dispatcher: TaskDispatcher,
    size: int,
    function: Callable[..., Any],
    iterable: Iterable[Any],
    chunksize: int,
    *,
    ordered: bool,
) -> ResultIterator[Any]:
    """Start a thread that submits the task `function(item)` for each item. Returns an iterator over the results.

    The thread submits work items of `chunksize` tasks to `dispatcher`, the dispatcher of a pool with `size` workers. If
    `ordered` is True, the results have the order of the items, else the order in which the tasks end. Raises
    `UnpicklableTaskError` if `function` cannot be pickled.
    """
    # Not a semaphore, because a handler of a signal may interrupt the caller while it holds the lock of the semaphore.
    room: SimpleQueue[None] = SimpleQueue()
    for _ in range(_AHEAD * size * chunksize):
        room.put(None)
    results: ResultIterator[Any] = ResultIterator(ordered, functools.partial(room.put, None))
    task = TaskFunction.of(function, by_value=dispatcher.by_value)
    feeder = ImapFeeder(
        dispatcher=dispatcher,
        function=task,
        describe=functools.partial(dispatcher.describe, function, task.name, EACH),
        items=iter(iterable),
        chunksize=chunksize,
        room=room,
        results=weakref.ref(results),
    )
    try:
        dispatcher.begin_feeding(feeder)
        dispatcher.announce(task, _length_hint(iterable))
        start_aside(threading.Thread(target=feeder.run, name="mpr-imap", daemon=True))
    except BaseException:
        dispatcher.end_feeding(feeder)
        raise
    return results


def _length_hint(iterable: Iterable[Any]) -> int:
    """Return `operator.length_hint(iterable)`; 0 if the length is not known, or if the user's code raises."""
    try:
        return operator.length_hint(iterable)
    except BaseException as error:
        # A user's `__len__` may raise anything, and the call needs no length.
        if passes(error):
            raise
        return 0


@dataclass(frozen=True, eq=False, kw_only=True)
class ImapFeeder:
    """Submits a task for each of `items`, only as fast as the caller takes results.

    For each worker, at most four chunks are submitted whose results the caller has not taken. If the pool is closed,
    this limit does not apply. The feeder also ends when nothing refers to the iterator over the results any more.

    Attributes
    ----------
    dispatcher:
        The dispatcher that accepts the work items.
    function:
        The task function.
    describe:
        Describes the tasks for some items (see `DescribeItems` in `scheduler/work_item.py`).
    items:
        The user's input.
    chunksize:
        The number of items in a work item.
    room:
        Has one None for each item that may be submitted now. For each result that the caller takes, one None is added.
    results:
        A weak reference to the caller's iterator over the results.
    """

    dispatcher: TaskDispatcher
    function: TaskFunction
    describe: DescribeItems
    items: Iterator[Any]
    chunksize: int
    room: SimpleQueue[None]
    results: weakref.ref[ResultIterator[Any]]

    def on_outcome(self, first: int, count: int, values: Sequence[Any] | None, error: BaseException | None) -> None:
        """Give the outcomes of `count` items, from item `first` on, to the caller's iterator, if it still exists.

        `values` are the results. If `values` is None, all these items have failed with `error`.
        """
        results = self.results()
        if results is not None:
            results.on_outcome(first, count, values, error)

    def run(self) -> None:
        """Submit all items, until the pool is terminated or the caller has dropped the iterator over the results.

        If the user's iterable raises an exception, the caller gets it after the results of the submitted items. If the
        pool is terminated, the caller gets the error that ends the pool.
        """
        count, pid = 0, os.getpid()
        error: BaseException | None = None
        try:
            while self._wait_for_room():
                # If the iterable raises, the items of this chunk are dropped, as in `multiprocessing`.
                part = list(itertools.islice(self.items, self.chunksize))
                end_forked(pid, None)
                if not part:
                    break
                self._submit(count, part)
                count += len(part)
            else:
                error = self.dispatcher.ending_error()
        except BaseException as raised:  # noqa: BLE001  # the caller gets any error of the user's iterable
            end_forked(pid, raised)
            error = raised
        finally:
            results = self.results()
            if results is not None:
                results.finish(count, error)
            self.dispatcher.end_feeding(self)

    def _wait_for_room(self) -> bool:
        """Wait until there is room for one chunk, and return True. If the pool is closed, return True at once.

        Return False if the iterator over the results does not exist any more, or if the pool was terminated.
        """
        needed = self.chunksize
        while needed:
            if self.results() is None or self.dispatcher.state is PoolState.TERMINATED:
                return False
            # A closed pool needs no room, because it runs all tasks even if the caller takes no results.
            if self.dispatcher.state is PoolState.CLOSED:
                return True
            with contextlib.suppress(queue.Empty):
                self.room.get(timeout=_LOOK_SECS)
                needed -= 1
        return True

    def _submit(self, start: int, part: list[Any]) -> None:
        try:
            name, by_value = f"{self.function.name}[{start}]", self.dispatcher.by_value
            payload = task_pickling.dump_arguments(name, part, by_value=by_value)
            calls = self.describe(part, start)
        except BaseException as error:  # noqa: BLE001  # a user's `__reduce__` may raise anything
            if len(part) == 1:
                self.on_outcome(start, 1, None, error)
            else:
                # Submitted one by one, so that only the items fail that cannot be pickled.
                for index, item in enumerate(part, start):
                    self._submit(index, [item])
            return
        for first, stop, is_skipped in spans(calls, len(part), len(part)):
            if is_skipped:
                self.on_outcome(start + first, stop - first, [SKIPPED] * (stop - first), None)
                continue
            if stop - first < len(part):
                payload = task_pickling.dump_arguments(name, part[first:stop], by_value=by_value)
            self.dispatcher.submit(
                WorkItem(
                    function=self.function,
                    index=start + first,
                    count=stop - first,
                    mode=EACH,
                    payload=payload,
                    on_outcome=self.on_outcome,
                    calls=calls[first:stop],
                )
            )

"""Defines the interface through which a pool reports its tasks and workers to progress bars and telemetry.

Covers: the base class of observers, and calling several observers.
Does not cover: what an observer does (`pool`, `telemetry`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mpr.scheduler.work_item import WorkItem
from mpr.transport.messages import Hello, Result
from mpr.user_code import Contained


class PoolObserver:
    """The base class of observers, whose methods do nothing. The pool calls one method for each kind of event.

    Any thread may call a method, also one that holds the lock of the pool (`PoolBooks`). So a method must not wait, and
    must not call the dispatcher. `PoolObservers` handles the errors that a method raises.
    """

    def announce(self, name: str, count: int) -> None:
        """Note that `count` tasks of function `name` will be submitted."""

    def submitted(self, name: str, count: int) -> None:
        """Note that `count` tasks of function `name` were submitted."""

    def feeding(self, change: int) -> None:
        """Note that the feeder of an `imap` call begins to submit tasks (`change` is 1), or has ended (`change` is -1).

        A feeder submits the tasks of the call little by little. It may submit more or fewer tasks than the call has
        announced.
        """

    def ready(self, hello: Hello, init_micros: int) -> None:
        """Note that the worker of `hello` can run tasks. Its initializer took `init_micros` microseconds."""

    def result(self, hello: Hello, work_item: WorkItem, count: int, result: Result) -> None:
        """Note that the worker of `hello` has ended `count` tasks of `work_item`, from task `work_item.first` on.

        `result` is the message that the worker has sent about these tasks.
        """

    def settled(self, work_item: WorkItem, first: int, count: int, error: BaseException | None) -> None:
        """Note that `count` tasks of `work_item`, from task `first` on, have their outcome.

        `error` is the error of all these tasks; None if they have results.
        """

    def close(self) -> None:
        """Release what the observer has open, because the pool ends. May be called more than once."""


class PoolObservers(PoolObserver):
    """Passes each call to several observers, in their order.

    If an observer raises, the error is logged, and this observer gets no more calls. An error that may come from a
    signal, such as Ctrl-C, is raised instead (see `Contained` in `user_code.py`).
    """

    def __init__(self, observers: Iterable[PoolObserver]) -> None:
        self._observers = tuple(observers)

    def announce(self, name: str, count: int) -> None:
        self._pass(lambda each: each.announce(name, count))

    def submitted(self, name: str, count: int) -> None:
        self._pass(lambda each: each.submitted(name, count))

    def feeding(self, change: int) -> None:
        self._pass(lambda each: each.feeding(change))

    def ready(self, hello: Hello, init_micros: int) -> None:
        self._pass(lambda each: each.ready(hello, init_micros))

    def result(self, hello: Hello, work_item: WorkItem, count: int, result: Result) -> None:
        self._pass(lambda each: each.result(hello, work_item, count, result))

    def settled(self, work_item: WorkItem, first: int, count: int, error: BaseException | None) -> None:
        self._pass(lambda each: each.settled(work_item, first, count, error))

    def close(self) -> None:
        self._pass(lambda each: each.close())

    def _pass(self, call: Callable[[PoolObserver], None]) -> None:
        for each in self._observers:
            # A terminal may raise anything, and so may a user's exception when it is shown.
            with Contained("%s hears no more of the tasks, because it has raised", type(each).__name__) as block:
                call(each)
            if block.raised:
                self._observers = tuple(other for other in self._observers if other is not each)

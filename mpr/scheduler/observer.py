"""The interface by which a display or a recorder hears of a pool's tasks and workers while they run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from mpr.scheduler.work_item import WorkItem
from mpr.transport.messages import Hello, Result

_log = logging.getLogger("mpr")


class PoolObserver:
    """Hears everything, and does nothing with it.

    Calls come from any thread, some of them with the lock of the pool's books held. So no method may wait or call the
    dispatcher.
    """

    def announce(self, name: str, count: int) -> None:
        """`count` tasks of function `name` will be submitted."""

    def submitted(self, name: str, count: int) -> None:
        """`count` tasks were submitted."""

    def feeding(self, change: int) -> None:
        """A call begins (1) or ends (-1) to submit tasks of its own accord: more than were announced, or fewer."""

    def ready(self, hello: Hello, init_micros: int) -> None:
        """A worker takes tasks; its initializer took so many microseconds."""

    def result(self, hello: Hello, work_item: WorkItem, count: int, result: Result) -> None:
        """The next `count` tasks of `work_item` have ended, in that worker."""

    def settled(self, work_item: WorkItem, first: int, count: int, error: BaseException | None) -> None:
        """`count` tasks of `work_item` have their outcome."""

    def close(self) -> None:
        """The pool ends."""


class PoolObservers(PoolObserver):
    """Passes each call to several observers. One that raises is logged and hears no more, because it must cost no task.

    Parameters
    ----------
    observers:
        The observers, in the order in which they hear.
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
            try:
                call(each)
            except Exception:  # noqa: BLE001  # whatever a terminal or a user's exception raises when it is looked at
                self._observers = tuple(other for other in self._observers if other is not each)
                _log.exception("%s hears no more of the tasks, because it has raised", type(each).__name__)

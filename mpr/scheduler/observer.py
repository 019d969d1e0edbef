"""What a dispatcher tells of its tasks and workers while they run, to whoever shows or records it.

Calls come from any thread, some with the dispatcher's lock held: nobody waits here, and nobody calls the dispatcher.
"""

from __future__ import annotations

from collections.abc import Iterable

from mpr.scheduler.work_item import WorkItem
from mpr.transport.messages import Hello, Result


class PoolObserver:
    """Hears everything, and does nothing with it."""

    def announce(self, name: str, count: int) -> None:
        """`count` tasks of function `name` will be submitted."""

    def submitted(self, name: str, count: int) -> None:
        """`count` tasks were submitted."""

    def feeding(self, change: int) -> None:
        """A call begins (1) or ends (-1) to submit tasks of its own accord: more than were announced, or less."""

    def ready(self, hello: Hello, init_micros: int) -> None:
        """A worker takes tasks; its initializer took so long."""

    def result(self, hello: Hello, work_item: WorkItem, count: int, result: Result) -> None:
        """The next `count` tasks of `work_item` have ended, in that worker."""

    def settled(self, work_item: WorkItem, first: int, count: int, error: BaseException | None) -> None:
        """`count` tasks of `work_item` have their outcome."""

    def close(self) -> None:
        """The pool ends."""


class PoolObservers(PoolObserver):
    """Several at once."""

    def __init__(self, watchers: Iterable[PoolObserver]) -> None:
        self._watchers = tuple(watchers)

    def announce(self, name: str, count: int) -> None:
        for each in self._watchers:
            each.announce(name, count)

    def submitted(self, name: str, count: int) -> None:
        for each in self._watchers:
            each.submitted(name, count)

    def feeding(self, change: int) -> None:
        for each in self._watchers:
            each.feeding(change)

    def ready(self, hello: Hello, init_micros: int) -> None:
        for each in self._watchers:
            each.ready(hello, init_micros)

    def result(self, hello: Hello, work_item: WorkItem, count: int, result: Result) -> None:
        for each in self._watchers:
            each.result(hello, work_item, count, result)

    def settled(self, work_item: WorkItem, first: int, count: int, error: BaseException | None) -> None:
        for each in self._watchers:
            each.settled(work_item, first, count, error)

    def close(self) -> None:
        for each in self._watchers:
            each.close()

"""Draws the progress bar of `mpr.Pool(progress=True)` with `tqdm`, in a terminal or a notebook.

Covers: counting the tasks of all calls, and drawing.
Does not cover: the events of tasks, which `scheduler/observer.py` defines.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

from mpr.errors import MissingDependencyError, PoolTerminatedError
from mpr.scheduler.observer import PoolObserver
from mpr.scheduler.work_item import WorkItem
from mpr.user_code import is_a, passes


class Progress(PoolObserver):
    """Draws one bar at a time. A bar begins with the first task of a call, and ends when all tasks have an outcome.

    If calls overlap, one bar counts the tasks of all of them.

    Parameters
    ----------
    received:
        Returns (number of rows that were logged, number of bytes that the sinks have).

    Raises
    ------
    MissingDependencyError
        If `tqdm` is not installed.
    """

    def __init__(self, received: Callable[[], tuple[int, int]]) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise MissingDependencyError("tqdm", "progress") from error
        self._tqdm = tqdm
        self._received = received
        self._lock = threading.Lock()
        self._bar: Any = None
        self._name = ""
        self._settled = self._failed = self._dropped = self._total = 0
        #: The number of tasks in `_total` that calls have announced, but not submitted yet.
        self._announced = 0
        self._feeding = 0
        self._hidden = False

    def announce(self, name: str, count: int) -> None:
        """Add `count` tasks of function `name` to the bar, because a call will submit them."""
        with self._drawing():
            self._announced += count
            self._grow(name, count)

    def submitted(self, name: str, count: int) -> None:
        """Count `count` tasks of function `name` as submitted. Add the tasks that no call has announced to the bar."""
        with self._drawing():
            known = min(count, self._announced)
            self._announced -= known
            self._grow(name, count - known)

    def feeding(self, change: int) -> None:
        """Count an `imap` call that begins to submit tasks (`change` is 1), or that has ended (`change` is -1).

        When the last `imap` ends, the tasks that were announced, but not submitted, are removed from the bar.
        """
        with self._drawing():
            self._feeding += change
            if not self._feeding:
                self._total -= self._announced
                self._announced = 0
                self._end_if_done()

    def settled(self, work_item: WorkItem, first: int, count: int, error: BaseException | None) -> None:
        """Count `count` tasks as done, and also as failed if `error` is not None. Then update the bar.

        Tasks that were cancelled, or had no result when the pool was terminated, are neither done nor failed.
        """
        with self._drawing():
            self._settled += count
            is_dropped = error is not None and is_a(error, (CancelledError, PoolTerminatedError))
            self._dropped += count if is_dropped else 0
            self._failed += count if error is not None and not is_dropped else 0
            if self._bar is not None:
                self._bar.update(0 if is_dropped else count)
                self._bar.set_postfix_str(self._note(), refresh=False)
                self._end_if_done()

    def close(self) -> None:
        """Draw the bar for the last time, and close it, because the pool ends."""
        with self._drawing():
            self._end()

    @contextlib.contextmanager
    def _drawing(self) -> Any:
        """Hold the lock within the `with` block. If the block raises, ignore the error, and draw no bar from then on.

        But an error that may come from the handler of a signal, such as Ctrl-C, is raised.
        """
        with self._lock:
            try:
                yield
            except BaseException as error:
                # A closed stderr or a notebook's front end may raise anything.
                self._hidden = True
                self._bar = None
                if passes(error):
                    raise

    def _note(self) -> str:
        rows, size = self._received()
        received = f"{rows:,} rows, {self._tqdm.format_sizeof(size, 'B')}"
        counts = ((self._failed, "failed"), (self._dropped, "dropped"))
        return ", ".join([*(f"{count} {what}" for count, what in counts if count), received])

    def _grow(self, name: str, count: int) -> None:
        self._total += count
        if self._bar is None:
            if not count:
                return
            self._name = name
            self._bar = self._tqdm(total=self._total, desc=name, unit="task", dynamic_ncols=True, disable=self._hidden)
        elif name != self._name:
            self._bar.set_description_str("tasks", refresh=False)
        self._bar.total = self._total

    def _end_if_done(self) -> None:
        if self._settled >= self._total and not self._feeding:
            self._end()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.set_postfix_str(self._note(), refresh=True)
            self._bar.close()
        self._bar = None
        self._settled = self._failed = self._dropped = self._total = self._announced = 0

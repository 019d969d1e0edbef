"""The bar that `mpr.Pool(progress=True)` shows, in a terminal or a notebook. `tqdm` draws it; only the parent does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from mpr.errors import MissingDependencyError
from mpr.scheduler.observer import PoolObserver
from mpr.scheduler.work_item import WorkItem


class Progress(PoolObserver):
    """One bar at a time: it begins with the first task of a call, and stays when all tasks have their outcome.

    Attributes
    ----------
    received:
        Tells how many rows the tasks have logged, and how many bytes of their data have come.
    """

    def __init__(self) -> None:
        """Raises `MissingDependencyError` where `tqdm` is not installed."""
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise MissingDependencyError("tqdm", "progress") from error
        self._tqdm = tqdm
        self.received: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._lock = threading.Lock()
        self._bar: Any = None
        self._name = ""
        self._done = self._failed = self._total = 0
        #: Tasks of the total that are still to be submitted, by calls that do so of their own accord.
        self._announced = 0
        self._feeding = 0
        self._hidden = False

    def announce(self, name: str, count: int) -> None:
        """`count` tasks of function `name` will be submitted."""
        with self._drawing():
            self._announced += count
            self._grow(name, count)

    def submitted(self, name: str, count: int) -> None:
        """`count` tasks were submitted."""
        with self._drawing():
            known = min(count, self._announced)
            self._announced -= known
            self._grow(name, count - known)

    def feeding(self, change: int) -> None:
        """A call begins (1) or ends (-1) to submit tasks of its own accord: more than were announced, or less."""
        with self._drawing():
            self._feeding += change
            if not self._feeding:
                self._total -= self._announced
                self._announced = 0
                self._end_if_done()

    def settled(self, work_item: WorkItem, first: int, count: int, error: BaseException | None) -> None:
        """`count` tasks have their outcome."""
        with self._drawing():
            self._done += count
            self._failed += count if error is not None else 0
            if self._bar is not None:
                self._bar.update(count)
                self._bar.set_postfix_str(self._note(), refresh=False)
                self._end_if_done()

    def close(self) -> None:
        """The pool ends: leave the bar as it is."""
        with self._drawing():
            self._end()

    @contextlib.contextmanager
    def _drawing(self) -> Any:
        """A terminal that is gone must not cost anybody a result."""
        with self._lock:
            try:
                yield
            except Exception:  # noqa: BLE001  # whatever a closed stderr or a notebook's front end raises
                self._hidden = True
                self._bar = None

    def _note(self) -> str:
        rows, size = self.received()
        received = f"{rows:,} rows, {self._tqdm.format_sizeof(size, 'B')}"
        return f"{self._failed} failed, {received}" if self._failed else received

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
        if self._done >= self._total and not self._feeding:
            self._end()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.set_postfix_str(self._note(), refresh=True)
            self._bar.close()
        self._bar = None
        self._done = self._failed = self._total = self._announced = 0

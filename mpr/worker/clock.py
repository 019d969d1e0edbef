"""Tells a busy worker's loop every 10 ms that time has passed, because reading the clock for each task takes too long.

Covers: the thread that does this.
Does not cover: what the loop then does (`loop.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PERIOD_SECS = 0.01
# The thread keeps running for this many idle periods, because waking the thread takes longer than some work items.
_PATIENCE = 20


class Clock:
    """Sets `ticked[0]` to True and calls `on_tick()` every 10 ms, in a thread, while the worker's loop is busy.

    The loop reads `ticked[0]` before each task, and sets it to False. The thread goes on ticking for about 0.2 s after
    the loop was busy. If no thread can be started, `always` is True, and the loop has to read the real clock for each
    task.
    """

    def __init__(self, on_tick: Callable[[], None]) -> None:
        self.ticked: list[bool] = [False]
        self.always: bool = False
        self._on_tick = on_tick
        self._busy = self._wanted = self._runs = self._started = False
        self._wake = threading.Event()

    def resume(self) -> None:
        """Tick every 10 ms until the call of `pause`, because the loop is about to run several tasks."""
        self._busy = True
        self.tick_once()

    def tick_once(self) -> None:
        """Make the thread tick at least once more, even if the loop is not busy."""
        self._wanted = True
        # The thread reads `_wanted` once more after it has cleared `_runs`, so no request is missed.
        if not self._runs:
            self._runs = True
            self._wake.set()
            if not self._started:
                self._started = True
                try:
                    threading.Thread(target=self._run, name="mpr-ticker", daemon=True).start()
                except RuntimeError:
                    self.always = self.ticked[0] = True

    def pause(self) -> None:
        """Let the ticks end, because the loop has run its tasks. Ticks may follow for about 0.2 s."""
        self._busy = False

    def _run(self) -> None:
        while self._wake.wait():
            self._wake.clear()
            idle = 0
            while idle < _PATIENCE:
                time.sleep(PERIOD_SECS)
                idle = 0 if self._busy or self._wanted else idle + 1
                self._wanted = False
                self.ticked[0] = True
                self._on_tick()
            self._runs = False
            if self._busy or self._wanted:
                self._runs = True
                self._wake.set()

"""Says that a moment has passed, to whoever has no time to look at the clock."""

from __future__ import annotations

import threading
import time

PERIOD_SECS = 0.01
# For so many periods it goes on without anybody who is busy: waking it takes longer than some parcels do.
_PATIENCE = 20


class Ticker:
    """Sets `ticked[0]` every `PERIOD_SECS` while somebody is busy; native code that keeps the GIL delays it.

    Reading a list costs a tenth of what the clock does. Where the system gives no more threads, `always` is true, and
    whoever is busy has to look at the clock each time.
    """

    def __init__(self) -> None:
        self.ticked = [False]
        self.always = False
        self._busy = self._runs = self._started = False
        self._wake = threading.Event()

    def begin(self) -> None:
        """Somebody is busy from now on."""
        self._busy = True
        # The thread looks whether somebody is busy after it has said that it stops.
        if not self._runs:
            self._runs = True
            self._wake.set()
            if not self._started:
                self._started = True
                try:
                    threading.Thread(target=self._run, name="mpr-ticker", daemon=True).start()
                except RuntimeError:
                    self.always = self.ticked[0] = True

    def end(self) -> None:
        """Nobody is busy any more."""
        self._busy = False

    def _run(self) -> None:
        while self._wake.wait():
            self._wake.clear()
            idle = 0
            while idle < _PATIENCE:
                time.sleep(PERIOD_SECS)
                idle = 0 if self._busy else idle + 1
                self.ticked[0] = True
            self._runs = False
            if self._busy:
                self._runs = True
                self._wake.set()

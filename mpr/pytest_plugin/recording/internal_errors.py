"""What goes wrong in mpr itself while it records tests: noted, told once per sort, and never the test's."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any


class InternalErrors:
    """Of one process.

    Parameters
    ----------
    write:
        Where the first of each sort goes; may raise `OSError`.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._counts: Counter[str] = Counter()
        #: One text per sort, in order.
        self.texts: list[str] = []
        #: Those of the present test.
        self.of_test: list[str] = []

    def attempt(self, what: str, step: Callable[..., object], *args: Any) -> None:
        """Call `step`, which is to do `what`; what it raises is noted."""
        try:
            step(*args)
        except Exception as error:  # noqa: BLE001  # whatever it is, the test has nothing to do with it
            self.report(f"{what} {type(error).__name__}", f"cannot {what}: {type(error).__name__}: {error}")

    def report(self, sort: str, text: str) -> None:
        self.of_test.append(text)
        self._counts[sort] += 1
        if self._counts[sort] == 1:
            self._say(text)

    def close(self) -> None:
        """No test comes any more: say how often it was."""
        for sort, count in self._counts.items():
            if count > 1:
                self._say(f"{count - 1} more times: {sort}")
        self._counts.clear()

    def _say(self, text: str) -> None:
        self.texts.append(text)
        with contextlib.suppress(OSError):
            self._write(text)

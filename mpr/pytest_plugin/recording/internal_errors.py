"""Collects errors that happen in mpr itself while tests are recorded.

Such an error does not fail the test, unless `--mpr-strict` is set. If the same sort of error happens several times, it
is reported once, with the number of repetitions at the end.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any


class InternalErrors:
    """Collects the errors of mpr in one process.

    Parameters
    ----------
    write:
        The function that writes the text of an error, such as `Journal.error`. It is called for the first error of each
        sort, and in `close`. It may raise `OSError`, which is ignored.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._counts: Counter[str] = Counter()
        #: The texts that were passed to `write`, in the order of time.
        self.texts: list[str] = []
        #: The texts of all errors of the running test.
        self.of_test: list[str] = []

    def begin_test(self) -> None:
        """Empty `of_test`, because another test begins."""
        self.of_test = []

    def attempt(self, what: str, step: Callable[..., object], *args: Any) -> None:
        """Call `step` with `args`. If it raises an `Exception`, report this exception instead of raising it.

        `what` says in words what `step` does, such as 'begin to record'. The report contains these words.
        """
        try:
            step(*args)
        except Exception as error:  # noqa: BLE001  # no error of mpr may reach the test
            self.report(f"{what} {type(error).__name__}", f"cannot {what}: {type(error).__name__}: {error}")

    def report(self, sort: str, text: str) -> None:
        """Add the error `text` to `of_test`. If it is the first error of this `sort`, also pass it to `write`."""
        self.of_test.append(text)
        self._counts[sort] += 1
        if self._counts[sort] == 1:
            self._say(text)

    def close(self) -> None:
        """Write how often each sort of error was repeated. Call this after the last test."""
        for sort, count in self._counts.items():
            if count > 1:
                self._say(f"{count - 1} more times: {sort}")
        self._counts.clear()

    def _say(self, text: str) -> None:
        self.texts.append(text)
        with contextlib.suppress(OSError):
            self._write(text)

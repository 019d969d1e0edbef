"""Collects errors that happen in mpr itself while tests are recorded.

Such an error does not fail the test, unless `--mpr-strict` is set. Each sort of error is reported once.

If a step of mpr raises, this module reports the error and does not raise it again. This is so for every error, also
for a `SystemExit` and for that of `pytest.fail`.

Only an error that a handler of a signal has raised is raised again, for example at Ctrl-C or after a time limit. Such
an error is meant for the run, and interrupts the code of mpr only by chance.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any

from mpr.pytest_plugin.recording import system


class InternalErrors:
    """Collects the errors of mpr in one process.

    Parameters
    ----------
    write:
        The function that writes the text of an error, such as `Journal.error`. This function is called for the first
        error of each sort, and in `close`. If it raises an `Exception`, that is ignored.
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
        """Call `step` with `args`. If it raises any error, report this error instead of raising it.

        `what` is a text for the report that says what `step` does, such as "note a phase". An error that a handler of a
        signal has raised is reported, and raised again.
        """
        try:
            step(*args)
        except BaseException as error:  # no error of mpr may reach the test
            self.report(f"{what} {type(error).__name__}", f"cannot {what}: {type(error).__name__}: {_text(error)}")
            if _is_of_a_signal(error):
                raise

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
        with contextlib.suppress(Exception):
            self._write(text)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # the class of the error may be the test's own
        return "(no text)"


def _is_of_a_signal(error: BaseException) -> bool:
    """Return whether a handler of a signal has raised `error`.

    The handler of Python for Ctrl-C is native code. So the last frame of its error is not the handler, but the code
    that it has interrupted. If this code belongs to mpr, the error counts as raised by a handler.
    """
    handlers = system.code_of_signal_handlers()
    traceback: TracebackType | None = error.__traceback__
    innermost = ""
    while traceback is not None:
        if traceback.tb_frame.f_code in handlers:
            return True
        innermost = traceback.tb_frame.f_globals.get("__name__", "")
        traceback = traceback.tb_next
    return isinstance(error, KeyboardInterrupt) and innermost.partition(".")[0] == "mpr"

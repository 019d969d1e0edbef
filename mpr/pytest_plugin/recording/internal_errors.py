"""Collects errors that happen in mpr itself while tests are recorded.

An error of mpr does not fail the test, unless `--mpr-strict` is set. The summary of the run shows the first error of
each sort, and how often it was repeated. Even a `SystemExit`, or the exception of `pytest.fail`, is not raised again.

Only an error that a signal handler has raised is raised again, for example at Ctrl-C or after a time limit, because
that error is meant for the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from mpr.pytest_plugin.recording import system


class InternalErrors:
    """Collects the errors of mpr in one process.

    Parameters
    ----------
    write:
        A function that writes the text of an error, such as `Journal.error`. It is called for the first error of each
        sort, and in `close`. If it raises an `Exception`, this exception is ignored.
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

        `what` says what `step` does, such as "note a phase". The report begins with "cannot" and this text. An error
        that a signal handler has raised is reported and raised again.
        """
        try:
            step(*args)
        except BaseException as error:  # no error of mpr may reach the test
            self.report(f"{what} {type(error).__name__}", f"cannot {what}: {type(error).__name__}: {_text(error)}")
            if _is_of_a_signal(error):
                raise

    def report(self, sort: str, text: str) -> None:
        """Add `text`, which describes an error, to `of_test`.

        `sort` is equal for all errors of one sort. If this is the first error of its sort, also pass `text` to `write`.
        """
        self.of_test.append(text)
        self._counts[sort] += 1
        if self._counts[sort] == 1:
            self._say(text)

    def close(self) -> None:
        """For each sort of error that was repeated, pass a text with the number of repetitions to `write`.

        Call this method after the last test.
        """
        for sort, count in self._counts.items():
            if count > 1:
                self._say(f"{count - 1} more times: {sort}")
        self._counts.clear()

    def _say(self, text: str) -> None:
        self.texts.append(text)
        with suppress(Exception):
            self._write(text)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # the class of the error may be the test's own
        return "(no text)"


def _is_of_a_signal(error: BaseException) -> bool:
    """Return True if a signal handler has raised `error`, as far as its traceback shows.

    Python's own handler of Ctrl-C leaves no frame in the traceback. So a `KeyboardInterrupt` whose innermost frame is
    code of mpr also counts as raised by a handler.
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

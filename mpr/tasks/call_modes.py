"""Defines how a task function gets its arguments, by the mode of its work item (`CALL`, `EACH` or `STAR`).

Also makes the notes that name a task in its errors.
"""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from mpr.transport.messages import CALL, EACH, STAR
from mpr.user_code import passes, writable

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
# The longest description of a call, in characters.
_LONGEST = 200
_BEGIN = "mpr: task "


def _call(function: Callable[..., Any], argument: Any) -> Any:
    positional, keywords = argument
    return function(*positional, **keywords)


def _star(function: Callable[..., Any], argument: Any) -> Any:
    return function(**argument) if isinstance(argument, dict) else function(*argument)


def _each(function: Callable[..., Any], argument: Any) -> Any:
    return function(argument)


#: The functions `call(function, argument)` by their modes.
CALLS: Final[dict[int, Callable[[Callable[..., Any], Any], Any]]] = {CALL: _call, EACH: _each, STAR: _star}


class TaskNotes:
    """Makes the notes for the errors of the tasks of one work item.

    Parameters
    ----------
    name, mode, index:
        The name of the task function, the mode of the work item, and the index of its first task (not shown for
        `CALL`).
    arguments:
        The arguments of the tasks, each as the function in `CALLS` gets it. Long ones are shortened.
    where:
        A text that names the worker and its process.
    attempt, again_until:
        Tasks with a number below `again_until` run for the `attempt`-th time, all others for the first.
    """

    __slots__ = ("_again_until", "_arguments", "_attempt", "_index", "_mode", "_name", "_where")

    def __init__(
        self, name: str, mode: int, index: int, arguments: Sequence[Any], where: str, attempt: int, again_until: int
    ) -> None:
        self._name, self._mode, self._index, self._arguments, self._where = name, mode, index, arguments, where
        self._attempt, self._again_until = attempt, again_until

    def of(self, number: int) -> str:
        """Return a text that names task `number` (counted from 0 in the work item), which this process runs."""
        title = self._name if self._mode == CALL else f"{self._name}[{self._index + number}]"
        attempt = self._attempt if number < self._again_until else 1
        return note(title, self._name, _arguments(self._mode, self._arguments[number]), self._where, attempt)


def note(title: str, name: str, arguments: str, where: str, attempt: int) -> str:
    """Return a text for the error of the task `title`, which this process has run just now.

    `name` and `arguments` describe the call, `where` names the worker and its process, and `attempt` counts from 1. The
    text ends with the time of the error on the timeline `log_time`.
    """
    again = f", attempt {attempt}" if attempt > 1 else ""
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%fZ")
    return f"{_BEGIN}{title} in {where}{again}: {name}({arguments}); log_time {moment}"


def add_note(error: BaseException, text: str) -> None:
    """Add the note `text` to `error`, in place of earlier notes of this kind. Does nothing if `error` refuses notes.

    A task may raise one object again and again, so an earlier note may be of another task.
    """
    with contextlib.suppress(Exception):
        notes = getattr(error, "__notes__", [])
        notes[:] = [each for each in notes if not str(each).startswith(_BEGIN)]
        error.add_note(text)


def described(positional: Iterable[Any], keywords: Mapping[str, Any]) -> str:
    """Return the arguments of a call as text, in at most about 200 characters. Returns "..." if a `repr` raises."""
    return _arguments(CALL, (positional, keywords))


def _arguments(mode: int, argument: Any) -> str:
    try:
        if mode == STAR:
            argument = ((), argument) if isinstance(argument, dict) else (argument, {})
        positional, keywords = ((argument,), {}) if mode == EACH else argument
        parts = [*map(_SHORT.repr, positional), *(f"{key}={_SHORT.repr(each)}" for key, each in keywords.items())]
        text = " ".join(writable(", ".join(parts)).split())
    except BaseException as failure:
        # For example, a user's `__repr__` has raised, or the argument of a `starmap` is no iterable.
        if passes(failure):
            raise
        return "..."
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."

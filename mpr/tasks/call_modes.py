"""Defines how a task function gets its arguments, by the mode of its work item (`CALL`, `EACH` or `STAR`).

Also describes such a call for people.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable
from typing import Any, Final

from mpr.transport.messages import CALL, EACH, STAR
from mpr.user_code import passes, writable

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
# The longest description of a call, in characters.
_LONGEST = 200


def _call(function: Callable[..., Any], argument: Any) -> Any:
    positional, keywords = argument
    return function(*positional, **keywords)


def _star(function: Callable[..., Any], argument: Any) -> Any:
    return function(*argument)


def _each(function: Callable[..., Any], argument: Any) -> Any:
    return function(argument)


#: The functions `call(function, argument)` by their modes.
CALLS: Final[dict[int, Callable[[Callable[..., Any], Any], Any]]] = {CALL: _call, EACH: _each, STAR: _star}


def note(name: str, mode: int, index: int, argument: Any, *, worker: int, attempt: int) -> str:
    """Return a text that names the task which this worker runs, for the error that the task has raised.

    Parameters
    ----------
    name, mode, index, argument:
        The name of the task function, the mode of the work item, the index of the task (not shown for `CALL`), and the
        `argument` of the function in `CALLS`. Long arguments are shortened.
    worker, attempt:
        The number of the worker, and the number of the attempt, from 1 (not shown for 1).
    """
    title = name if mode == CALL else f"{name}[{index}]"
    again = f", attempt {attempt}" if attempt > 1 else ""
    return f"mpr: task {title} in worker {worker} (pid {os.getpid()}){again}: {name}({_arguments(mode, argument)})"


def _arguments(mode: int, argument: Any) -> str:
    try:
        positional, keywords = argument if mode == CALL else (argument if mode == STAR else (argument,), {})
        parts = [*map(_SHORT.repr, positional), *(f"{key}={_SHORT.repr(each)}" for key, each in keywords.items())]
        text = " ".join(writable(", ".join(parts)).split())
    except BaseException as failure:
        # For example, a user's `__repr__` has raised, or the argument of a `starmap` is no iterable.
        if passes(failure):
            raise
        return "..."
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."

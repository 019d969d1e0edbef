"""Defines how a task function gets its arguments, by the mode of its work item (`CALL`, `EACH` or `STAR`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mpr.transport.messages import CALL, EACH, STAR


def _call(function: Callable[..., Any], argument: Any) -> Any:
    positional, keywords = argument
    return function(*positional, **keywords)


def _star(function: Callable[..., Any], argument: Any) -> Any:
    return function(*argument)


def _each(function: Callable[..., Any], argument: Any) -> Any:
    return function(argument)


#: The functions `call(function, argument)` by their modes.
CALLS: Final[dict[int, Callable[[Callable[..., Any], Any], Any]]] = {CALL: _call, EACH: _each, STAR: _star}

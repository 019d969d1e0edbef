"""Finds the part of a value that cannot be pickled, so that an error message can name it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

from mpr.processes.pickling import dumps
from mpr.user_code import is_a, passes, represent, type_name


def find_culprit(value: object) -> str | None:
    """Return a text that says which part of `value` cannot be pickled; None if no such part is found.

    The text is, for example, "its attribute 'lock' is a _thread.lock".
    """
    try:
        return _culprit(value, set()) or None
    except BaseException as error:
        # Objects may raise anything when they are inspected. The message then has no such hint.
        if passes(error):
            raise
        return None


def _culprit(value: object, seen: set[int]) -> str | None:
    """Return a text that says which part of `value` cannot be pickled; None if no part is the cause.

    `seen` has the ids of the objects that the search has visited. If the only possible causes are parts that lead back
    to a visited object, the result is "".
    """
    seen.add(id(value))
    in_circle = False
    for where, part in _parts(value):
        if id(part) not in seen and _can_pickle(part):
            continue
        deeper = "" if id(part) in seen else _culprit(part, seen)
        if deeper == "":
            in_circle = True
            continue
        found = f"{where} is a {type_name(type(part))}"
        return f"{found}, where {deeper}" if deeper else found
    return "" if in_circle else None


def _can_pickle(value: object) -> bool:
    try:
        dumps(value)
    except BaseException as error:
        # Any error means that it cannot.
        if passes(error):
            raise
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, object]]:
    if is_a(value, functools.partial):
        yield "its function", value.func
        yield from ((f"its argument {index}", each) for index, each in enumerate(value.args))
        yield from ((f"its argument {name!r}", each) for name, each in value.keywords.items())
    elif is_a(value, FunctionType):
        yield from _parts_of_function(value)
    elif is_a(value, dict):
        yield from ((f"the value of {represent(key)}", each) for key, each in value.items())
    elif is_a(value, (list, tuple, set, frozenset)):
        yield from ((f"item {index}", each) for index, each in enumerate(value))
    elif is_a(value, MethodType):
        yield "its object", value.__self__
    else:
        yield from ((f"its attribute {name!r}", each) for name, each in getattr(value, "__dict__", {}).items())


def _parts_of_function(function: FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        # A cell is empty if its variable has no value yet.
        with contextlib.suppress(ValueError):
            yield f"its variable {name!r}", cell.cell_contents
    for index, default in enumerate(function.__defaults__ or ()):
        yield f"its default {index}", default
    for name, default in (function.__kwdefaults__ or {}).items():
        yield f"its default {name!r}", default
    codes = [function.__code__]
    for code in codes:
        for name in code.co_names:
            if name in function.__globals__:
                yield f"its global {name!r}", function.__globals__[name]
        # The functions, lambdas and comprehensions inside this code have code of their own, which is searched too.
        codes += (each for each in code.co_consts if is_a(each, CodeType))

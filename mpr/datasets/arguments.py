"""Describes the arguments of a task as fields with plain values, such as `{"lr": 0.1, "cfg.depth": 3}`.

A plain value is None, a bool, an int, a float, a str, a date, a time, a duration, or a list of these. Other values
become a text.

Covers: names of parameters, parts of dataclasses, dicts and named tuples, and values of numpy.
Does not cover: the types of properties (`properties.py`).
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import inspect
import os
import reprlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mpr.datasets.digest import NoDigestError, digest_of_call
from mpr.rrd.segment import TaskCall
from mpr.transport.messages import CALL, EACH
from mpr.user_code import passes, represent, writable

#: The longest list that is kept as a list, in values. Longer lists become a text.
LIST_MAX = 64
# The longest text in bytes, the deepest part of an argument, and the most parts of one argument.
_TEXT_BYTES = 1000
_DEPTH = 4
_PARTS = 64

_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxdict = _SHORT.maxfrozenset = _SHORT.maxdeque = LIST_MAX
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _TEXT_BYTES

_SCALARS = (bool, int, float, str)
_TIMES = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta)


def describe_calls(
    function: Callable[..., Any],
    name: str,
    mode: int,
    items: Sequence[Any],
    *,
    start: int | None = None,
    length: int | None = None,
    with_digests: bool = False,
) -> list[TaskCall]:
    """Return a description of each task of a call.

    Errors of the user's code, such as a `__repr__` that raises, are not raised. The value is then a text with the type
    of the argument.

    Parameters
    ----------
    function, name:
        The task function and its name.
    mode, items:
        How the function is called: `CALL`, `EACH` or `STAR` of `transport/messages.py`, and one item per task.
    start, length:
        The index of the first task in its call, and the number of tasks of the call. Each is None if it is not known.
    with_digests:
        True if the descriptions have digests. If a call cannot have a digest, its description says why.
    """
    binder = Binder(function)
    found = []
    for position, item in enumerate(items):
        bound = binder.bind(mode, item)
        digest, obstacle = _digest(function, bound) if with_digests else ("", "")
        index = None if start is None else start + position
        found.append(TaskCall(fields(bound), name, digest, obstacle, binder.floats, index, length))
    return found


def _digest(function: Callable[..., Any], bound: Mapping[str, Any]) -> tuple[str, str]:
    """Return (digest of the call, ""). If the call cannot have a digest, return ("", a text that says why)."""
    try:
        return digest_of_call(function, bound), ""
    except NoDigestError as error:
        return "", str(error)


class Binder:
    """Finds the parameter of each argument of `function`.

    Attributes
    ----------
    floats:
        The names of the parameters whose annotation is `float`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._signature = _signature(function)
        parameters = {} if self._signature is None else self._signature.parameters
        self.floats: frozenset[str] = frozenset(
            name for name, each in parameters.items() if each.annotation is float or each.annotation == "float"
        )

    def bind(self, mode: int, item: Any) -> dict[str, Any]:
        """Return the arguments of one call by the names of their parameters, with default values.

        `mode` and `item` are as in `describe_calls`. The arguments for `*args` are one tuple, and each argument for
        `**kwargs` has its own name. If the parameters are not known, or if the arguments do not fit, the positional
        arguments are named `arg0`, `arg1` and so on.
        """
        positional: tuple[Any, ...] = (item,)
        keywords: Mapping[str, Any] = {}
        if mode == CALL:
            positional, keywords = item
        elif mode != EACH and isinstance(item, dict):
            positional, keywords = (), item
        elif mode != EACH and isinstance(item, tuple | list):
            # Another iterable is not read, because it may be an iterator, which gives its values only once.
            positional = tuple(item)
        if self._signature is not None:
            try:
                bound = self._signature.bind(*positional, **keywords)
            except TypeError:
                # The task itself will raise this error.
                pass
            else:
                bound.apply_defaults()
                return dict(self._named(bound.arguments))
        return {**{f"arg{index}": value for index, value in enumerate(positional)}, **keywords}

    def _named(self, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        assert self._signature is not None
        for name, value in arguments.items():
            kind = self._signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                # The names of parameters come first if a keyword has the same name as a positional-only parameter.
                yield from ((key, each) for key, each in value.items() if key not in arguments)
            elif kind is not inspect.Parameter.VAR_POSITIONAL or value:
                yield name, value


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of `function`; None if Python cannot find it."""
    try:
        return inspect.signature(function)
    except BaseException as error:
        # A user's `__signature__` or `__getattr__` may raise anything.
        if passes(error):
            raise
        return None


def fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return `arguments` as fields with plain values. Parts of an argument have dotted names, such as `cfg.lr`.

    `named_parts` says which values have parts. An argument with more than 64 parts becomes one text.
    """
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        try:
            parts = dict(_parts(name, value, _DEPTH))
        except BaseException as error:
            if passes(error):
                raise
            parts = {name: plain(value)}
        found |= parts if len(parts) <= _PARTS else {name: plain(value)}
    return found


def _parts(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    named = named_parts(value) if depth else None
    if not named or len(named) > _PARTS:
        yield name, plain(value)
        return
    for key, each in named.items():
        yield from _parts(f"{name}.{key}", each, depth - 1)


def named_parts(value: Any) -> dict[str, Any] | None:
    """Return the parts of a dataclass, a dict or a named tuple by their names; None for any other value.

    A dict has parts if all its keys are of type str. Raises any error of the user's code.
    """
    if isinstance(value, dict):
        return dict(value) if all(type(key) is str for key in value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, tuple) and isinstance(names := getattr(type(value), "_fields", None), tuple):
        return dict(zip(names, value, strict=False))
    return None


def plain(value: Any) -> Any:
    """Return `value` as a plain value (see the module). Errors of the user's code are not raised."""
    try:
        return _plain(value)
    except BaseException as error:
        if passes(error):
            raise
        return _cut(represent(value))


def _plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float) or kind in _TIMES:
        return value
    if isinstance(value, enum.Enum):
        return writable(value.name)
    if kind is str:
        return writable(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic | numpy.ndarray):
        return _plain_of_numpy(value)
    # A subclass may override the methods that convert it.
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return writable(str.__str__(value))
    if isinstance(value, os.PathLike):
        return writable(os.fsdecode(value))
    if isinstance(value, list | tuple) and len(value) <= LIST_MAX:
        found = [_plain(each) for each in value]
        if all(type(each) in _SCALARS for each in found):
            return found
    return _text(value)


def _plain_of_numpy(value: Any) -> Any:
    if value.dtype.kind in "biufU":
        if value.ndim == 0:
            return _plain(value.item())
        if value.ndim == 1 and value.size <= LIST_MAX:
            return value.tolist()
    if value.ndim == 0:
        return writable(str(value))
    return f"{type(value).__name__} {value.dtype} {value.shape}"


def _text(value: Any) -> str:
    if isinstance(value, functools.partial) or callable(value):
        name = getattr(value, "__qualname__", None)
        if type(name) is str:
            return _cut(writable(name))
    return _cut(writable(_SHORT.repr(value)))


def _cut(text: str) -> str:
    data = text.encode()
    return text if len(data) <= _TEXT_BYTES else data[:_TEXT_BYTES].decode(errors="ignore")

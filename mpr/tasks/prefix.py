"""Fills in the entity path prefix of a task: `"cam/{cam_id}"` becomes `"cam/3"`.

A field is one of `FIELDS`, or an argument of the function. A name in `FIELDS` never means an argument.

Covers: which fields a prefix may have, and their values.
Does not cover: how the prefix is put before the paths (`sdk/log_calls.py`), where an index comes from
(`producer/task_indices.py`).
"""

from __future__ import annotations

import inspect
import os
import re
import string
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mpr.errors import ConfigError
from mpr.tasks.current import CurrentTask

#: The fields that a prefix may have for every function.
FIELDS = ("task", "name", "index", "attempt", "worker", "pid")


def check(prefix: str, function: Callable[..., Any]) -> None:
    """Raise `ConfigError` if `prefix` is no format string, or has an unknown field.

    A field is known if it is in `FIELDS`, or is an argument of `function`. If `function` has a parameter `**kwargs`,
    each valid name of an argument is known.
    """
    try:
        names = list(_names(prefix))
    except ValueError as error:
        raise ConfigError(f"entity_path_prefix={prefix!r} is no format string: {error}") from None
    unknown = [name for name in names if name not in FIELDS]
    if not unknown:
        return
    parameters = _parameters(function)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    arguments = [each.name for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    unknown = [name for name in unknown if name not in arguments and not (takes_any and name.isidentifier())]
    if unknown:
        raise ConfigError(
            f"entity_path_prefix={prefix!r} names {{{unknown[0]}}}, and there are: {_listed(FIELDS)}"
            + (f", and the arguments {_listed(arguments)}" if arguments else "")
        )


def arguments_of(
    prefix: str | None, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of the call `function(*args, **kwargs)` by name, with the default values.

    If `prefix` is None or needs no argument, the result is empty. Raises `TypeError` if `function` does not accept
    these arguments.
    """
    if prefix is None or all(name in FIELDS for name in _names(prefix)):
        return {}
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    found = dict(bound.arguments)
    for each in bound.signature.parameters.values():
        if each.kind is each.VAR_KEYWORD:
            found |= found.pop(each.name)
    return found


def fill(prefix: str, task: CurrentTask, arguments: Mapping[str, Any]) -> str:
    """Return `prefix` with the values of its fields for `task`.

    `arguments` are the arguments of the call, by name. Raises `ConfigError` if a field has no value, such as
    `{config.cam_id}` if the argument `config` has no attribute `cam_id`.
    """
    import rerun as rr

    values = {
        "task": _Path(f"{rr.escape_entity_path_part(task.name)}/{task.index}"),
        "name": task.name,
        "index": task.index,
        "attempt": task.attempt,
        "worker": task.worker or 0,
        "pid": os.getpid(),
    }
    try:
        return _PathFormatter().vformat(prefix, (), {**arguments, **values})
    except Exception as error:  # attributes of arguments are code of the user
        raise ConfigError(
            f"entity_path_prefix={prefix!r} cannot be filled in for the task {task.name}: "
            f"{type(error).__name__}: {error}"
        ) from error


class _Path(str):
    """The value of a field that is a path of several parts. Its slashes are not escaped."""

    __slots__ = ()


class _PathFormatter(string.Formatter):
    """Formats each value as one part of a path, unless the value is a `_Path`."""

    def format_field(self, value: Any, format_spec: str) -> str:
        import rerun as rr

        text: str = super().format_field(value, format_spec)
        return text if isinstance(value, _Path) else rr.escape_entity_path_part(text)


def _names(prefix: str) -> Iterator[str]:
    """Yield the name of each field of `prefix`: `config` for `{config.cam_id}`.

    Raises `ValueError` if `prefix` is no format string.
    """
    for _, field, spec, _ in string.Formatter().parse(prefix):
        if field is not None:
            yield re.split(r"[.\[]", field, maxsplit=1)[0]
            # A format specification may have fields, too.
            yield from _names(spec or "")


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        # Some functions that are written in C have no signature.
        return []


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)

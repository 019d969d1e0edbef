"""Makes the result of `SharedRecording.wrap` for a class: a subclass whose methods are wrapped functions.

Actors of Ray and Dask, and the classes that Ray Data takes, are made from such a class.

Covers: which methods are wrapped, and how they are pickled.
Does not cover: one call of a method as a task (`decorator.py`, `execution.py`).
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

from mpr.errors import UnpicklableTaskError
from mpr.tasks.decorator import decorated, undecorated
from mpr.tasks.function_like import real_function
from mpr.transport import connection_info
from mpr.transport.connection_info import ConnectionInfo

# Of the methods with two underscores on each side, only these are wrapped. Others may be called at any moment, such as
# `__repr__` or `__del__`.
_SPECIAL = {"__init__", "__call__"}


def wrapped_class(cls: type, config: ConnectionInfo) -> type:
    """Return a subclass of `cls` whose methods log to the recording of `config`.

    cloudpickle pickles the subclass by value. Raises `UnpicklableTaskError` if `cls` cannot have a subclass.
    """
    body: dict[str, Any] = dict(_methods(cls, config))
    body |= {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    try:
        return types.new_class(cls.__name__, (cls,), exec_body=lambda namespace: namespace.update(body))
    except TypeError as error:
        raise UnpicklableTaskError(
            f"{cls!r} cannot be wrapped, because it cannot have a subclass ({error}): wrap the functions that log"
        ) from error


def _methods(cls: type, config: ConnectionInfo) -> Iterator[tuple[str, Any]]:
    """Yield the names and the wrapped methods of `cls` and its base classes."""
    for name in dir(cls):
        if name in _SPECIAL or not (name.startswith("__") and name.endswith("__")):
            found = inspect.getattr_static(cls, name)
            if isinstance(found, (staticmethod, classmethod)):
                yield name, type(found)(_wrapped(found.__func__, config))
            elif inspect.isfunction(found):
                yield name, _wrapped(found, config)


def _wrapped(method: Callable[..., Any], config: ConnectionInfo) -> Callable[..., Any]:
    # Ray asks for real functions, and reads what `ray.method` has set.
    return functools.wraps(method)(real_function(_MethodCall(method, connection_info.to_text(config)), method))


class _MethodCall:
    """Calls `method` as a task of the recording whose connection info is `config`.

    `method` is pickled in the same pickle as its class, because it may refer to this class.
    """

    def __init__(self, method: Callable[..., Any], config: str) -> None:
        self._made_of = method, config
        body, options = undecorated(method)
        self._task = decorated(body, options, connection_info.from_text(config))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._task(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _MethodCall, self._made_of

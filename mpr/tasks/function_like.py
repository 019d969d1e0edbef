"""Makes objects that other libraries treat as plain functions, but that are pickled in their own way.

Pickle pickles a real function by its name. The name of a result of `recording.wrap` or `mpr.task` may lead to the
undecorated function. So this result is an object of a class, whose attribute `__class__` says that it is a function.
`inspect.isfunction` and `isinstance` read `__class__`, but pickle reads the real type.

Covers: the base class of such objects, and real functions for libraries that accept nothing else.
Does not cover: what a call does (`decorator.py`, `wrapped.py`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, Final


class FunctionLike:
    """An object that other libraries treat as a plain function.

    A subclass must define `__reduce__`. cloudpickle, too, takes the object for a function and pickles a copy of `call`.
    So `call` may only refer to objects that can be pickled.

    Parameters
    ----------
    call:
        The real function that is called. If it is a generator or coroutine function, this object is one, too.
    like:
        The function whose name, docstring and signature this object has.
    """

    # These attributes are not in `__dict__`, because cloudpickle copies `__dict__`.
    __slots__ = ("__dict__", "__weakref__", "__wrapped__", "_call")

    def __init__(self, call: Callable[..., Any], like: Callable[..., Any]) -> None:
        functools.update_wrapper(self, like)
        # `update_wrapper` has set `__wrapped__` in the slot.
        self._call: Any = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> Any:
        raise NotImplementedError

    # The attributes by which libraries, such as `inspect`, Ray and cloudpickle, know a function.
    __class__ = property(lambda self: FunctionType)  # this is what `isinstance` believes
    __code__: Final = property(lambda self: self._call.__code__)
    __globals__: Final = property(lambda self: self._call.__globals__)
    __closure__: Final = property(lambda self: self._call.__closure__)
    __defaults__: Final = property(lambda self: self._call.__defaults__)
    __kwdefaults__: Final = property(lambda self: self._call.__kwdefaults__)


def real_function(call: Callable[..., Any], like: Callable[..., Any]) -> Callable[..., Any]:
    """Return a real function that calls `call`, for libraries that accept only real functions.

    The result is a coroutine function or a generator function if `like` is one.
    """
    if inspect.iscoroutinefunction(like):

        async def forward_coroutine(*args: Any, **kwargs: Any) -> Any:
            return await call(*args, **kwargs)

        return forward_coroutine

    if inspect.isgeneratorfunction(like):

        def forward_generator(*args: Any, **kwargs: Any) -> Any:
            return (yield from call(*args, **kwargs))

        return forward_generator

    def forward(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    return forward

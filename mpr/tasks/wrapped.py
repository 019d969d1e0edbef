"""Makes the result of `SharedRecording.wrap`: a function with the connection info of a recording.

Covers: calling and pickling such a function.
Does not cover: classes (`wrapped_class.py`), the run of the function as a task (`decorator.py`, `execution.py`).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, cast

from mpr.errors import UnpicklableTaskError
from mpr.processes import task_pickling
from mpr.tasks.decorator import decorated, undecorated
from mpr.tasks.function_like import FunctionLike, real_function
from mpr.tasks.wrapped_class import wrapped_class
from mpr.transport import connection_info
from mpr.transport.connection_info import ConnectionInfo
from mpr.user_code import is_a


def wrap(fn: Callable[..., Any], config: ConnectionInfo) -> Callable[..., Any]:
    """Return `fn` as a function whose rows go to the recording of `config`. If `fn` is a class, returns a subclass.

    Raises `UnpicklableTaskError` if `fn` is not callable, or is a class that cannot have a subclass.
    """
    return wrapped_class(cast("type", fn), config) if is_a(fn, type) else Wrapped(fn, config)


class Wrapped(FunctionLike):
    """Calls `function` as a task, whose rows go to the recording with the connection info `config`.

    A call works in any process of this user on this machine, as long as the recording is open. The pickle has
    `function` and `config`. Raises `UnpicklableTaskError` if `function` is not callable.
    """

    __slots__ = ("_made_of",)

    def __init__(self, function: Callable[..., Any], config: ConnectionInfo) -> None:
        if not callable(function):
            raise UnpicklableTaskError(f"only what can be called can be wrapped, got {function!r}")
        call = _WrappedCall(function, config)
        FunctionLike.__init__(self, real_function(call, call.task), function)
        self._made_of = call

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, self._made_of.__reduce__()[1]

    def __repr__(self) -> str:
        call = self._made_of
        return f"<{task_pickling.task_name(call.function)} for the recording {call.config.application_id!r}>"


class _WrappedCall:
    """Calls `function` as a task of the recording of `config`.

    cloudpickle pickles a `Wrapped` as a function that refers to this object. Every pickler pickles this object by its
    `__reduce__`.
    """

    def __init__(self, function: Callable[..., Any], config: ConnectionInfo) -> None:
        self.function = function
        self.config = config
        body, options = undecorated(function)
        self.task = decorated(body, options, config)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.task(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        # A function of `__main__` is pickled by value, because a process of another engine has another `__main__`.
        return _load_call, (task_pickling.dump_by_value(self.function), connection_info.to_text(self.config))


def _load(function: bytes, config: str) -> Wrapped:
    call = _load_call(function, config)
    return Wrapped(call.function, call.config)


def _load_call(function: bytes, config: str) -> _WrappedCall:
    # Unpickling is no new risk here, because these bytes are part of a pickle that is being loaded already. `from_text`
    # raises `JoinError` if another version of mpr has made the text.
    return _WrappedCall(pickle.loads(function), connection_info.from_text(config))  # noqa: S301  # see above

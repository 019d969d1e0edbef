"""Makes a function that carries the connection info of a recording: the result of `SharedRecording.wrap`."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from typing import Any

from mpr.errors import UnpicklableTaskError
from mpr.processes import task_pickling
from mpr.tasks.decorator import decorated, mark_like, undecorated
from mpr.transport import connection_info
from mpr.transport.connection_info import ConnectionInfo


class Wrapped:
    """Calls `function` in any process, and lets it log to the recording of `config`."""

    def __init__(self, function: Callable[..., Any], config: ConnectionInfo) -> None:
        if not callable(function):
            raise UnpicklableTaskError(f"only what can be called can be wrapped, got {function!r}")
        functools.update_wrapper(self, function)
        self._function = function
        self._config = config
        body, options = undecorated(function)
        self._call = decorated(body, options, config)
        mark_like(self, self._call)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __reduce__(self) -> tuple[Any, ...]:
        # A function of `__main__` is pickled by value, because a process of another engine has another `__main__`.
        return _load, (task_pickling.dump_by_value(self._function), connection_info.to_text(self._config))

    def __repr__(self) -> str:
        return f"<{task_pickling.task_name(self._function)} for the recording {self._config.application_id!r}>"


def _load(function: bytes, config: str) -> Wrapped:
    # No new risk, because these bytes are part of a pickle that is being loaded already. `from_text` raises `JoinError`
    # for another version of mpr.
    return Wrapped(pickle.loads(function), connection_info.from_text(config))  # noqa: S301  # see above

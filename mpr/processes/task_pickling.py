"""Pickles functions, arguments, results and exceptions of tasks."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from multiprocessing.context import set_spawning_popen
from multiprocessing.pool import (  # type: ignore[attr-defined]  # public by use, not in typeshed
    MaybeEncodingError,
    RemoteTraceback,
)
from typing import Any, NoReturn

from mpr.errors import TaskError, TaskLoadError, UnpicklableTaskError
from mpr.processes.pickle_errors import find_culprit
from mpr.processes.pickling import PICKLE_PROTOCOL, Portable, dumps, loads, pickled
from mpr.transport.packing import Buffer

# --- tasks --------------------------------------------------------------------------------------------------------


def task_name(function: Callable[..., Any]) -> str:
    """Return a name for `function` in messages. `function` may be any callable."""
    name = getattr(function, "__qualname__", None)
    return name if type(name) is str and name else type(function).__qualname__


def dump_function(function: Callable[..., Any]) -> tuple[bytes, bytes]:
    """Return (digest, pickle) of a task function.

    Raises `UnpicklableTaskError`, which names the part that cannot be pickled.
    """
    if not callable(function):
        raise UnpicklableTaskError(f"a task must be callable, got {function!r}")
    try:
        # Buffers stay in the pickle, because a worker keeps the pickle of a function in one piece, even for a closure
        # over an array.
        data = pickled(function, None)
    except Exception as error:  # noqa: BLE001  # `_refuse` always raises an error
        _refuse(f"the task function {task_name(function)!r}", function, error)
    return hashlib.blake2b(data, digest_size=16).digest(), data


def dump_by_value(function: Callable[..., Any]) -> bytes:
    """Return a pickle of `function` with its code, for a process that has another `__main__`.

    Raises `UnpicklableTaskError`.
    """
    from mpr.processes import by_value

    try:
        return by_value.dumps(function, PICKLE_PROTOCOL)
    except Exception as error:  # noqa: BLE001  # `_refuse` always raises an error
        _refuse(f"the function {task_name(function)!r}", function, error)


def check_portable(what: str, portable: Portable) -> None:
    """Raise `UnpicklableTaskError` if no `Process` can be started with `portable` as an argument."""
    try:
        # Locks and queues of multiprocessing can be pickled only while a process is being started.
        with _as_if_spawning():
            portable.__reduce__()
    except Exception as error:  # noqa: BLE001  # `_refuse` always raises an error
        _refuse(what, portable.value, error)


@contextlib.contextmanager
def _as_if_spawning() -> Iterator[None]:
    set_spawning_popen(_Spawning())  # type: ignore[arg-type]  # it has the methods that the reducers use
    try:
        yield
    finally:
        set_spawning_popen(None)


class _Spawning:
    """Stands in place of the `Popen` of a process that is being started.

    The class has only the methods that `multiprocessing` calls when it pickles locks, queues and connections.
    """

    DupFd = staticmethod(int)

    def duplicate_for_child(self, fd: int) -> int:
        return fd


def load_function(data: bytes) -> Callable[..., Any]:
    """Return the function in `data`. Raises `TaskLoadError` with the reason if this process cannot load it."""
    try:
        function: Callable[..., Any] = loads([data])
    except BaseException as error:
        raise TaskLoadError(
            f"a worker cannot load the task function: {type(error).__name__}: {error}. Its module must be importable "
            "in the workers, and must not fail there on import."
        ) from error
    return function


def dump_arguments(name: str, value: object) -> list[Buffer]:
    """Pickle the arguments of a work item. Raises `UnpicklableTaskError`, which names the part that fails."""
    try:
        return dumps(value)
    except Exception as error:  # noqa: BLE001  # `_refuse` always raises an error
        _refuse(f"an argument of task {name!r}", value, error)


def _refuse(what: str, value: object, error: Exception) -> NoReturn:
    culprit = find_culprit(value)
    text = f"{what} cannot be sent to a worker" + (f": {culprit}" if culprit else "")
    if isinstance(error, pickle.PicklingError | TypeError | AttributeError | RecursionError):
        raise UnpicklableTaskError(f"{text} ({type(error).__name__}: {error})") from error
    # An error from a user's `__reduce__` is raised unchanged, because `multiprocessing.Pool` does the same.
    with contextlib.suppress(Exception):
        # `add_note` raises an error if the class of the exception is a frozen dataclass.
        error.add_note(text)
    raise error


# --- outcomes -----------------------------------------------------------------------------------------------------


class Failure:
    """Takes the place of a result in a list of results, if the task raised an exception."""

    __slots__ = ("payload",)

    def __init__(self, error: BaseException) -> None:
        self.payload: list[bytes] = [bytes(part) for part in dump_exception(error)]

    def __reduce__(self) -> tuple[Any, ...]:
        return _failure, (self.payload,)


def _failure(payload: list[bytes]) -> Failure:
    failure = Failure.__new__(Failure)
    failure.payload = payload
    return failure


def dump_results(results: list[Any]) -> tuple[list[Buffer], bool]:
    """Pickle results of tasks, and also return whether all results could be pickled.

    The result of a task that raised is a `Failure`. A result that cannot be pickled is replaced by a `Failure` with a
    `MaybeEncodingError`, because `multiprocessing.Pool` raises this error too.
    """
    try:
        return dumps(results), True
    except BaseException:  # noqa: BLE001  # a user's `__reduce__` may raise anything; the next line finds the result
        return dumps([_pickling_or_failure(result) for result in results]), False


def _pickling_or_failure(result: object) -> object:
    try:
        dumps(result)
    except Exception as error:  # noqa: BLE001  # as above
        return Failure(MaybeEncodingError(error, result))
    except BaseException as error:  # noqa: BLE001  # `sys.exit` in a `__reduce__` is the task's error too
        return Failure(error)
    return result


def dump_exception(error: BaseException) -> list[Buffer]:
    """Pickle an exception with the text of its traceback. If this fails, pickle a `TaskError` instead."""
    # All errors are suppressed, because a user's exception may raise anything when it is formatted or pickled.
    text = name = describe(error)
    with contextlib.suppress(BaseException):
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    with contextlib.suppress(BaseException):
        inner = [bytes(part) for part in dumps(error)]
        if type(loads(inner)) is type(error):
            return dumps((inner, name, text))
    inner = [bytes(part) for part in dumps(TaskError(f"{name} (the exception itself cannot be pickled)"))]
    return dumps((inner, name, text))


def describe(error: BaseException) -> str:
    """Return the type and the text of an exception. Works even if the `__str__` of the exception raises."""
    kind = type(error).__qualname__
    if type(error).__module__ != "builtins":
        kind = f"{type(error).__module__}.{kind}"
    try:
        return f"{kind}: {error}"
    except BaseException:  # noqa: BLE001  # a user's `__str__`
        return f"{kind}: (its text cannot be made)"


def represent(error: BaseException) -> str:
    """Return `repr(error)`, or `describe(error)` if a user's `__repr__` raises."""
    try:
        return repr(error)
    except BaseException:  # noqa: BLE001  # a user's `__repr__`
        return describe(error)


def load_exception(payload: Sequence[Buffer]) -> BaseException:
    """Unpickle the exception of a task. The `__cause__` is the traceback in the worker, as in `multiprocessing.Pool`.

    Raises nothing. If the exception cannot be unpickled, or if it is no exception, a `TaskError` is returned.
    """
    try:
        inner, name, text = loads(payload)
    except BaseException as failure:  # noqa: BLE001  # not a payload of `dump_exception`
        return TaskError(f"a task raised an exception that cannot be read here: {represent(failure)}")
    try:
        error: BaseException = loads(inner)
        # The cause is not set by an assignment, because an assignment runs a user's `__setattr__`, which may raise. For
        # example, a frozen dataclass raises.
        _set_cause(error, RemoteTraceback(text))
        # Read the `__class__` of the error here, because later code reads it, too. A user's `__class__` may be a
        # property that raises. In this case, the error is replaced below.
        isinstance(error, CancelledError)
    except BaseException as failure:  # noqa: BLE001  # a user's exception may raise anything when it is unpickled
        error = TaskError(f"a task raised {name}, which cannot be unpickled here: {represent(failure)}")
        error.__cause__ = RemoteTraceback(text)
    return error


# The setter of `__cause__`. The setter raises `TypeError` if the object is no exception.
_set_cause: Callable[[BaseException, BaseException], None] = BaseException.__dict__["__cause__"].__set__

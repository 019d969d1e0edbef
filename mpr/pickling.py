"""How tasks, results and exceptions travel: pickle protocol 5 with large buffers apart, cloudpickle where it must be.

Plain pickle comes first, so that what can be imported is imported, as in `multiprocessing`: an initializer and a task
of one module then share that module's globals. Lambdas, closures and what a notebook defines go by value.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import set_spawning_popen
from multiprocessing.pool import (  # type: ignore[attr-defined]  # public by use, not in typeshed
    MaybeEncodingError,
    RemoteTraceback,
)
from multiprocessing.reduction import ForkingPickler
from types import CodeType, FunctionType, MethodType
from typing import Any, NoReturn

from mpr.errors import TaskError, TaskLoadError, UnpicklableTaskError
from mpr.main_module import workers_import_main
from mpr.transport.messages import Buffer

_PROTOCOL = 5


def dumps(value: object) -> list[Buffer]:
    """`value` as a pickle and its out-of-band buffers; raises what pickle raises where neither pickler can."""
    buffers: list[pickle.PickleBuffer] = []
    data = _pickled(value, buffers)
    return [data, *(buffer.raw() for buffer in buffers)]


def _pickled(value: object, buffers: list[pickle.PickleBuffer] | None) -> bytes:
    """The pickle of `value`, which has its large buffers in itself where `buffers` is None."""
    out_of_band = None if buffers is None else buffers.append
    if workers_import_main():
        try:
            return pickle.dumps(value, _PROTOCOL, buffer_callback=out_of_band)
        except Exception:  # noqa: BLE001  # any error of any `__reduce__`: cloudpickle may still know a way
            if buffers:
                buffers.clear()
    from mpr import by_value

    return by_value.dumps(value, _PROTOCOL, out_of_band)


def loads(payload: Sequence[Buffer]) -> Any:
    """The value in `payload`, which comes from a process that has shown the recording's token."""
    # Arrays are made on these buffers, and who gets one may write to it, as `multiprocessing` has it.
    buffers = [bytearray(part) if isinstance(part, bytes) else part for part in payload[1:]]
    return pickle.loads(payload[0], buffers=buffers)  # noqa: S301  # authenticated, see above


class Portable:
    """A value for a `Process`'s arguments that goes by cloudpickle where multiprocessing's pickler cannot take it.

    Under fork nothing is pickled, and the value is simply there.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            # With multiprocessing's pickler, so that its queues, locks and connections can be arguments.
            return _portable, (bytes(ForkingPickler.dumps(self.value, _PROTOCOL)),)
        except Exception:  # noqa: BLE001  # as in `dumps`
            from mpr import by_value

            return _portable, (by_value.dumps(self.value, _PROTOCOL),)


def _portable(data: bytes) -> Portable:
    return Portable(pickle.loads(data))  # noqa: S301  # from the parent, through multiprocessing's own pipe


# --- tasks --------------------------------------------------------------------------------------------------------


def task_name(function: Callable[..., Any]) -> str:
    """A name for messages, whatever kind of callable it is."""
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def dump_function(function: Callable[..., Any]) -> tuple[bytes, bytes]:
    """(digest, pickle) of a task function; raises `UnpicklableTaskError` that names what inside it cannot travel."""
    if not callable(function):
        raise UnpicklableTaskError(f"a task must be callable, got {function!r}")
    try:
        # In one piece, as a worker keeps it: also a closure over an array.
        data = _pickled(function, None)
    except Exception as error:  # noqa: BLE001  # `_refuse` raises it or its like
        _refuse(f"the task function {task_name(function)!r}", function, error)
    return hashlib.blake2b(data, digest_size=16).digest(), data


def dump_by_value(function: Callable[..., Any]) -> bytes:
    """The pickle of a function for a process that has not the same `__main__`; raises `UnpicklableTaskError`."""
    from mpr import by_value

    try:
        return by_value.dumps(function, _PROTOCOL)
    except Exception as error:  # noqa: BLE001  # `_refuse` raises it or its like
        _refuse(f"the function {task_name(function)!r}", function, error)


def check_portable(what: str, portable: Portable) -> None:
    """Raise `UnpicklableTaskError` where a `Process` could not be started with `portable`."""
    try:
        # multiprocessing's locks and queues pickle only while a process is started; they will.
        with _as_if_spawning():
            portable.__reduce__()
    except Exception as error:  # noqa: BLE001  # `_refuse` raises it or its like
        _refuse(what, portable.value, error)


@contextlib.contextmanager
def _as_if_spawning() -> Iterator[None]:
    set_spawning_popen(_Spawning())  # type: ignore[arg-type]  # as much of one as is asked for
    try:
        yield
    finally:
        set_spawning_popen(None)


class _Spawning:
    """As much of a `Popen` as the reducers of multiprocessing ask for."""

    DupFd = staticmethod(int)

    def duplicate_for_child(self, fd: int) -> int:
        return fd


def load_function(data: bytes) -> Callable[..., Any]:
    """The function in `data`; raises `TaskLoadError` with the reason where this process cannot load it."""
    try:
        function: Callable[..., Any] = loads([data])
    except BaseException as error:
        raise TaskLoadError(
            f"a worker cannot load the task function: {type(error).__name__}: {error}. Its module must be importable "
            "in the workers, and must not fail there on import."
        ) from error
    return function


def dump_arguments(name: str, value: object) -> list[Buffer]:
    """The arguments of a parcel; raises `UnpicklableTaskError` that names what inside them cannot travel."""
    try:
        return dumps(value)
    except Exception as error:  # noqa: BLE001  # `_refuse` raises it or its like
        _refuse(f"an argument of task {name!r}", value, error)


def _refuse(what: str, value: object, error: Exception) -> NoReturn:
    culprit = find_culprit(value)
    text = f"{what} cannot be sent to a worker" + (f": {culprit}" if culprit else "")
    if isinstance(error, pickle.PicklingError | TypeError | AttributeError | RecursionError):
        raise UnpicklableTaskError(f"{text} ({type(error).__name__}: {error})") from error
    # Not the pickler's: what a user's `__reduce__` raises comes as it is, as from `multiprocessing.Pool`.
    error.add_note(text)
    raise error


def find_culprit(value: object) -> str | None:
    """Which part of `value` cannot be pickled, in words; None where no single part is to blame."""
    try:
        return _culprit(value, set()) or None
    except Exception:  # noqa: BLE001  # objects that do not like to be looked at: then without this help
        return None


def _culprit(value: object, seen: set[int]) -> str | None:
    """As `find_culprit`; empty where the parts of `value` only lead back, in a circle, to what was `seen`."""
    seen.add(id(value))
    in_circle = False
    for where, part in _parts(value):
        if id(part) not in seen and _can_pickle(part):
            continue
        deeper = "" if id(part) in seen else _culprit(part, seen)
        if deeper == "":
            in_circle = True
            continue
        found = f"{where} is a {type(part).__module__}.{type(part).__qualname__}"
        return f"{found}, where {deeper}" if deeper else found
    return "" if in_circle else None


def _can_pickle(value: object) -> bool:
    try:
        dumps(value)
    except Exception:  # noqa: BLE001  # the question is just whether
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, functools.partial):
        yield "its function", value.func
        yield from ((f"its argument {index}", each) for index, each in enumerate(value.args))
        yield from ((f"its argument {name!r}", each) for name, each in value.keywords.items())
    elif isinstance(value, FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, dict):
        yield from ((f"the value of {key!r}", each) for key, each in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"item {index}", each) for index, each in enumerate(value))
    elif isinstance(value, MethodType):
        yield "its object", value.__self__
    else:
        yield from ((f"its attribute {name!r}", each) for name, each in getattr(value, "__dict__", {}).items())


def _parts_of_function(function: FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        # An empty one: its variable has no value yet.
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
        # Functions, lambdas and comprehensions within it.
        codes += (each for each in code.co_consts if isinstance(each, CodeType))


# --- outcomes -----------------------------------------------------------------------------------------------------


class Failure:
    """Stands for the result of a task that raised, in a list of results."""

    __slots__ = ("payload",)

    def __init__(self, error: BaseException) -> None:
        self.payload = [bytes(part) for part in dump_exception(error)]

    def __reduce__(self) -> tuple[Any, ...]:
        return _failure, (self.payload,)


def _failure(payload: list[bytes]) -> Failure:
    failure = Failure.__new__(Failure)
    failure.payload = payload
    return failure


def dump_results(results: list[Any]) -> tuple[list[Buffer], bool]:
    """Results of tasks, with a `Failure` where one raised; and whether all of them could be pickled.

    In the place of one that could not is the `Failure` of a `MaybeEncodingError`, as `multiprocessing.Pool` has it.
    """
    try:
        return dumps(results), True
    except BaseException:  # noqa: BLE001  # whatever a user's `__reduce__` raises; which one is found out below
        return dumps([_pickling_or_failure(result) for result in results]), False


def _pickling_or_failure(result: object) -> object:
    try:
        dumps(result)
    except Exception as error:  # noqa: BLE001  # as above
        return Failure(MaybeEncodingError(error, result))
    except BaseException as error:  # noqa: BLE001  # `sys.exit` is a task's error wherever it is called
        return Failure(error)
    return result


def dump_exception(error: BaseException) -> list[Buffer]:
    """An exception with its traceback's text; one that does not survive pickling becomes a `TaskError`."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    # A user's `__reduce__` or `__init__` may raise anything at all.
    with contextlib.suppress(BaseException):
        payload = dumps((error, text))
        back = loads([bytes(part) for part in payload])
        if type(back[0]) is type(error):
            return payload
    return dumps((TaskError(f"{describe(error)} (the exception itself cannot be pickled)"), text))


def describe(error: BaseException) -> str:
    """Type and text of an exception, whatever a user's `__str__` does."""
    kind = type(error).__qualname__
    if type(error).__module__ != "builtins":
        kind = f"{type(error).__module__}.{kind}"
    try:
        return f"{kind}: {error}"
    except BaseException:  # noqa: BLE001  # a user's `__str__`
        return f"{kind}: (its text cannot be made)"


def load_exception(payload: Sequence[Buffer]) -> BaseException:
    """The exception of a task; its traceback in the worker is the `__cause__`, as in `multiprocessing.Pool`."""
    try:
        error, text = loads(payload)
    except BaseException as failure:  # noqa: BLE001  # as in `dump_exception`
        return TaskError(f"a task raised an exception that cannot be unpickled here: {failure!r}")
    error.__cause__ = RemoteTraceback(text)
    return error  # type: ignore[no-any-return]  # what `dump_exception` made

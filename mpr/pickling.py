"""How tasks, results and exceptions travel: pickle protocol 5 with large buffers apart, cloudpickle where it must be.

Plain pickle comes first, so that what can be imported is imported, as in `multiprocessing`: an initializer and a task
of one module then share that module's globals. Lambdas, closures and what a notebook defines go by value.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import set_spawning_popen
from multiprocessing.pool import (  # type: ignore[attr-defined]  # public by use, not in typeshed
    MaybeEncodingError,
    RemoteTraceback,
)
from multiprocessing.reduction import ForkingPickler
from typing import Any

from mpr.errors import TaskError, TaskLoadError, UnpicklableTaskError
from mpr.messages import Buffer

_PROTOCOL = 5


def dumps(value: object) -> list[Buffer]:
    """`value` as a pickle and its out-of-band buffers; raises what pickle raises where neither pickler can."""
    buffers: list[pickle.PickleBuffer] = []
    if _main_has_a_file():
        try:
            data = pickle.dumps(value, _PROTOCOL, buffer_callback=buffers.append)
            return [data, *(buffer.raw() for buffer in buffers)]
        except Exception:  # noqa: BLE001  # any error of any `__reduce__`: cloudpickle may still know a way
            buffers.clear()
    import cloudpickle

    data = cloudpickle.dumps(value, _PROTOCOL, buffer_callback=buffers.append)
    return [data, *(buffer.raw() for buffer in buffers)]


def loads(payload: Sequence[Buffer]) -> Any:
    """The value in `payload`, which comes from a process that has shown the recording's token."""
    return pickle.loads(payload[0], buffers=payload[1:])  # noqa: S301  # authenticated, see above


def _main_has_a_file() -> bool:
    """Whether a worker can import what `__main__` defines; not so in a notebook or at the prompt."""
    main = sys.modules.get("__main__")
    return getattr(main, "__spec__", None) is not None or hasattr(main, "__file__")


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
            import cloudpickle

            return _portable, (cloudpickle.dumps(self.value, _PROTOCOL),)


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
        payload = dumps(function)
        data = payload[0] if len(payload) == 1 else pickle.dumps(function, _PROTOCOL)
    except Exception as error:
        raise _unpicklable(f"the task function {task_name(function)!r}", function, error) from error
    data = bytes(data)
    return hashlib.blake2b(data, digest_size=16).digest(), data


def check_portable(what: str, portable: Portable) -> None:
    """Raise `UnpicklableTaskError` where a `Process` could not be started with `portable`."""
    try:
        # multiprocessing's locks and queues pickle only while a process is started; they will.
        with _as_if_spawning():
            portable.__reduce__()
    except Exception as error:
        raise _unpicklable(what, portable.value, error) from error


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
    except Exception as error:
        raise _unpicklable(f"an argument of task {name!r}", value, error) from error


def _unpicklable(what: str, value: object, error: Exception) -> UnpicklableTaskError:
    culprit = find_culprit(value)
    inside = f": {culprit}" if culprit else ""
    return UnpicklableTaskError(f"{what} cannot be sent to a worker{inside} ({type(error).__name__}: {error})")


def find_culprit(value: object) -> str | None:
    """Which part of `value` cannot be pickled, in words; None where no single part is to blame."""
    for _ in range(8):
        for where, part in _parts(value):
            if not _can_pickle(part):
                found = f"{where} is a {type(part).__module__}.{type(part).__qualname__}"
                deeper = find_culprit(part)
                return f"{found}, where {deeper}" if deeper else found
        return None
    return None


def _can_pickle(value: object) -> bool:
    try:
        dumps(value)
    except Exception:  # noqa: BLE001  # the question is just whether
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, object]]:
    code = getattr(value, "__code__", None)
    if code is not None:
        cells = getattr(value, "__closure__", None) or ()
        for name, cell in zip(code.co_freevars, cells, strict=False):
            yield f"its variable {name!r}", cell.cell_contents
        for name in code.co_names:
            if name in value.__globals__:
                yield f"its global {name!r}", value.__globals__[name]
    elif isinstance(value, dict):
        yield from ((f"the value of {key!r}", each) for key, each in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"item {index}", each) for index, each in enumerate(value))
    else:
        owner = getattr(value, "__self__", None)
        if owner is not None:
            yield "its object", owner
        yield from ((f"its attribute {name!r}", each) for name, each in getattr(value, "__dict__", {}).items())


# --- outcomes -----------------------------------------------------------------------------------------------------


def dump_result(result: object) -> list[Buffer]:
    """A task's result; raises `MaybeEncodingError`, as `multiprocessing.Pool` does, where it cannot be pickled."""
    try:
        return dumps(result)
    except Exception as error:
        raise MaybeEncodingError(error, result) from error


def dump_exception(error: BaseException) -> list[Buffer]:
    """An exception with its traceback's text; one that does not survive pickling becomes a `TaskError`."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    # A user's `__reduce__` or `__init__` may raise anything at all.
    with contextlib.suppress(BaseException):
        payload = dumps((error, text))
        back = loads([bytes(part) for part in payload])
        if type(back[0]) is type(error):
            return payload
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    try:
        described = str(error)
    except Exception:  # noqa: BLE001  # a user's `__str__`
        described = "(its text cannot be made)"
    return dumps((TaskError(f"{kind}: {described} (the exception itself cannot be pickled)"), text))


def load_exception(payload: Sequence[Buffer]) -> BaseException:
    """The exception of a task; its traceback in the worker is the `__cause__`, as in `multiprocessing.Pool`."""
    try:
        error, text = loads(payload)
    except BaseException as failure:  # noqa: BLE001  # as in `dump_exception`
        return TaskError(f"a task raised an exception that cannot be unpickled here: {failure!r}")
    error.__cause__ = RemoteTraceback(text)
    return error  # type: ignore[no-any-return]  # what `dump_exception` made

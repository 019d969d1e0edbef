"""Pickles functions, arguments, results and exceptions of tasks, and unpickles them in the other process."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import pickle
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import set_spawning_popen
from multiprocessing.pool import RemoteTraceback  # type: ignore[attr-defined]  # public by use, not in typeshed
from typing import TYPE_CHECKING, Any, NoReturn

from mpr.errors import TaskError, TaskLoadError, UnpicklableTaskError
from mpr.processes.pickle_errors import find_culprit
from mpr.processes.pickling import PICKLE_PROTOCOL, Portable, dumps, dumps_plain, loads, pickled
from mpr.transport.packing import Buffer
from mpr.user_code import describe, is_a, passes, plain_name, represent, traceback_text

if TYPE_CHECKING:
    # The stubs of Python's library do not have this class.
    class MaybeEncodingError(Exception):
        exc: str
        value: str

        def __init__(self, exc: object, value: object) -> None: ...

else:
    from multiprocessing.pool import MaybeEncodingError

# --- tasks --------------------------------------------------------------------------------------------------------


def task_name(function: Callable[..., Any]) -> str:
    """Return a name of `function` for messages: its qualified name, or the name of its type if it has none."""
    name = None
    try:
        name = getattr(function, "__qualname__", None)
        # Messages take no lone surrogates.
        if type(name) is str and name and name.encode():
            return name
    except BaseException as error:
        # A user's `__getattr__` may raise anything.
        if passes(error):
            raise
    return plain_name(type(function))


def dump_function(function: Callable[..., Any], *, by_value: bool = False) -> tuple[bytes, bytes]:
    """Return a hash of the pickle of the task function `function` (16 bytes), and the pickle itself.

    If `by_value` is true, the pickle has the code of a function of `__main__`, for a process that has another
    `__main__`. Otherwise `pickling.py` chooses the form. Raises `UnpicklableTaskError` if `function` is not callable or
    cannot be pickled. Any other error, such as a `ValueError` from a user's `__reduce__`, is raised itself, with a
    note.
    """
    if not callable(function):
        raise UnpicklableTaskError(f"a task must be callable, got {represent(function)}")
    try:
        # Buffers stay in the pickle, because a worker keeps the pickle of a function in one piece, even for a closure
        # over an array.
        data = dump_by_value(function) if by_value else pickled(function, None)
    except Exception as error:  # noqa: BLE001  # `_refuse` always raises an error
        _refuse(f"the task function {task_name(function)!r}", function, error)
    return hashlib.blake2b(data, digest_size=16).digest(), data


def dump_by_value(function: Callable[..., Any]) -> bytes:
    """Return a pickle of `function` that a process with another `__main__` can load.

    The pickle has the code of a function of `__main__`. A function of a module is pickled by name (see `by_value.py`).
    Raises `UnpicklableTaskError` if `function` cannot be pickled. Any other error, such as a `ValueError` from a user's
    `__reduce__`, is raised itself, with a note.
    """
    from mpr.processes import by_value

    try:
        return by_value.dumps(function, PICKLE_PROTOCOL)
    except Exception as error:  # noqa: BLE001  # `_refuse` always raises an error
        _refuse(f"the function {task_name(function)!r}", function, error)


def check_portable(what: str, portable: Portable) -> None:
    """Raise `UnpicklableTaskError` if `portable` cannot be pickled as an argument of a `Process`.

    The text of the error begins with `what`, a name for the value. Any other error, such as a `ValueError` from a
    user's `__reduce__`, is raised itself, with a note.
    """
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
    """Takes the place of the `Popen` object of a process that is being started.

    The class has only the methods that `multiprocessing` calls when it pickles locks, queues and connections.
    """

    DupFd = staticmethod(int)

    def duplicate_for_child(self, fd: int) -> int:
        return fd


def load_function(data: bytes) -> Callable[..., Any]:
    """Return the function in the pickle `data`.

    Raises `TaskLoadError` with the reason if this process cannot load the function.
    """
    try:
        function: Callable[..., Any] = loads([data])
    except BaseException as error:
        raise _load_error("the task function", error) from error
    if not callable(function):
        raise TaskLoadError(f"a worker cannot load the task function: it became {represent(function)}")
    return function


def load_initializer(
    portable: Portable,
) -> tuple[Callable[..., object] | None, tuple[Any, ...], Callable[[], object] | None]:
    """Return the initializer in `portable` (None if there is none), the tuple of its arguments, and `worker_exit`.

    Raises `TaskLoadError` if they cannot be loaded.
    """
    try:
        function, arguments, worker_exit = portable.value
    except BaseException as error:
        raise _load_error("the initializer, its arguments or worker_exit", error) from error
    return function, arguments, worker_exit


def _load_error(what: str, error: BaseException) -> TaskLoadError:
    if is_a(error, AttributeError) and "'__mp_main__'" in describe(error):
        # The worker has imported the main script without the part under the guard.
        return TaskLoadError(
            f"a worker cannot load {what}: {describe(error)}. Define it at the top of the main script, above the guard "
            "(\"if __name__ == '__main__':\"), because workers import the script without the part under the guard"
        )
    text = f"a worker cannot load {what}: {describe(error)}. Its module must be importable in the workers, and must "
    text += "not fail there on import."
    if is_a(error, AttributeError):
        # The object was found by its name in the parent, but not in the worker.
        text += (
            " It was sent by its name, as are all classes and functions of modules, and many wrappers by libraries. "
            "Such an object must be defined in a module with the same name in the workers, and not in a notebook or "
            "at a prompt."
        )
    return TaskLoadError(text)


def load_arguments(payload: Sequence[Buffer]) -> list[Any]:
    """Return the list of the arguments in `payload`, one for each task.

    Raises `TaskLoadError` if this process cannot load them.
    """
    try:
        arguments: list[Any] = loads(payload)
    except BaseException as error:
        raise _load_error("the arguments of a task", error) from error
    return arguments


def dump_arguments(name: str, value: object, *, by_value: bool = False) -> list[Buffer]:
    """Pickle `value`, which has the arguments of tasks. Returns a list: the pickle, then the buffers of large values.

    `name` is the name of the task function. If `by_value` is true, classes and functions of `__main__` are pickled with
    their code. Raises `UnpicklableTaskError` if the arguments cannot be pickled. Any other error, such as a
    `ValueError` from a user's `__reduce__`, is raised itself, with a note.
    """
    try:
        return dumps(value, by_value=by_value)
    except Exception as error:  # noqa: BLE001  # `_refuse` always raises an error
        _refuse(f"an argument of task {name!r}", value, error)


def _refuse(what: str, value: object, error: Exception) -> NoReturn:
    culprit = find_culprit(value)
    text = f"{what} cannot be sent to a worker" + (f": {culprit}" if culprit else "")
    if is_a(error, (pickle.PicklingError, TypeError, AttributeError, RecursionError)):
        raise UnpicklableTaskError(f"{text} ({describe(error)})") from error
    # An error from a user's `__reduce__` is raised unchanged, because `multiprocessing.Pool` does the same.
    with contextlib.suppress(Exception):
        # `add_note` raises an error if the class of the exception is a frozen dataclass.
        error.add_note(text)
    raise error


# --- outcomes -----------------------------------------------------------------------------------------------------


class UnpicklableResultError(UnpicklableTaskError, MaybeEncodingError):
    """The result of a task cannot be pickled. The note (`__notes__`) names the task.

    This error is a `MaybeEncodingError` of `multiprocessing`, too, because `multiprocessing.Pool` raises that one.
    """

    def __init__(self, reason: str, result: str) -> None:
        MaybeEncodingError.__init__(self, _Shown(reason), _Shown(result))

    def __str__(self) -> str:
        return f"the result of a task cannot be pickled: {self.value} ({self.exc})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.exc, self.value)


class Failure:
    """Replaces the result of a task that has raised `error`, in a worker's list of results.

    The exception is pickled at once, because a later task may change it. The caller gets it with the note `note`.
    """

    __slots__ = ("payload",)

    def __init__(self, error: BaseException, note: str) -> None:
        self.payload: list[Buffer] = dump_exception(error, note)


class _Shown:
    """An object whose `repr` is `text`."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def dump_results(results: list[Any], note: Callable[[int], str] | None = None) -> tuple[list[Buffer], bool]:
    """Pickle the results of tasks. Returns a list (the pickle and its buffers), and a bool.

    `note(position)` returns the note for the error of the task whose result has this position in `results`.

    The bool is True if the results were pickled together, as one list. This happens if all consist of built-in types
    only, or if there is a single result that can be pickled. Other results are pickled one by one, so that the parent
    gets the rest if it cannot unpickle one of them. `parts_of_results` splits such a pickle.

    The result of a task that raised is a `Failure`. A result that cannot be pickled is replaced by an
    `UnpicklableResultError`. But if pickling has raised an error that is no `Exception`, such as `SystemExit`, this
    error replaces the result.
    """
    if len(results) > 1:
        plain = dumps_plain(results)
        if plain is not None:
            return [plain], True
    elif type(results[0]) is not Failure:
        # The error of a single result is found once more below.
        with contextlib.suppress(BaseException):
            return dumps(results), True
    entries: list[tuple[bool, bytes, int]] = []
    buffers: list[Buffer] = []
    for position, result in enumerate(results):
        has_raised, (data, *others) = _dump_result(result, None if note is None else functools.partial(note, position))
        entries.append((has_raised, bytes(data), len(others)))
        buffers += others
    return [pickle.dumps(entries, PICKLE_PROTOCOL), *buffers], False


def _dump_result(result: object, note: Callable[[], str] | None) -> tuple[bool, list[Buffer]]:
    """Pickle `result`. Returns a pair: True if the task has failed, and a list (the pickle and its buffers).

    A task whose result cannot be pickled has failed, too. If the task has failed, the list has the pickled error.
    """
    if type(result) is Failure:
        return True, result.payload
    try:
        return False, dumps(result)
    except Exception as error:  # noqa: BLE001  # a user's `__reduce__` may raise anything
        culprit = find_culprit(result)
        reason = f"{culprit}: {describe(error)}" if culprit else describe(error)
        failure: BaseException = UnpicklableResultError(reason, represent(result))
    except BaseException as error:  # noqa: BLE001  # `sys.exit` in a `__reduce__` is the task's error too
        failure = error
    return True, dump_exception(failure, "" if note is None else note())


def parts_of_results(payload: Sequence[Buffer], count: int) -> list[tuple[bool, list[Buffer]]]:
    """Split `payload`, which `dump_results` has made of `count` results that it has pickled one by one.

    Returns a pair for each result: True if its task has failed, and the pickle of the result or of the error with its
    buffers. Raises `ValueError` if `payload` has another number of results, and may raise any error if `payload` is
    damaged.
    """
    entries: list[tuple[bool, bytes, int]] = loads(payload[:1])
    if len(entries) != count:
        raise ValueError(f"{len(entries)} results and not {count}")
    buffers = iter(payload[1:])
    return [(has_raised, [data, *itertools.islice(buffers, others)]) for has_raised, data, others in entries]


def _itself(error: BaseException) -> BaseException:
    return error


class _WithoutSetters:
    """Pickles the exception `error`. Unpickling gives the exception, and sets its attributes without `__setattr__`.

    The `__setattr__` of a frozen dataclass raises, so such an exception with fields cannot be unpickled in the usual
    way.
    """

    def __init__(self, error: BaseException) -> None:
        self._parts = error.__reduce__()

    def __reduce__(self) -> tuple[Any, ...]:
        return _exception_of, tuple(self._parts)


def _exception_of(make: Callable[..., BaseException], arguments: Any, state: Any = None) -> BaseException:
    error = make(*arguments)
    error.__dict__.update(state or {})
    return error


def dump_exception(error: BaseException, note: str = "") -> list[Buffer]:
    """Pickle `error`, its type and message as text, the text of its traceback, and `note` for its `__notes__`.

    Returns a list with the pickle and its buffers, which `load_exception` reads. If `error` cannot be pickled, or its
    pickle does not give the same type again, a `TaskError` takes its place.
    """
    name, text = describe(error), traceback_text(error)
    for how in (_itself, _WithoutSetters):
        # All errors are suppressed, because a user's exception may raise anything when it is pickled.
        with contextlib.suppress(BaseException):
            inner = [bytes(part) for part in dumps(how(error))]
            if type(loads(inner)) is type(error):
                return dumps((inner, name, text, note))
    inner = [bytes(part) for part in dumps(TaskError(f"{name} (the exception itself cannot be pickled)"))]
    return dumps((inner, name, text, note))


def load_exception(payload: Sequence[Buffer]) -> BaseException:
    """Return the exception in `payload`, which `dump_exception` has made. Errors of unpickling are not raised.

    The `__cause__` of the exception has the text of the traceback in the worker, as in `multiprocessing.Pool`. Its
    `__notes__` end with the note, unless the exception refuses notes. If `payload` cannot be unpickled, or has no
    exception, returns a `TaskError`.
    """
    try:
        inner, name, text, note = loads(payload)
    except BaseException as failure:  # noqa: BLE001  # not a payload of `dump_exception`
        return TaskError(f"a task raised an exception that cannot be read here: {represent(failure)}")
    try:
        error: BaseException = loads(inner)
        # The cause is not set by an assignment, because an assignment runs a user's `__setattr__`, which may raise. For
        # example, a frozen dataclass raises.
        _set_cause(error, RemoteTraceback(text))
    except BaseException as failure:  # noqa: BLE001  # a user's exception may raise anything when it is unpickled
        error = TaskError(f"a task raised {name}, which cannot be unpickled here: {represent(failure)}")
        error.__cause__ = RemoteTraceback(text)
    if note:
        # The note is added here and not in the worker, in which a task may raise one object again and again.
        with contextlib.suppress(BaseException):
            error.add_note(note)
    return error


# The setter of `__cause__`. The setter raises `TypeError` if the object is no exception.
_set_cause: Callable[[BaseException, BaseException], None] = BaseException.__dict__["__cause__"].__set__

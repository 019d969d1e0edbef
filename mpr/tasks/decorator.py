"""Turns a function into a task that may run in any process, by the decorator `@mpr.task`.

A generator or coroutine runs step by step. Its times, prefix and recording are set only during a step, so the steps of
several tasks may alternate in one thread.

Covers: plain functions, methods, generators, coroutines and async generators, and how a decorated function is pickled.
Does not cover: one run of a task (`execution.py`), `SharedRecording.wrap` (`wrapped.py`).
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import FunctionType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from mpr.errors import ConfigError
from mpr.sdk import forks  # noqa: F401  # imported before a fork, so that the forked process knows that it is one
from mpr.tasks import prefix
from mpr.tasks.current import TaskOptions
from mpr.tasks.function_like import FunctionLike
from mpr.threads import aside
from mpr.transport.connection_info import ConnectionInfo
from mpr.user_code import is_a

if TYPE_CHECKING:
    from mpr.tasks.execution import Call, Execution


P = ParamSpec("P")
R = TypeVar("R")

# The name of an attribute of each decorated function. The attribute holds the original function and the options.
_MARK = "__mpr_task__"
_EXECUTION = "mpr.tasks.execution"


@overload
def task(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def task(
    *, name: str | None = None, entity_path_prefix: str | None = None, timeline: str | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    entity_path_prefix: str | None = None,
    timeline: str | None = None,
) -> Any:
    """Turn a function into a task, whose rows go to the recording that its process inherited.

    The rows of a task are those that the function logs by `rr.log` without an argument `recording`. The function may be
    a plain function, a generator, an `async def`, an async generator, or a method. It may be called directly, be the
    target of a `multiprocessing.Process` or of a thread, or run in any pool of processes.

    When the function has returned or raised, its rows are in every durable sink (such as a file). In a worker of
    `mpr.Pool`, they are there when the pool's caller gets the result. If the function has raised, the text of the
    exception is in the recording, too, at the entity path `mpr/tasks/<name>`, and the exception has a note that names
    the task (in a pool, the task of the pool).

    The function starts without any times set. After the call, the times of its caller are set again. If another
    decorated or wrapped function calls it in the same thread, it is a part of that task. If an undecorated task of a
    pool calls it, it is a task of its own. If no open recording on this machine was inherited, the function logs to the
    current recording.

    In the process that has made the recording, threads that the body starts do not log to that recording, but to the
    recording that is current in these threads.

    Parameters
    ----------
    function:
        The function; None if only keywords are given.
    name:
        The task's name; by default the function's qualified name.
    entity_path_prefix:
        A path that is put before every entity path that the body logs, such as `"run/{index}"`. The path may have the
        fields `{name}`, `{index}`, `{attempt}` and `{worker}` of `mpr.CurrentTask` (`{worker}` is 0 if there is no
        recording to join), `{task}` (name and index with a slash between them) and `{pid}`. Other fields are arguments
        of the function, such as `{cam_id}` or `{config.cam_id}`. A slash in the value of a field is escaped. Other
        tasks and threads that the body starts log without this path.
    timeline:
        The name of a timeline. Every row of the body has the task's index (`mpr.CurrentTask.index`) on this timeline.

    Returns
    -------
    The decorated function, or a decorator if only keywords are given.

    Raises
    ------
    ConfigError
        If one of the parameters cannot be used, for example because a field of the path is no argument of the function.
        A call of the function raises this if a field such as `{config.cam_id}` has no value.
    JoinError
        A call raises this if the inherited recording is open, but its process does not answer. The first call waits for
        120 s, and later calls for 5 s. Also raised if gevent or eventlet has replaced the process's threads.
    DeliveryError, RecordingClosedError
        A call raises these if the function has returned, but the sinks did not get its rows. If the function itself has
        raised, this loss is only logged. A call also raises these if the task gets no index before the function begins.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if isinstance(function, staticmethod | classmethod):
            inside: Callable[..., Any] = type(function)(decorate(function.__func__))
            return inside
        if not callable(function):
            raise ConfigError(f"@mpr.task is for functions, got {function!r}")
        own_name = getattr(function, "__qualname__", type(function).__qualname__)
        options = TaskOptions(
            function=own_name,
            name=own_name if name is None else name,
            entity_path_prefix=entity_path_prefix,
            timeline=timeline,
        )
        if entity_path_prefix is not None:
            prefix.check(entity_path_prefix, function)
        if "rerun" in sys.modules:
            # Watch times from now on, because the times of a caller are restored after the call.
            from mpr.producer import router

            router.install_times()
        return decorated(function, options)

    return decorate if function is None else decorate(function)


def decorated(
    function: Callable[..., Any], options: TaskOptions, config: ConnectionInfo | None = None
) -> Callable[..., Any]:
    """Return `function` as a task with `options`.

    The task logs to the recording of `config`, or to the inherited recording if `config` is None. The result is a
    coroutine function, a generator function or an async generator function if `function` is one.
    """
    # The interpreter may close a coroutine or a generator at its exit, when the globals of this module are gone.
    # Nothing can be delivered then.
    is_exit = sys.is_finalizing

    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Execution:
        fields = prefix.arguments_of(options.entity_path_prefix, function, args, kwargs)
        return _begin(options, config, fields, (args, kwargs))

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_coroutine(*args: Any, **kwargs: Any) -> Any:
            execution = begin(args, kwargs)
            try:
                with execution.capture():
                    result = await _Steps(function(*args, **kwargs), execution)
            except BaseException as error:
                if not is_exit():
                    await _close(execution, error)
                raise
            await execution.close_in_loop(None)
            return result

        wrapper: Callable[..., Any] = call_coroutine

    elif inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        def call_async_generator(*args: Any, **kwargs: Any) -> Any:
            return _drive(function(*args, **kwargs), lambda: begin(args, kwargs))

        wrapper = call_async_generator

    elif inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def call_generator(*args: Any, **kwargs: Any) -> Any:
            with _Executing(begin(args, kwargs)) as execution:
                return (yield from _Steps(function(*args, **kwargs), execution))

        wrapper = call_generator

    else:

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with _Executing(begin(args, kwargs)) as execution, execution.step():
                return function(*args, **kwargs)

        wrapper = call

    if config is None and not _is_being_defined(function):
        wrapper = _Renamed(wrapper, function, options)
    setattr(wrapper, _MARK, (function, options))
    return wrapper


def _is_being_defined(function: Callable[..., Any]) -> bool:
    """Return True if `function` is a plain function that pickle cannot find by its name.

    During `@mpr.task`, the name is not set yet. Later, the name leads to the decorated function, which pickle then
    finds. A local function is never found, and cloudpickle pickles it by value.
    """
    return isinstance(function, FunctionType) and _found_at(function) is not function


def _found_at(function: Any) -> Any:
    found: Any = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return found


class _Renamed(FunctionLike):
    """A decorated function that pickle may not find by its name.

    The name leads to the undecorated `function`, or `function` is no plain function. So this object is pickled as
    `function` and the options, unless the name leads to this object: `detect = mpr.task(detect)`.
    """

    __slots__ = ("_made_of",)

    def __init__(self, call: Callable[..., Any], function: Callable[..., Any], options: TaskOptions) -> None:
        FunctionLike.__init__(self, call, call)
        self._made_of = function, options

    def __reduce__(self) -> Any:
        if _found_at(self) is self:
            # The wrapper has taken the name of the function: `detect = mpr.task(detect)`.
            return self.__qualname__
        return decorated, self._made_of

    def __repr__(self) -> str:
        return f"<mpr.task {self._made_of[0]!r}>"


def undecorated(function: Callable[..., Any]) -> tuple[Callable[..., Any], TaskOptions]:
    """Return the original function of the decorated `function`, and the options of the decorator.

    If `function` is not decorated, return `function` itself, and options that have only its name.
    """
    found: tuple[Callable[..., Any], TaskOptions] | None = getattr(function, _MARK, None)
    if found is not None:
        return found
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return function, TaskOptions(function=name, name=name)


def _begin(options: TaskOptions, config: ConnectionInfo | None, arguments: dict[str, Any], call: Call) -> Execution:
    # Imported only when a task runs, so that a module which defines decorated functions needs no SDK and no ZeroMQ.
    if _EXECUTION not in sys.modules:
        # In another thread, because a handler of a signal in this one could raise, or run a task, in mid-import. Some
        # packages cannot be imported again after that.
        aside(lambda: importlib.import_module(_EXECUTION))
    from mpr.tasks.execution import Execution

    return Execution(options, config, arguments, call)


class _Executing:
    """Closes the execution of a task at the end of the `with` block, also if the block raises."""

    # Not `contextlib.contextmanager`, because it sets attributes of an exception, which a user's exception may refuse.
    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def __enter__(self) -> Execution:
        return self._execution

    def __exit__(
        self,
        kind: object,
        error: BaseException | None,
        trace: object,
        _is_exit: Callable[[], bool] = sys.is_finalizing,
    ) -> None:
        # `_is_exit` is a default value, because at the exit of the interpreter the globals of this module may be gone.
        if not _is_exit():
            self._execution.close(error)


async def _close(execution: Execution, error: BaseException) -> None:
    """Close `execution`, the run of a coroutine or async generator that has raised `error`.

    The event loop runs other coroutines meanwhile, except if the coroutine was closed or `error` ends the program.
    """
    if is_a(error, (GeneratorExit, KeyboardInterrupt, SystemExit)):
        # Not `await`, because the coroutine was closed, or the event loop ends.
        execution.close(error)
    else:
        await execution.close_in_loop(error)


class _Steps(Generator[Any, Any, Any]):
    """Runs the generator or coroutine `body`, and sets the context of the task only during its steps."""

    def __init__(self, body: Generator[Any, Any, Any] | Coroutine[Any, Any, Any], execution: Execution) -> None:
        self._body = body
        self._execution = execution

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def send(self, value: Any, /) -> Any:
        return self._step(self._body.send, value)

    def throw(self, *error: Any) -> Any:
        return self._step(self._body.throw, *error)

    def _step(self, step: Callable[..., Any], *args: Any, _is_exit: Callable[[], bool] = sys.is_finalizing) -> Any:
        # `_is_exit` is a default value for the same reason as in `_Executing`.
        if _is_exit():
            return step(*args)
        with self._execution.step():
            return step(*args)


class _Part:
    """Awaits `body`, the result of `__anext__`, `asend`, `athrow` or `aclose` of an async generator, in steps."""

    def __init__(self, body: Any, execution: Execution) -> None:
        self._body = body.__await__()
        self._execution = execution

    def __await__(self) -> Generator[Any, Any, Any]:
        with self._execution.capture():
            return (yield from _Steps(self._body, self._execution))


async def _drive(
    body: AsyncGenerator[Any, Any], begin: Callable[[], Execution], is_exit: Callable[[], bool] = sys.is_finalizing
) -> AsyncGenerator[Any, Any]:
    """Run the async generator `body` as a task, and yield its values.

    `begin()` makes the execution of the task. Values and exceptions that the caller sends reach `body`. `is_exit()`
    returns True if the interpreter is at its exit.
    """
    execution = begin()
    try:
        value = await _Part(body.__anext__(), execution)
        while True:
            try:
                sent = yield value
            except GeneratorExit as error:
                if is_exit():
                    raise
                # Unlike a coroutine, an async generator may await while it is closed.
                await _Part(body.aclose(), execution)
                await execution.close_in_loop(error)
                raise
            except BaseException as error:  # noqa: BLE001  # the body gets every exception that is thrown in
                value = await _Part(body.athrow(error), execution)
            else:
                value = await _Part(body.asend(sent), execution)
    except StopAsyncIteration:
        await execution.close_in_loop(None)
    except BaseException as error:
        if not is_exit():
            await _close(execution, error)
        raise

"""Calls code of a user in threads of mpr and in the main loop of a worker, so that its exceptions do not end them.

Covers: texts of exceptions and other objects, blocks that may raise anything or fork, and the logger of mpr.
Does not cover: unpickling (`processes/pickling.py`), and the task itself (`worker/loop.py`).

Code of a user runs in unexpected places: `str(error)`, `if error:`, a callback, a handler of `logging`. Such code may
raise anything, also `SystemExit`. An uncaught exception would end the thread, and all calls that wait for the thread
would hang. So the functions of this module turn the exception into a text or a line in the log.

In the main thread, an exception that is no `Exception` may come from Ctrl-C, so it is raised again (`passes`). Workers
ignore Ctrl-C, so there every exception is an error of the task.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, NoReturn, ParamSpec

P = ParamSpec("P")

# These are read by the descriptors of Python's own classes, because a metaclass or an exception of a user may define
# properties with the same names.
_qualname = type.__dict__["__qualname__"].__get__
_module = type.__dict__["__module__"].__get__
_trace = BaseException.__dict__["__traceback__"].__get__


def passes(error: BaseException) -> bool:
    """Return True if mpr must raise `error` again, because it may come from Ctrl-C or another signal's handler.

    Returns False for an `Exception`, outside the main thread, and in a process that ignores Ctrl-C.
    """
    return (
        not is_a(error, Exception)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    )


def is_a(value: object, kind: type[Any] | tuple[type[Any], ...]) -> bool:
    """Return True if the type of `value` is `kind` or a subclass of `kind`. `kind` may be a tuple of classes.

    Unlike `isinstance`, this function does not read `value.__class__`, which may be a property in a user's class.
    """
    return issubclass(type(value), kind)


# --- texts --------------------------------------------------------------------------------------------------------


def type_name(kind: type[Any]) -> str:
    """Return the name of the class `kind` with its module, such as 'queue.Empty'. `builtins` is left out."""
    name, module = plain_name(kind), _module(kind)
    return name if type(module) is not str or module == "builtins" else writable(f"{module}.{name}")


def plain_name(kind: type[Any]) -> str:
    """Return the qualified name of the class `kind` without its module, such as 'Outer.Inner'."""
    return writable(_qualname(kind))


def describe(error: BaseException) -> str:
    """Return the type and the text of `error`, such as 'ValueError: no digits'.

    If the `__str__` of the exception raises, a fixed text replaces its text.
    """
    try:
        text = f"{error}"
    except BaseException as failure:
        if passes(failure):
            raise
        text = "(its text cannot be made)"
    return f"{type_name(type(error))}: {writable(text)}"


def represent(value: object) -> str:
    """Return `repr(value)`. If a user's `__repr__` raises, return a text with the type of `value`."""
    try:
        return writable(f"{value!r}")
    except BaseException as failure:
        if passes(failure):
            raise
        return describe(value) if is_a(value, BaseException) else f"<{type_name(type(value))}>"  # type: ignore[arg-type]  # `is_a` is no check for mypy


def traceback_text(error: BaseException) -> str:
    """Return the text, with the traceback, that Python prints for an uncaught `error`.

    If a method or attribute of the exception raises, return a shorter text.
    """
    try:
        return writable("".join(traceback.format_exception(type(error), error, _trace(error))))
    except BaseException as failure:
        if passes(failure):
            raise
    # The exception has attributes that `traceback` cannot use. The text still shows the traceback, if that is possible.
    lines = ["(no traceback can be made)\n"]
    with contextlib.suppress(Exception):
        lines = ["Traceback (most recent call last):\n", *traceback.format_tb(_trace(error))]
    return "".join(lines) + describe(error) + "\n"


def writable(text: str) -> str:
    """Return `text` with an escape sequence for each lone surrogate, because messages and rows must be valid UTF-8."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


# --- blocks -------------------------------------------------------------------------------------------------------


class Contained:
    """A context manager that logs an exception of its block, and lets the program continue after the block.

    An exception that may come from a signal leaves the block (see `passes`). A process that the block forks in a
    thread of mpr ends with the block (see `end_forked`).

    Parameters
    ----------
    text, args:
        The message of the log, and the arguments for its placeholders. The traceback is added.
    """

    def __init__(self, text: str, *args: object) -> None:
        self._text = text
        self._args = args
        #: Whether the block has raised.
        self.raised: bool = False

    def __enter__(self) -> Contained:
        self._pid = os.getpid()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        end_forked(self._pid, error)
        if error is None:
            return False
        self.raised = True
        if passes(error):
            return False
        # The text is made here, because a formatter of `logging` would call the code of the exception again.
        log.error(f"{self._text}\n%s", *self._args, traceback_text(error))
        return True


def end_forked(pid: int, error: BaseException | None) -> None:
    """End this process if it was forked within a block that runs code of a user in a thread of mpr.

    Otherwise the copy of the thread would receive messages that are for the parent, and calls of the parent would hang.

    `pid` is the id of the process that has entered the block. `error` is the exception that the block has raised, or
    None.
    """
    if os.getpid() != pid and threading.current_thread().name.startswith("mpr-"):
        exit_with(error)


def exit_with(error: BaseException | None) -> NoReturn:
    """End this forked process with Python's exit code for a program that ends with `error` (None: no error).

    The text of `error` is written to stderr. Nothing else is flushed, because all buffers, sockets and recordings of
    this process are copies of its parent's.
    """
    code = 0 if error is None else 1
    # `error` belongs to the user's code, so reading its attributes or making its text may raise anything.
    with contextlib.suppress(BaseException):
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            code = (error.code or 0) & 0xFF
        elif error is not None and sys.__stderr__ is not None:
            # Not `sys.stderr`, because that may be a stream that logs into the recording.
            text = f"{error.code}\n" if isinstance(error, SystemExit) else traceback_text(error)
            sys.__stderr__.write(text)
    os._exit(code)


class _Around:
    def __init__(self, parts: Iterator[None]) -> None:
        self._parts = parts

    def __enter__(self) -> None:
        next(self._parts)

    def __exit__(self, *_: object) -> None:
        next(self._parts, None)


def around(parts: Callable[P, Iterator[None]]) -> Callable[P, _Around]:
    """Return a function that makes a context manager from `parts`, for blocks that run code of a user.

    `parts` is a generator function with one `yield`. The code behind the `yield` runs after the block, also if the
    block raises. Unlike `contextlib.contextmanager`, this decorator sets no attribute of the exception, because a
    user's exception may be a frozen dataclass.
    """

    @functools.wraps(parts)
    def make(*args: P.args, **kwargs: P.kwargs) -> _Around:
        return _Around(parts(*args, **kwargs))

    return make


# --- the log ------------------------------------------------------------------------------------------------------


class _Log(logging.LoggerAdapter[logging.Logger]):
    """The logger `mpr`.

    If a user's handler or filter raises, the message and the error are printed to stderr, unless
    `logging.raiseExceptions` is false. Only an exception that may come from a signal is raised (see `passes`).
    """

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        try:
            if self.logger.isEnabledFor(level):
                self.logger.log(level, msg, *args, stacklevel=2, **kwargs)
        except BaseException as error:
            if passes(error):
                raise
            _print_instead(msg, args, error)


def _print_instead(msg: object, args: tuple[object, ...], error: BaseException) -> None:
    """Print the message `msg % args`, and the `error` of a user's handler or filter of logging, to the original stderr.

    Prints nothing if `logging.raiseExceptions` is false.
    """
    if not logging.raiseExceptions:
        return
    # Not `sys.stderr`, because the program may have replaced it.
    if sys.__stderr__ is not None:
        with contextlib.suppress(Exception):
            text = str(msg) % args if args else str(msg)
            sys.__stderr__.write(f"{text}\n(a handler or filter of logging has raised {describe(error)})\n")


#: The logger of mpr. All messages of mpr go through it.
log: Final = _Log(logging.getLogger("mpr"), None)

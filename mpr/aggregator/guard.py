"""Cuts off a producer if its bytes cause an error in the parent, so that other producers are not affected.

Methods of an intake that process the bytes of a producer are decorated with `guarded`, or call `cut_off` themselves.
Most sinks copy rows without a check, so `rrd/checks.py` checks the rows before a sink gets them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from mpr.errors import FormatError, SinkError
from mpr.transport.messages import Hello
from mpr.transport.packing import MessageError
from mpr.user_code import represent

P = ParamSpec("P")

# Process ids of Linux have 22 bits at most. Those of other systems have fewer than 32.
_PID_MAX = 2**31
# The longest name of a producer (characters). ZeroMQ allows names of 255 bytes.
_ROUTE_MAX = 255
# The longest text of an error that is logged and written into the recording (characters).
_TEXT_MAX = 500


class Guarded(Protocol):
    """An object that processes the messages and rows of one producer, such as `ProducerIntake`."""

    def cut_off(self, error: Exception) -> None:
        """Use nothing more that the producer sends, because its bytes have caused `error`."""


G = TypeVar("G", bound=Guarded)


def guarded(method: Callable[Concatenate[G, P], None]) -> Callable[Concatenate[G, P], None]:
    """Decorate `method`: if the bytes of the producer make it raise an error, call `cut_off` with this error.

    Errors that a sink or this process has caused (`is_own_fault`) are raised to the caller.
    """

    @functools.wraps(method)
    def guard(self: G, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            if is_own_fault(error):
                raise
            self.cut_off(error)

    return guard  # type: ignore[return-value]  # `wraps` hides that it is called as a method


def hear(call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call `call`, a method of a listener. Raises `MessageError` unchanged, other exceptions as `RuntimeError`.

    The pool's scheduler has caused the other exceptions. `guarded` raises a `RuntimeError` again, and so does not cut
    off the producer.
    """
    try:
        call(*args, **kwargs)
    except MessageError:
        raise
    except Exception as error:
        raise RuntimeError(f"the pool's scheduler failed: {represent(error)}") from error


def is_own_fault(error: Exception) -> bool:
    """Return True if `error` counts as caused by a sink or this process, and not by the bytes of a producer.

    Such an error is a `SinkError`, an `AssertionError`, or a `RuntimeError`, which threads, locks and `hear` raise. An
    error of a subclass of `RuntimeError` counts as caused by the bytes.
    """
    return isinstance(error, SinkError | AssertionError) or type(error) is RuntimeError


def describe(error: Exception) -> str:
    """Return why the bytes of a producer cannot be used, as the end of a sentence whose subject is the producer.

    An example is 'sent what is no message: ...'. A long text is cut.
    """
    if isinstance(error, FormatError):
        text = f"sent data that is no Rerun stream: {error}"
    elif isinstance(error, MessageError):
        text = f"sent what is no message: {error}"
    else:
        text = f"sent data that cannot be used: {error!r}"
    # The text may have parts of the bytes. A lone surrogate in them is replaced, because a recording cannot store it.
    return text[:_TEXT_MAX].encode(errors="backslashreplace").decode()


def check_hello(hello: Hello) -> None:
    """Raise `MessageError` if the process id, the worker's number or the producer's name in `hello` is impossible."""
    if not 0 < hello.pid < _PID_MAX or not 0 <= hello.worker < 2**63:
        raise MessageError("a hello with impossible numbers")
    if not 0 < len(hello.route) <= _ROUTE_MAX or not hello.route.isascii() or not hello.route.isprintable():
        raise MessageError("a hello with an impossible route")

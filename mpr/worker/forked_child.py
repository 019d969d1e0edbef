"""Ends a process that a task has forked, as soon as the process returns from the task: `if os.fork() == 0: return`.

Such a process is a copy of the worker. If the copy continued, it would send a second result for the task, and would run
tasks that the worker runs, too.

Covers: noticing the fork, and the exit code. Does not cover: forked processes that log (`producer/membership.py`).
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from mpr.user_code import traceback_text

#: Whether this process was forked by the worker. It is a list with one value, because reading a list takes 0.02 us per
#: task, but `os.getpid()` takes up to 0.3 us.
is_child: list[bool] = [False]
_watched = False


def watch() -> None:
    """Set `is_child[0]` to False in this process, and to True in each process that this process forks later."""
    global _watched
    is_child[0] = False
    if not _watched:
        # The hook is registered only once, because it cannot be removed. A forked child inherits the hook.
        _watched = True
        os.register_at_fork(after_in_child=_note_fork)


def _note_fork() -> None:
    is_child[0] = True


def exit_with(error: BaseException | None) -> NoReturn:
    """End this process with the exit code of a Python program that ends with the exception `error`.

    If `error` is None, the exit code is 0. For any other `error`, the text that Python would print is written to
    `sys.__stderr__`. Nothing is flushed, because all buffers, sockets and recordings of this process are copies of the
    worker's.
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

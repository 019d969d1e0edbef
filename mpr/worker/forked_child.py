"""Ends a process that a task has forked as soon as it comes back out of the task: `if os.fork() == 0: return`.

Such a process is a copy of the worker. If it ran on, it would send a result of its own for the task, and take tasks
that its parent runs.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import NoReturn

#: Whether this process was forked by the worker. A list, because reading it takes 0.02 us per task, and `os.getpid()`
#: up to 0.3 us.
is_child = [False]
_watched = False


def watch() -> None:
    """Let `is_child[0]` be true in every process that this one forks."""
    global _watched
    is_child[0] = False
    if not _watched:
        # There is no way to take it back. A worker that was forked from a worker has it already.
        _watched = True
        os.register_at_fork(after_in_child=_note_fork)


def _note_fork() -> None:
    is_child[0] = True


def exit_with(error: BaseException | None) -> NoReturn:
    """End this process with the exit code that Python gives a program that ends with `error`, or without one.

    It flushes nothing, because all buffers, sockets and recordings in it are copies of the worker's.
    """
    code = 0 if error is None else 1
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = (error.code or 0) & 0xFF
    elif error is not None and sys.__stderr__ is not None:
        # To the stream itself: `sys.stderr` may be one that logs into the recording.
        with contextlib.suppress(Exception):
            if isinstance(error, SystemExit):
                sys.__stderr__.write(f"{error.code}\n")
            else:
                traceback.print_exception(error, file=sys.__stderr__)
    os._exit(code)

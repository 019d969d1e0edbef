"""Notices processes that a task has forked, so that each of them ends when it leaves the task.

A task may do this: `if os.fork() == 0: return`. Such a process is a copy of the worker. If it continued, it would send
a second result for the task, and would run tasks that the worker runs, too.

Covers: noticing the fork.
Does not cover: the exit (`user_code.exit_with`), and forked processes that log (`producer/membership.py`).
"""

from __future__ import annotations

import os

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

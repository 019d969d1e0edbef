"""Names places in the code at which a test can make a process fail.

A failpoint is a place, a number and an action. `MPR_FAILPOINTS=worker.noted:3:kill` kills each worker when the worker
reaches the place `worker.noted` for the third time. `worker.noted@1:3:kill` kills only the worker with number 1, and no
worker that replaces it. Several failpoints are separated by `;`. The actions are the keys of `_ACTIONS`. Only tests set
this environment variable. Without the variable, `reach` only looks into an empty dict.

A worker writes its rows into an outbox, a file in memory from which the parent copies them to the sinks (files and
viewers). It writes each result into a result journal before it sends the result. The parent reads this journal if the
worker dies. A work item is one or several tasks that a worker gets in one message.

| place | the moment |
|---|---|
| `worker.started` | the worker has sent its first message (`Hello`), but its initializer has not run |
| `worker.claimed` | the worker has noted that it begins a work item, but has begun no task of it |
| `worker.ended` | the tasks of a work item have returned, but their rows are not flushed |
| `worker.flushed` | the rows of these tasks are in the outbox |
| `worker.noted` | the result is in the result journal, but was not sent |
| `worker.sent` | the result was sent, or waits in the worker until it is sent together with later results |
| `worker.roll` | the worker is about to make another outbox, because its outbox has become large |
| `worker.opened` | the parent has opened the next outbox, but the SDK still writes into the old one |
| `worker.rolled` | the SDK writes into a new outbox, but the parent does not know yet that the old one is complete |
| `parent.segment` | the parent is about to give rows to the sinks |
| `parent.result` | the sinks have the rows of a result, but the user does not have the result |
| `parent.telemetry` | a pool is about to write its telemetry, which are rows about its workers and tasks |
| `parent.closing` | all rows are in the file, but the footer is not |
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable

_VARIABLE = "MPR_FAILPOINTS"

PLACES = (
    "worker.started",
    "worker.claimed",
    "worker.ended",
    "worker.flushed",
    "worker.noted",
    "worker.sent",
    "worker.roll",
    "worker.opened",
    "worker.rolled",
    "parent.segment",
    "parent.result",
    "parent.telemetry",
    "parent.closing",
)


def _die(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _exit() -> None:
    os._exit(3)


def _raise() -> None:
    raise RuntimeError("a failpoint")


def _raise_io_error() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


_ACTIONS: dict[str, Callable[[], None]] = {
    "kill": _die(signal.SIGKILL),
    "segv": _die(signal.SIGSEGV),
    "term": _die(signal.SIGTERM),
    "stop": _die(signal.SIGSTOP),
    "int": _die(signal.SIGINT),
    "alrm": _die(signal.SIGALRM),
    "exit": _exit,
    "raise": _raise,
    "eio": _raise_io_error,
}

# The failpoints of this process: for each place, how often the process must still reach the place, and the action.
_armed: dict[str, tuple[int, Callable[[], None]]] = {}


def arm(worker: int) -> None:
    """Read the failpoints of this process from the environment variable `MPR_FAILPOINTS`.

    `worker` is the number of this worker, or 0 in the parent. Raises `ValueError` if a failpoint has a wrong form or an
    unknown place, and `KeyError` if its action is unknown.
    """
    _armed.clear()
    for each in filter(None, os.environ.get(_VARIABLE, "").split(";")):
        where, times, action = each.split(":")
        place, _, only = where.partition("@")
        if place not in PLACES:
            raise ValueError(f"{_VARIABLE}: there is no place {place!r}, only {', '.join(PLACES)}")
        if place.startswith("worker") == bool(worker) and only in ("", str(worker)):
            _armed[place] = int(times), _ACTIONS[action]


def reach(place: str) -> None:
    """Count that this process has reached `place`. If the number of the failpoint there is reached, do its action.

    The action is done only once. If no failpoint is at `place`, does nothing.
    """
    if place in _armed:
        times, act = _armed.pop(place)
        if times > 1:
            _armed[place] = times - 1, act
        else:
            act()

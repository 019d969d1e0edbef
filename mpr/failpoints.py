"""Names places in the code where a test can make a process fail.

`MPR_FAILPOINTS=worker.noted:3:kill` kills each worker when the worker reaches the place `worker.noted` for the third
time. `worker.noted@1:3:kill` kills only the worker with number 1, and no worker that replaces it. Several failpoints
are separated by `;`. Only tests set the variable. Without it, a place costs one look into an empty dict.

| place | the moment |
|---|---|
| `worker.started` | the worker has sent its first message (`Hello`), but its initializer has not run |
| `worker.claimed` | the worker has begun a work item, but no task of it |
| `worker.ended` | the tasks of a work item have returned, but their rows are not flushed |
| `worker.flushed` | the rows are in the outbox |
| `worker.noted` | the result is in the result journal |
| `worker.sent` | the result was sent, or waits in the worker until it is sent together with later results |
| `worker.roll` | the worker is about to make its next outbox |
| `worker.opened` | the parent has opened the next outbox, but the SDK still writes into the old one |
| `worker.rolled` | the SDK writes into a new outbox, but the parent does not know yet that the old one is complete |
| `parent.segment` | the parent is about to hand a segment to the sinks |
| `parent.result` | the sinks have the rows of a result, but the user does not have the result |
| `parent.telemetry` | a pool is about to write rows about itself |
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

# The failpoints of this process: for each place, how often the process must still reach it, and the action.
_armed: dict[str, tuple[int, Callable[[], None]]] = {}


def arm(worker: int) -> None:
    """Read the failpoints of this process from the environment.

    `worker` is the number of the worker that this process is, or 0 in the parent.
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
    """Count that this process has reached `place`. If a failpoint is due there, do its action, such as a kill."""
    if place in _armed:
        times, act = _armed.pop(place)
        if times > 1:
            _armed[place] = times - 1, act
        else:
            act()

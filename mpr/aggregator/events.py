"""Defines events: messages that threads of the parent send to the aggregator's thread.

The aggregator's thread receives events and the messages of producers by one call (`UpstreamServer.receive`). A *step*
is a function that the aggregator's thread calls for another thread (`steps.py`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """Says that the process of worker number `worker` has ended. `exitcode` is None if it is unknown."""

    worker: int
    exitcode: int | None


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Asks the aggregator's thread to end after it has read all messages, run all steps and reaped all dead workers."""


@dataclass(frozen=True, slots=True)
class Wakeup:
    """Wakes the aggregator's thread, because another thread has added a step."""


Event: TypeAlias = WorkerExited | StopRequested | Wakeup

_STOP = b"stop"


def encode(event: Event) -> bytes:
    """Return `event` as bytes for `UpstreamServer.post`."""
    match event:
        case WorkerExited(worker, exitcode):
            return json.dumps([worker, exitcode]).encode()
        case StopRequested():
            return _STOP
        case Wakeup():
            return b""


def decode(data: bytes) -> Event:
    """Return the event from which `encode` has made the bytes `data`."""
    if not data:
        return Wakeup()
    return StopRequested() if data == _STOP else WorkerExited(*json.loads(data))

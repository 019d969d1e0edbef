"""What threads of the parent tell the aggregator, in order with what producers send. It never leaves the process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """The process of worker `worker` has ended with `exitcode`; what it sent came before this."""

    worker: int
    exitcode: int | None


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The recording ends: what was sent before this is the last."""


@dataclass(frozen=True, slots=True)
class Wakeup:
    """There is something to do."""


Event: TypeAlias = WorkerExited | StopRequested | Wakeup

_STOP = b"stop"


def encode(event: Event) -> bytes:
    """`event` for the socket between threads."""
    match event:
        case WorkerExited(worker, exitcode):
            return json.dumps([worker, exitcode]).encode()
        case StopRequested():
            return _STOP
        case Wakeup():
            return b""


def decode(data: bytes) -> Event:
    """The event that `encode` made `data` of."""
    if not data:
        return Wakeup()
    return StopRequested() if data == _STOP else WorkerExited(*json.loads(data))

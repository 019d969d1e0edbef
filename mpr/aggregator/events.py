"""Defines events: messages that threads of the parent send to the aggregator.

Events and the messages of producers come in one queue.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """Reports that the process of worker `worker` has ended with `exitcode`."""

    worker: int
    exitcode: int | None


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Asks the aggregator to end its thread as soon as no message, step or dead worker is left."""


@dataclass(frozen=True, slots=True)
class Wakeup:
    """Reports that a thread has added a step (`steps.py`) for the aggregator's thread."""


Event: TypeAlias = WorkerExited | StopRequested | Wakeup

_STOP = b"stop"


def encode(event: Event) -> bytes:
    """Encode `event` for the socket between threads."""
    match event:
        case WorkerExited(worker, exitcode):
            return json.dumps([worker, exitcode]).encode()
        case StopRequested():
            return _STOP
        case Wakeup():
            return b""


def decode(data: bytes) -> Event:
    """Decode an event that `encode` has encoded."""
    if not data:
        return Wakeup()
    return StopRequested() if data == _STOP else WorkerExited(*json.loads(data))

"""A task as sinks see it that keep the rows of each apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False, kw_only=True, slots=True)
class RunningTask:
    """One attempt at one task.

    Attributes
    ----------
    number:
        Its number in the pool, counted from 0 in the order in which tasks were submitted.
    name:
        Name of the task function.
    index:
        Its index in its call.
    attempt:
        1, and one more for each retry.
    worker, pid:
        Where it runs.
    started_nanos:
        When it began, since the Unix epoch.
    is_over:
        It has returned or raised; no more rows of it come.
    seconds, error:
        How long it took, and what it raised, if anything.
    """

    number: int
    name: str
    index: int
    attempt: int
    worker: int
    pid: int
    started_nanos: int
    is_over: bool = False
    seconds: float = 0.0
    error: str | None = None

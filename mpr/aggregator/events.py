"""Messages that never leave the parent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Died:
    """From the parent's own keeper: worker `worker` has ended with `exitcode`; what it sent came before this."""

    worker: int
    exitcode: int | None


@dataclass(frozen=True, slots=True)
class Nudge:
    """From another thread of the parent: look whether there is something to do."""

"""A pool's workers as its dispatcher sees them: each that is ready, and whoever keeps them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from mpr.parcel import Parcel
from mpr.recent import Recent
from mpr.slate import SlateReader


class Staff(Protocol):
    """Who keeps the workers. Calls come from any thread; only `end_if` may wait, for milliseconds."""

    def note_ready(self) -> None:
        """A worker takes tasks."""

    def replace(self) -> None:
        """One more worker is wanted."""

    def look_soon(self) -> None:
        """Call `Dispatcher.look` now."""

    def end_if(self, pid: int, condition: Callable[[], bool]) -> bool:
        """Stop the worker; end it where `condition()` is true while it stands still, and else let it go on."""

    def memory(self, pid: int) -> int:
        """Resident bytes of the worker."""


@dataclass(slots=True)
class Hand:
    """A worker that is ready: how to reach it, what it is at, and which functions it has."""

    route: str
    pid: int
    slate: SlateReader | None
    turns: int = 0
    functions: Recent[bool] = field(default_factory=Recent)
    #: Why it was ended on purpose: the parcel that it was at, and what its task is told.
    verdict: tuple[Parcel, BaseException] | None = None

"""What all sinks, as the user names them, have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Sink(ABC):
    """Where the data of a recording goes; each kind is a frozen value that pickles."""

    @abstractmethod
    def _places(self) -> tuple[str, ...]:
        """Files and ports that it needs for itself, in words that are the same for two sinks in each other's way."""

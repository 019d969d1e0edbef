"""Decides which attempts of a test are recorded, and which recordings are kept.

The decision depends only on the mode, the number of the attempt, and the outcome.
"""

from __future__ import annotations

from collections.abc import Iterable


def is_recorded(mode: str, attempt: int) -> bool:
    """Return whether the attempt with the number `attempt` (from 0) is recorded."""
    return mode == "on" or mode.startswith("retain") or (mode == "on-first-retry" and attempt == 1)


def is_kept(mode: str, attempt: int, outcome: str) -> bool:
    """Return whether the recording of an attempt that ended with `outcome` is kept."""
    if mode in ("on", "on-first-retry"):
        return True
    # In one mode, an attempt that passed after a failed attempt is kept too, so that both attempts can be compared.
    return outcome in ("failed", "interrupted") or (
        mode == "retain-on-failure-and-retries" and attempt > 0 and outcome == "passed"
    )


def outcome_of(phases: Iterable[str]) -> str:
    """Return the outcome of a test: the worst outcome of its phases."""
    found = set(phases)
    return next((outcome for outcome in ("failed", "interrupted", "skipped") if outcome in found), "passed")

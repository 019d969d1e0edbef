"""Which attempts of a test are recorded, and which recordings stay. Pure: modes and outcomes in, answers out."""

from __future__ import annotations

from collections.abc import Iterable


def is_recorded(mode: str, attempt: int) -> bool:
    """Whether an attempt (from 0) is to be recorded."""
    return mode == "on" or mode.startswith("retain") or (mode == "on-first-retry" and attempt == 1)


def is_kept(mode: str, attempt: int, outcome: str) -> bool:
    """Whether the recording of an attempt stays after it ended with `outcome`."""
    if mode in ("on", "on-first-retry"):
        return True
    # What passes at last is the partner that a flaky failure is compared with.
    return outcome in ("failed", "interrupted") or (
        mode == "retain-on-failure-and-retries" and attempt > 0 and outcome == "passed"
    )


def outcome_of(phases: Iterable[str]) -> str:
    """The outcome of a test whose phases ended so: that of the worst of them."""
    found = set(phases)
    return next((outcome for outcome in ("failed", "interrupted", "skipped") if outcome in found), "passed")

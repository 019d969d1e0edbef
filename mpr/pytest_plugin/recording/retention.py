"""Decides which attempts (executions) of a test are recorded, and which recordings are kept.

The decision depends only on the mode (`--mpr=...`), the number of the attempt, and the outcome. If the process crashes,
the recording stays, because only this process would remove it. `recorder.py` also records tests that use a fixture in
`RECORDED_FIXTURES`, and then removes the recordings that the table does not name.

| mode | recorded attempts | kept recordings |
|---|---|---|
| `off` | none | none |
| `on` | all | all |
| `retain-on-failure` | all | of attempts that failed or were interrupted |
| `retain-on-failure-and-retries` | all | as above, and of attempts after the first that passed |
| `on-first-retry` | the second | all |
"""

from __future__ import annotations

from collections.abc import Iterable


def is_recorded(mode: str, attempt: int) -> bool:
    """Return True if the attempt with the number `attempt` (from 0) is recorded in the mode `mode`."""
    return mode == "on" or mode.startswith("retain") or (mode == "on-first-retry" and attempt == 1)


def is_kept(mode: str, attempt: int, outcome: str) -> bool:
    """Return True if the recording of an attempt is kept. Call this function only for an attempt that is recorded.

    `mode` is the mode, `attempt` the number of the attempt (from 0), and `outcome` a result of `outcome_of`.
    """
    if mode in ("on", "on-first-retry"):
        return True
    # In the mode with "retries", an attempt that passed after a failed one is kept too, so that a user can compare
    # them.
    return outcome in ("failed", "interrupted") or (
        mode == "retain-on-failure-and-retries" and attempt > 0 and outcome == "passed"
    )


def outcome_of(phases: Iterable[str]) -> str:
    """Return the outcome of a test, which is the worst of `phases`, the outcomes of its phases.

    From the worst to the best, the outcomes are "failed", "interrupted", "skipped" and "passed".
    """
    found = set(phases)
    return next((outcome for outcome in ("failed", "interrupted", "skipped") if outcome in found), "passed")

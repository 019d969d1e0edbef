"""Checks of the arguments of `mpr.Pool`."""

from __future__ import annotations

from collections.abc import Iterable

from mpr.errors import ConfigError
from mpr.limits import MIB
from mpr.telemetry.rows import TELEMETRY


def check_maxtasksperchild(limit: object) -> int | None:
    if limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1):
        return limit
    raise ConfigError(f"maxtasksperchild must be None or a number of tasks >= 1, got {limit!r}")


def check_maxmemoryperchild(limit: object) -> int | None:
    if limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit >= MIB):
        return limit
    raise ConfigError(f"maxmemoryperchild must be None or a number of bytes, at least {MIB:,}, got {limit!r}")


def check_telemetry(telemetry: object) -> frozenset[str]:
    """What a pool is to record of itself."""
    if telemetry is True or telemetry is False:
        return frozenset(TELEMETRY if telemetry else ())
    kinds = [telemetry] if isinstance(telemetry, str) else telemetry
    if isinstance(kinds, Iterable):
        found = frozenset(kinds)
        if found <= frozenset(TELEMETRY):
            return found
    raise ConfigError(f"telemetry must be True, False, or some of {', '.join(map(repr, TELEMETRY))}; got {telemetry!r}")


def check_task_timeout(seconds: object) -> float | None:
    if seconds is None:
        return None
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < float("inf"):
        return float(seconds)
    raise ConfigError(f"task_timeout must be None or a number of seconds > 0, got {seconds!r}")


def check_retries(retries: object) -> int:
    if isinstance(retries, int) and not isinstance(retries, bool) and retries >= 0:
        return retries
    raise ConfigError(f"retries must be a number of times >= 0, got {retries!r}")

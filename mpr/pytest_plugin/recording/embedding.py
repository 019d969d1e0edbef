"""Finds out whether the process goes on after this run of pytest.

A program may call `pytest.main` several times, and a test may run pytest in its own process. What a run has started in
the SDK is then ended with the run. At the end of the process, nothing of this is needed. It would only take time, and
the SDK would warn of rows in recordings that a test has left without a sink.
"""

from __future__ import annotations

import sys
from types import FrameType

import pytest

_OF_PYTEST = "_pytest.config"


def process_goes_on(config: pytest.Config) -> bool:
    """Return True if code has called `pytest.main`. Call this function in a hook of the run.

    Returns False if the command `pytest` or `python -m pytest` runs, and in a worker of pytest-xdist.
    """
    if hasattr(config, "workerinput"):
        return False
    frame: FrameType | None = sys._getframe()
    while frame is not None and not (_is_of_pytest(frame) and frame.f_code.co_name in ("main", "_main")):
        frame = frame.f_back
    is_called = frame is not None
    while frame is not None and _is_of_pytest(frame):
        if frame.f_code.co_name.endswith("console_main"):
            return False
        frame = frame.f_back
    return is_called


def _is_of_pytest(frame: FrameType) -> bool:
    return bool(frame.f_globals.get("__name__") == _OF_PYTEST)

"""Finds out whether the process goes on after this run of pytest.

The streams of a run are ended only if the process goes on. At the end of a process, ending them would take time, and
the SDK would warn of rows in recordings without a sink.
"""

from __future__ import annotations

import sys
from types import FrameType

import pytest

_OF_PYTEST = "_pytest.config"


def process_goes_on(config: pytest.Config) -> bool:
    """Return True if this run was started by a call of `pytest.main`, after which the process may go on.

    Returns False if the command `pytest` or `python -m pytest` runs, and in a worker of pytest-xdist. Call this
    function only in a hook of the run, because it searches the call stack for functions of pytest. Outside a hook, it
    returns False.
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

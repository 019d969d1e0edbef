"""Every test ends with a census: mpr must leave no child process, thread, open file or socket folder behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import rerun as rr

from tests import support

# A wrong call of the SDK is an error in this suite, not a warning.
rr.set_strict_mode(True)

# A shell that starts the tests in the background has SIGINT ignored, and every child process would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def census(request: pytest.FixtureRequest) -> Iterator[None]:
    before = support.census()
    yield
    # Pytest keeps what the fixtures have made. A map of memory has a descriptor as long as anything refers to the map.
    request.node.funcargs.clear()
    assert support.left_over(before) == []


@pytest.fixture(params=support.START_METHODS)
def start_method(request: pytest.FixtureRequest) -> str:
    method: str = request.param
    return method

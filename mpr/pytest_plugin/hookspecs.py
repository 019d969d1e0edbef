"""Declares the hooks that mpr calls in a project's `conftest.py` and in other plugins."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.hookspec(firstresult=True)
def pytest_mpr_recording_name(item: pytest.Item, attempt: int) -> str | None:
    """Return a name for the recording of a test. Without this hook, mpr makes the name from the test's node id.

    Parameters
    ----------
    item:
        The test that is about to be set up.
    attempt:
        The number of times that the test has run before: 0 for its first run.

    Returns
    -------
    A file name without `.rrd`, or None. If it is None, pytest asks the next plugin. If all plugins return None, mpr
    makes the name. mpr replaces characters that cause trouble in file names. If a file has the name already, mpr adds a
    number.
    """


def pytest_mpr_recording_finished(item: pytest.Item, path: Path, outcome: str, complete: bool) -> None:
    """Do something with the recording of a test. The recording is closed, and mpr keeps it.

    mpr calls this hook in the process that ran the test, after the test's teardown. If this process crashed, mpr does
    not call the hook.

    Parameters
    ----------
    item:
        The test.
    path:
        The `.rrd` file.
    outcome:
        The worst outcome of the test's phases: "passed", "failed", "skipped", or "interrupted" by Ctrl-C or
        `pytest.exit`.
    complete:
        Whether all rows that were logged are in the file, as far as mpr knows.
    """

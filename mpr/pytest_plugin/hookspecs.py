"""Declares the hooks that mpr calls in a project's `conftest.py` and in other plugins."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.hookspec(firstresult=True)
def pytest_mpr_recording_name(item: pytest.Item, attempt: int) -> str | None:
    """Return a name for the recording of `item`. Without this hook, mpr makes the name from the node id.

    Parameters
    ----------
    item:
        The test that is about to be set up.
    attempt:
        The number of times that the test has run before: 0 for its first run.

    Returns
    -------
    A name without suffix, or None. If it is None, pytest asks the next plugin. If all plugins return None, mpr makes
    the name. Characters that cause trouble in file names are replaced. If the name is taken, a number is added.
    """


def pytest_mpr_recording_finished(item: pytest.Item, path: Path, outcome: str, complete: bool) -> None:
    """Use the recording of `item`, which is closed and kept.

    mpr calls this hook in the process that ran the test, after the test's teardown. mpr does not call this hook if the
    worker crashed.

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

"""Declares the hooks that mpr calls in a project's `conftest.py` and in other plugins."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.hookspec(firstresult=True)
def pytest_mpr_recording_name(item: pytest.Item, attempt: int) -> str | None:
    """Return a name for the recording of `item`, instead of one made of its node id.

    Parameters
    ----------
    item:
        The test that is about to be set up.
    attempt:
        0 for the first run of the test, and one more for each repetition.

    Returns
    -------
    A name without suffix. With None, the next plugin is asked, and mpr makes the name if none returns one. Characters
    that cause trouble in file names are replaced. If the name is taken, a number is added.
    """


def pytest_mpr_recording_finished(item: pytest.Item, path: Path, outcome: str, complete: bool) -> None:
    """Use the recording of `item`, which is closed and kept.

    mpr calls it in the process that ran the test, after its teardown. It does not call it if the worker crashed.

    Parameters
    ----------
    item:
        The test.
    path:
        The `.rrd` file.
    outcome:
        "passed", "failed", "skipped" or "interrupted" (by Ctrl-C or `pytest.exit`): the worst outcome of its phases.
    complete:
        Whether all rows that were logged are in the file, as far as mpr knows.
    """

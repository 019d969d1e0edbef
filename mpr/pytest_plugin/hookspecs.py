"""Declares the hooks that mpr calls in a project's `conftest.py` and in other plugins.

Covers: names for recordings, and an action for each finished recording.
Does not cover: the hooks of pytest that mpr implements (`__init__.py` and `recording/recorder.py`).
"""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.hookspec(firstresult=True)
def pytest_mpr_recording_name(item: pytest.Item, attempt: int) -> str | None:
    """Return a name for the recording of a test, or None. mpr does not call this hook if a marker `mpr` has a `name`.

    Parameters
    ----------
    item:
        The test that is about to be set up.
    attempt:
        The number of times that this process has run the test before: 0 for the first run.

    Returns
    -------
    A file name without `.rrd`, or None. If all plugins return None, mpr makes the name from the test's node id. mpr
    uses at most 100 characters, and replaces characters that some file systems or shells do not accept. mpr adds
    `-retry1`, `-retry2` and so on for later attempts, and if a file of this name exists.
    """


def pytest_mpr_recording_finished(item: pytest.Item, path: Path, outcome: str, complete: bool) -> None:
    """Use the finished recording of a test, for example upload it.

    mpr calls this hook in the process that ran the test, after the test's teardown. mpr does not call this hook if it
    removes the recording, or if the process has crashed.

    Parameters
    ----------
    item:
        The test.
    path:
        The `.rrd` file.
    outcome:
        The worst outcome of the test's phases (setup, call, teardown): "passed", "failed", "skipped", or "interrupted"
        by Ctrl-C or `pytest.exit`.
    complete:
        True if all rows that were logged are in the file, as far as mpr knows.
    """

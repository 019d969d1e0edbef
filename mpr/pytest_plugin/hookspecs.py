"""Declares the hooks that mpr calls in a project's `conftest.py` and in other plugins.

Covers: names for recordings, and an action for each finished recording.
Does not cover: the hooks of pytest that mpr implements (`__init__.py` and `recording/recorder.py`).
"""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.hookspec(firstresult=True)
def pytest_mpr_recording_name(item: pytest.Item, attempt: int) -> str | None:
    """Return a name for the recording of a test, or None.

    mpr calls this hook only for a test that is recorded, and not if a marker `mpr` has a `name`. If a plugin raises an
    exception here, the test is not recorded.

    Parameters
    ----------
    item:
        The test that is about to be set up.
    attempt:
        The number of the attempt: 0 for the first execution of the test.

    Returns
    -------
    A file name without `.rrd`, or None. If all plugins return None, mpr makes the name from the test's node id. mpr
    uses at most 100 characters, and replaces or removes characters that some file systems or shells do not accept. mpr
    adds `-retry1`, `-retry2` and so on for later attempts, and if a file of this name exists. With `--dist each` of
    pytest-xdist, mpr also adds the name of the worker.
    """


def pytest_mpr_recording_finished(item: pytest.Item, path: Path, outcome: str, complete: bool) -> None:
    """Use the finished recording of a test, for example upload it.

    mpr calls this hook in the process that ran the test, after the test's teardown, or at the end of the run if Ctrl-C
    or `pytest.exit` has interrupted the test. mpr does not call this hook if it removes the recording, or if the
    process has crashed. An exception that a plugin raises here counts as an error of mpr, and not of the test.

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
        True if all rows that were logged are in the file, as far as mpr knows. False if mpr knows of missing rows.
    """

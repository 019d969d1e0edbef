"""The hooks that mpr calls for a project's `conftest.py` and for other plugins."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.hookspec(firstresult=True)
def pytest_mpr_recording_name(item: pytest.Item, attempt: int) -> str | None:
    """A name for the recording of `item`, instead of one made of its node id.

    Parameters
    ----------
    item:
        The test that is about to be set up.
    attempt:
        0, and one more for each time that it is run again.

    Returns
    -------
    A name without suffix; None leaves it to the next plugin, and at last to mpr. Characters that a file name had better
    not have are replaced, and a name that is taken gets a number.
    """


def pytest_mpr_recording_finished(item: pytest.Item, path: Path, outcome: str, complete: bool) -> None:
    """The recording of `item` is closed, and is kept.

    Called in the process that ran the test, after its teardown; for a test whose worker crashed it is not called.

    Parameters
    ----------
    item:
        The test.
    path:
        The `.rrd` file.
    outcome:
        "passed", "failed", "skipped" or "interrupted" (by Ctrl-C or `pytest.exit`), by the worst of its phases.
    complete:
        Whether all that was logged is in the file, as far as mpr knows.
    """

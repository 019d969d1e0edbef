"""The folder of a run, and those of the runs before it."""

from __future__ import annotations

from collections.abc import Sequence

from mpr.pytest_plugin.options import Settings
from mpr.pytest_plugin.results import RecordedTest


def finish(settings: Settings, results: Sequence[RecordedTest]) -> None:
    """Nothing more is written into the folder."""

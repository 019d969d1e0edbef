"""What people are told of a run's recordings, where they look: in the terminal, and on the page of a CI job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mpr.pytest_plugin.options import Settings
from mpr.pytest_plugin.results import RecordedTest


def write(
    terminal: Any,
    settings: Settings,
    results: Sequence[RecordedTest],
    errors: Sequence[str],
    shown: Callable[[Path], str],
) -> None:
    """The section of the terminal's summary; none where there is nothing to say."""
    told = [each for each in results if each.path is not None and (settings.summary == "all" or each.failed)]
    if settings.summary == "none" or not (told or errors):
        told = []
    if not told and not errors:
        return
    terminal.section("mpr recordings")
    for each in told:
        assert each.path is not None
        attempt = f" (attempt {each.attempt + 1})" if each.attempt else ""
        terminal.line(f"{each.outcome.upper()} {each.nodeid}{attempt}")
        terminal.line(f"    rerun {shown(each.path)}  ({each.size_bytes / 1000:,.0f} kB)")
        for note in each.notes:
            terminal.line(f"    {note}")
    for error in dict.fromkeys(errors):
        terminal.line(f"mpr: {error}")

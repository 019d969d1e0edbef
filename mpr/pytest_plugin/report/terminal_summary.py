"""Writes the summary of a run's recordings, for the terminal and for the summary page of a job on GitHub Actions.

Covers: which recordings are named, and the text of the summary.
Does not cover: golden recordings, which have a summary of their own (`golden.py`).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mpr.pytest_plugin.results import RecordedTest

# The largest number of recordings that are named in the terminal. The page has all of them.
_MOST_LINES = 10
# The largest number of recordings that are named on the page of a job. With this limit, the text stays below 1 MB,
# which is the most that GitHub accepts.
_MOST_ROWS = 200


def named(which: str, results: Sequence[RecordedTest]) -> list[RecordedTest]:
    """Return those of `results` that the summary names. The summary names only tests whose recording was kept.

    `which` is the value of `--mpr-summary`: "failed", "all" or "none". With "none", the list is empty.
    """
    kept = [each for each in results if each.path is not None]
    return [each for each in kept if which == "all" or (which == "failed" and each.failed)]


def write(
    terminal: Any,
    results: Sequence[RecordedTest],
    troubles: Sequence[str],
    shown: Callable[[Path], str],
    page: Path | None = None,
) -> None:
    """Write the section "mpr recordings" to pytest's summary in the terminal, unless the section would be empty.

    At most ten recordings are named, failed ones first.

    Parameters
    ----------
    terminal:
        The terminal reporter of pytest.
    results:
        The results to name. Each has a recording.
    troubles:
        Errors of mpr itself. Equal texts are written once.
    shown:
        A function that returns a path relative to the folder in which pytest was started.
    page:
        The path of the HTML page of the run, or None if there is none.
    """
    if not results and not troubles:
        return
    terminal.section("mpr recordings")
    for each in sorted(results, key=lambda each: not each.failed)[:_MOST_LINES]:
        assert each.path is not None
        terminal.line(f"{each.outcome.upper()} {_test(each)}")
        terminal.line(f"    rerun {shlex.quote(shown(each.path))}  ({_size(each)})")
        if each.picture is not None:
            terminal.line(f"    picture: {shlex.quote(shown(each.picture))}")
        for note in each.notes:
            terminal.line(f"    {note}")
    if len(results) > _MOST_LINES:
        terminal.line(f"and {len(results) - _MOST_LINES} more")
    if results and page is not None:
        terminal.line(f"all of them: {shlex.quote(shown(page))}")
    for trouble in dict.fromkeys(troubles):
        terminal.line(f"mpr: {trouble}")


def step_summary(
    results: Sequence[RecordedTest],
    troubles: Sequence[str],
    shown: Callable[[Path], str],
    link: Callable[[Path], str | None],
) -> str:
    """Return the summary as Markdown, for the summary page of a GitHub Actions job.

    At most 200 recordings are named, in the order of `results`. `link` returns the URL that opens a recording in a web
    viewer, or None. The other parameters are as in `write`.
    """
    return "\n".join(_markdown(results, troubles, shown, link)) + "\n"


def _markdown(
    results: Sequence[RecordedTest],
    troubles: Sequence[str],
    shown: Callable[[Path], str],
    link: Callable[[Path], str | None],
) -> Iterator[str]:
    yield "### Recordings of tests (mpr)\n"
    if results:
        yield "| outcome | test | error | recording | size |\n|---|---|---|---|---:|"
    for each in results[:_MOST_ROWS]:
        assert each.path is not None
        error = _in_table(each.failures[0].message) if each.failures else ""
        url = link(each.path)
        opens = f"[open]({url}) " if url is not None else ""
        command = f"{opens}`rerun {shlex.quote(shown(each.path))}`"
        yield f"| {each.outcome} | {_in_table(_test(each))} | {error} | {command} | {_size(each)} |"
    if len(results) > _MOST_ROWS:
        yield f"\nand {len(results) - _MOST_ROWS} more."
    for trouble in dict.fromkeys(troubles):
        yield f"\n- {trouble}"


def _in_table(text: str) -> str:
    """Return `text` as code in one cell of a table in Markdown. Backticks in `text` become apostrophes."""
    plain = text.replace("|", "\\|").replace("`", "'")
    return f"`{plain}`"


def _test(result: RecordedTest) -> str:
    return f"{result.nodeid} (attempt {result.attempt + 1})" if result.attempt else result.nodeid


def _size(result: RecordedTest) -> str:
    if result.size_bytes < 1e6:
        return f"{max(1, round(result.size_bytes / 1e3))} kB"
    return f"{result.size_bytes / 1e6:.1f} MB"

"""Describes the result of `mpr run` in words: where the rows are, which may be missing, and how to open the files.

Covers: the texts, and reading the number of rows of a file.
Does not cover: printing the texts (`cli.py`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpr import errors
from mpr.errors import MprError
from mpr.live.statistics import LiveSinkStatistics
from mpr.rrd import framing, manifest

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The state of a recording at the end of a run.

    Attributes
    ----------
    status:
        The exit status of the command. If a signal has ended the command, it is 128 plus the number of the signal.
    failure:
        The error that closing the recording has raised, for example because rows are lost; None if there is none.
    processes, torn_processes, live_sinks:
        The same as in `mpr.RecordingStatistics`.
    paths:
        The files of the recording, as in `SharedRecording.paths`.
    """

    status: int
    failure: MprError | None = None
    processes: int = 0
    torn_processes: int = 0
    paths: Sequence[Path] = ()
    live_sinks: Sequence[LiveSinkStatistics] = ()

    @property
    def exit_status(self) -> int:
        """The exit status of `mpr run`: `status`, or 1 if `status` is 0 and the recording has failed."""
        return self.status or int(self.failure is not None)

    def lines(self) -> Iterator[str]:
        """Yield lines of text for the user: the number of processes, the files with their rows, the live sinks.

        If a file exists, the last line is the command that opens the existing files. If the recording has neither files
        nor live sinks, or if no process has logged, there is only one line, which says so.
        """
        if not self.paths and not self.live_sinks:
            yield "nothing was recorded: Rerun is switched off"
            return
        if not self.processes:
            yield "no process has logged to Rerun (a Python that runs with -I, -E or -S cannot join)"
            return
        yield f"{_plural(self.processes, 'process has', 'processes have')} logged to Rerun"
        found = [path for path in self.paths if path.exists()]
        for path in found:
            count = rows_in(path)
            counted = "no footer" if count is None else _plural(count, "row", "rows")
            yield f"{shown(path)}: {counted}, {_size(path.stat().st_size)}"
        for sink in self.live_sinks:
            missing = f", {sink.missing_chunks:,} missing" if sink.missing_chunks else ""
            yield f"{sink.sink}: {sink.sent_chunks:,} chunks sent{missing}"
        if found:
            yield f"open with: rerun {shlex.join(shown(path) for path in found)}"

    def losses(self) -> Iterator[str]:
        """Yield a line of text that says which rows may be missing. Yield nothing if `torn_processes` is 0."""
        if self.torn_processes:
            incomplete = _plural(self.torn_processes, "process was", "processes were")
            yield f"{incomplete} killed, or still logging at the end: rows of the last moment may be missing"


def rows_in(path: Path) -> int | None:
    """Return the number of rows of users in the finished file at `path`; None if its footer cannot be read.

    The footer, the end of the file, has the numbers of rows. Rows of mpr itself, and properties of the recording, are
    not counted.
    """
    try:
        with path.open("rb") as file:
            start, size = framing.footer_span(file)
            file.seek(start)
            return sum(manifest.row_count(each) for each in manifest.parse(file.read(size)))
    except (OSError, errors.FormatError, KeyError, ValueError):
        return None


def shown(path: Path) -> str:
    """Return `path` as a text: relative to the working directory if it lies there, else unchanged."""
    try:
        here = Path.cwd()
    except FileNotFoundError:
        # The command has deleted the working directory.
        return str(path)
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _plural(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _size(count: int) -> str:
    size, unit = float(count), 0
    while size >= 999.95 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.{min(unit, 1)}f} {_UNITS[unit]}"

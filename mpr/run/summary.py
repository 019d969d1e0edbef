"""What `mpr run` says at its end: what is where, what may be missing, how to open it."""

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
    """The end of a run.

    Attributes
    ----------
    status:
        The command's exit status as a shell has it.
    failure:
        What went wrong with the recording, if anything.
    processes, torn_processes, live_sinks:
        As in `mpr.RecordingStatistics`.
    paths:
        The recording's files.
    """

    status: int
    failure: MprError | None = None
    processes: int = 0
    torn_processes: int = 0
    paths: Sequence[Path] = ()
    live_sinks: Sequence[LiveSinkStatistics] = ()

    @property
    def exit_status(self) -> int:
        """The command's own, where that is no success; else 1 where the recording has failed."""
        return self.status or int(self.failure is not None)

    def lines(self) -> Iterator[str]:
        """What there is, for people."""
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
        """What may be missing, for people."""
        if self.torn_processes:
            incomplete = _plural(self.torn_processes, "process was", "processes were")
            yield f"{incomplete} killed, or still logging at the end: rows of the last moment may be missing"


def rows_in(path: Path) -> int | None:
    """How many rows users have logged to a finished file, by its manifest; None where it has none."""
    with path.open("rb") as file:
        try:
            start, size = framing.footer_span(file)
            file.seek(start)
            return sum(manifest.row_count(each) for each in manifest.parse(file.read(size)))
        except (OSError, errors.FormatError, KeyError, ValueError):
            return None


def shown(path: Path) -> str:
    """`path` as one types it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _plural(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _size(count: int) -> str:
    size, unit = float(count), 0
    while size >= 999.95 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.{min(unit, 1)}f} {_UNITS[unit]}"

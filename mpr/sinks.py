"""Sinks as the user names them: frozen values that say where the data goes; the writers are made by the recording."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mpr.errors import ConfigError

Sink: TypeAlias = "FileSink"

# What a default file name has none of.
_UNUSUAL = re.compile(r"[^A-Za-z0-9_\-\[\]]")


@dataclass(frozen=True, kw_only=True)
class FileSink:
    """One `.rrd` file with the rows of every worker.

    The rows of a result in hand are in the file; another process can read them at that moment (`rr.chunk.RrdReader`
    by `.stream()`, or the viewer). The file takes its name with the first rows, so a run that fails before does no
    harm to a file that is there; until then the data is in `.<name>.part` beside it.

    Parameters
    ----------
    path:
        The file; its folder must exist. An existing file is replaced.

    Raises
    ------
    ConfigError
        If the path is empty, a folder, a URL, or of another type.
    """

    path: str | os.PathLike[str]

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike) or not os.fspath(self.path):
            raise ConfigError(f"FileSink needs the path of a file such as 'run.rrd', got {self.path!r}")
        if "://" in os.fspath(self.path):
            raise ConfigError(f"{self.path!r} is no path of a file, and this version writes files only")
        path = Path(self.path)
        if path.is_dir():
            raise ConfigError(f"FileSink needs the path of a file, and {str(path)!r} is a folder")


def as_sinks(sinks: object, application_id: str, recording_id: str) -> tuple[Sink, ...]:
    """The sinks that the user gave: one or several values or paths; a new file in the working directory for None."""
    if sinks is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        # A recording id may have any character.
        name, short = (_UNUSUAL.sub("_", part) for part in (application_id, recording_id[:8]))
        return (FileSink(path=Path.cwd() / f"{name}-{stamp}-{short}.rrd"),)
    if isinstance(sinks, str | os.PathLike | FileSink):
        sinks = [sinks]
    if not isinstance(sinks, Sequence):
        raise ConfigError(f"sinks must be a list such as [mpr.FileSink(path='run.rrd')], got {sinks!r}")
    found: list[Sink] = []
    for sink in sinks:
        if isinstance(sink, str | os.PathLike):
            sink = FileSink(path=sink)
        if not isinstance(sink, FileSink):
            raise ConfigError(f"{sink!r} is no sink: give a path or mpr.FileSink(path=...)")
        found.append(sink)
    if not found:
        raise ConfigError("sinks is empty, so all data would be lost: give at least one, or None for a new file")
    # The folder's real name; a link in the place of the file itself is replaced, and is no second name of it.
    paths = [Path(sink.path).parent.resolve() / Path(sink.path).name for sink in found]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"two sinks would write {str(path)!r}")
    return tuple(found)

"""Sinks as the user names them: frozen values that say where the data goes; the writers are made by the recording."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpr.errors import ConfigError
from mpr.live_sinks import GrpcServerSink, GrpcSink, SpawnViewerSink, WebViewerSink
from mpr.sink import Sink

#: Sinks for recordings that are given none.
SINKS_VARIABLE = "MPR_SINKS"
# What may have a port behind a colon.
_WORDS: dict[str, Callable[..., Sink]] = {
    "serve": lambda port=9876: GrpcServerSink(port=port),
    "web": lambda port=9090: WebViewerSink(web_port=port),
    "spawn": lambda port=0: SpawnViewerSink(port=port),
}

# What a default file name has none of.
_UNUSUAL = re.compile(r"[^A-Za-z0-9_\-\[\]]")


@dataclass(frozen=True, kw_only=True)
class FileSink(Sink):
    """One `.rrd` file with the rows of every worker.

    The rows of a result in hand are in the file; another process can read them at that moment (`rr.chunk.RrdReader`
    by `.stream()`, or the viewer). The file takes its name with the first rows, so a run that fails before does no
    harm to a file that is there; until then the data is in `.<name>.part` beside it.

    Parameters
    ----------
    path:
        The file; its folder must exist. An existing file is replaced.
    write_footer:
        Whether the file ends with a manifest of its chunks, as in `rr.FileSink`. While it grows, that takes about 250
        bytes of memory per chunk, the rest of it waits on the disk; at the end it takes 2 to 5 kB per chunk for a
        moment, and a task of its own (`chunksize=1`) is a chunk per entity at least. Without it the file can be read
        from front to back only, and `rerun rrd verify` refuses it.
    compact:
        Whether small chunks are put together at the end, as by `rerun rrd optimize`, which writes the file once more.

    Raises
    ------
    ConfigError
        If the path is empty, a folder, a URL, or of another type; if a compact file is to have no footer.
    """

    path: str | os.PathLike[str]
    write_footer: bool = True
    compact: bool = False

    def __post_init__(self) -> None:
        if self.compact and not self.write_footer:
            raise ConfigError("a compact file has a footer: give FileSink either compact=True or write_footer=False")
        if not isinstance(self.path, str | os.PathLike) or not os.fspath(self.path):
            raise ConfigError(f"FileSink needs the path of a file such as 'run.rrd', got {self.path!r}")
        if "://" in os.fspath(self.path):
            raise ConfigError(f"{self.path!r} is a URL, and FileSink needs the path of a file")
        path = Path(self.path)
        if path.is_dir():
            raise ConfigError(f"FileSink needs the path of a file, and {str(path)!r} is a folder")

    def _places(self) -> tuple[str, ...]:
        # The folder's real name; a link in the place of the file itself is replaced, and is no second name of it.
        return (str(Path(self.path).parent.resolve() / Path(self.path).name),)


@dataclass(frozen=True, kw_only=True)
class DirectorySink(Sink):
    """A folder with a recording of its own for each task: the usual way to turn a data set into episodes.

    The recording of a task has the rows that the task has logged, an id and a name of its own, and as properties what
    ran where, how long, and how it ended. Its file is finished before the task's result is handed over. A task that
    logs nothing has no file. What belongs to no task (the parent's rows, an initializer's) is in `shared.rrd`.

    Parameters
    ----------
    path:
        The folder, made if it is missing. Files of the same names are replaced, others are left alone.
    name:
        Name of a task's file, with these to be filled in as by `str.format`: `task`, the task's number in the pool from
        0; `name`, the function's name; `index`, its index in its call; `attempt` and `worker`. Of two files that would
        have the same name, the second gets a number.

    Raises
    ------
    ConfigError
        If the path is empty, a file, a URL, or of another type, or if `name` is no such name of a file.
    """

    path: str | os.PathLike[str]
    name: str = "{task:06d}-{name}.rrd"

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike) or not os.fspath(self.path):
            raise ConfigError(f"DirectorySink needs the path of a folder such as 'episodes', got {self.path!r}")
        if "://" in os.fspath(self.path):
            raise ConfigError(f"{self.path!r} is a URL, and DirectorySink needs the path of a folder")
        if Path(self.path).exists() and not Path(self.path).is_dir():
            raise ConfigError(f"DirectorySink needs the path of a folder, and {str(self.path)!r} is a file")
        try:
            example = self.name.format(task=0, name="function", index=0, attempt=1, worker=1)
        except (AttributeError, IndexError, KeyError, ValueError) as error:
            raise ConfigError(
                f"{self.name!r} cannot be filled in ({error!r}): "
                "use {task}, {name}, {index}, {attempt} and {worker}"
            ) from None
        if os.sep in example or not example.endswith(".rrd") or example.startswith("."):
            raise ConfigError(f"{self.name!r} is no name of an .rrd file: it would be {example!r}")

    def _places(self) -> tuple[str, ...]:
        return (str(Path(self.path).resolve()),)


def as_sinks(sinks: object, application_id: str, recording_id: str) -> tuple[Sink, ...]:
    """The sinks that the user gave: values, paths, URLs. For None a new file in the working directory."""
    if sinks is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        # A recording id may have any character.
        name, short = (_UNUSUAL.sub("_", part) for part in (application_id, recording_id[:8]))
        return (FileSink(path=Path.cwd() / f"{name}-{stamp}-{short}.rrd"),)
    if isinstance(sinks, str | os.PathLike | Sink):
        sinks = [sinks]
    if not isinstance(sinks, Sequence):
        raise ConfigError(f"sinks must be a list such as [mpr.FileSink(path='run.rrd')], got {sinks!r}")
    found = [_as_sink(sink) for sink in sinks]
    if not found:
        raise ConfigError("sinks is empty, so all data would be lost: give at least one, or None for a new file")
    places = [place for sink in found for place in sink._places()]
    for place in places:
        if places.count(place) > 1:
            raise ConfigError(f"two sinks would use {place!r}")
    return tuple(found)


def sinks_of_environment() -> list[Sink] | None:
    """What `MPR_SINKS` says, a list with commas; None where it is not set or empty."""
    words = [word.strip() for word in os.environ.get(SINKS_VARIABLE, "").split(",")]
    try:
        return [sink_of_word(word) for word in words if word] or None
    except ConfigError as error:
        raise ConfigError(f"{SINKS_VARIABLE}: {error}") from None


def sink_of_word(word: str) -> Sink:
    """The sink that a word outside of Python stands for: a path, a URL, `serve`, `web` or `spawn`."""
    name, _, port = word.partition(":")
    if name not in _WORDS:
        return _as_sink(word)
    if port and not port.isdecimal():
        raise ConfigError(f"{word!r} should be {name!r} or {name}:<port>")
    return _WORDS[name](*([int(port)] if port else []))


def sink_of_path(path: str | os.PathLike[str]) -> Sink:
    """A file, or with a slash at its end a folder with a file per task."""
    if isinstance(path, str) and path.endswith(os.sep):
        return DirectorySink(path=path)
    return FileSink(path=path)


def _as_sink(sink: object) -> Sink:
    """A sink that the user gave as a value or as a path."""
    if isinstance(sink, Sink):
        return sink
    if isinstance(sink, str) and "://" in sink:
        return GrpcSink(url=sink)
    if isinstance(sink, str | os.PathLike):
        return sink_of_path(sink)
    raise ConfigError(f"{sink!r} is no sink: give a path, a viewer's URL, or mpr.FileSink(path=...)")

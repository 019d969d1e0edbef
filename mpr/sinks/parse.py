"""Makes sinks from objects, paths, URLs and words that a user or an environment variable gives."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mpr.errors import ConfigError
from mpr.files import odd_kind
from mpr.sinks.base import Sink, SinkLike
from mpr.sinks.directory import DirectorySink
from mpr.sinks.file import FileSink
from mpr.sinks.viewers import GrpcServerSink, GrpcSink, SpawnViewerSink, WebViewerSink

#: The environment variable with the sinks for recordings that are given no sinks.
SINKS_VARIABLE = "MPR_SINKS"
# The words for sinks. A word may be followed by a colon and a port.
_WORDS: dict[str, Callable[..., Sink]] = {
    "serve": lambda port=9876: GrpcServerSink(port=port),
    "web": lambda port=9090: WebViewerSink(web_port=port),
    "spawn": lambda port=0: SpawnViewerSink(port=port),
}

# The sink of mpr for each sink class of the Rerun SDK. An object of the SDK does not tell its path or URL.
_COUNTERPARTS = {
    "FileSink": "mpr.FileSink('run.rrd')",
    "GrpcSink": "mpr.GrpcSink('rerun+http://<host>:<port>/proxy')",
    "GrpcServerSink": "mpr.GrpcServerSink(port=9876)",
    "BinaryStream": "mpr.BinaryStreamSink()",
}

# The characters that are replaced in a default file name.
_UNUSUAL = re.compile(r"[^A-Za-z0-9_\-\[\]]")


def as_sinks(sinks: SinkLike | Sequence[SinkLike] | None, application_id: str, recording_id: str) -> tuple[Sink, ...]:
    """Return the sinks for `sinks`: a `Sink` object, a path or a URL, or a sequence of these.

    If `sinks` is None, the only sink is a new file in the working directory. The name of the file has the application
    id, the time, and the first characters of the recording id. Raises `ConfigError` in these cases:

    - An item is no sink, or its path or URL cannot be used.
    - A path ends neither with `.rrd` nor with `/`.
    - There is no item.
    - Two sinks need the same file or port.
    - A path is relative, and the working directory was deleted.
    """
    try:
        return _checked(sinks, application_id, recording_id)
    except FileNotFoundError as error:
        raise ConfigError("a sink needs an absolute path, because the working directory was deleted") from error


def _checked(sinks: object, application_id: str, recording_id: str) -> tuple[Sink, ...]:
    if sinks is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        # Unusual characters are replaced, because a recording id may have any character.
        name, short = (_UNUSUAL.sub("_", part) for part in (application_id, recording_id[:8]))
        return (FileSink(path=Path.cwd() / f"{name}-{stamp}-{short}.rrd"),)
    if isinstance(sinks, str | os.PathLike | Sink):
        sinks = [sinks]
    if not isinstance(sinks, Sequence):
        raise _no_sink(sinks)
    found = [_as_sink(sink) for sink in sinks]
    if not found:
        raise ConfigError("sinks is empty, so all data would be lost: give at least one, or None for a new file")
    places = [place for sink in found for place in sink._places()]
    for place in places:
        if places.count(place) > 1:
            raise ConfigError(f"two sinks would use {place!r}")
    return tuple(found)


def sinks_of_environment() -> list[Sink] | None:
    """Return the sinks in the environment variable `MPR_SINKS`; None if the variable is not set or names no sink.

    The value of the variable is words as in `sink_of_word`, separated by commas. Raises `ConfigError` if a word is no
    sink.
    """
    words = [word.strip() for word in os.environ.get(SINKS_VARIABLE, "").split(",")]
    try:
        return [sink_of_word(word) for word in words if word] or None
    except ConfigError as error:
        raise ConfigError(f"{SINKS_VARIABLE}: {error}") from None


def sink_of_word(word: str) -> Sink:
    """Return the sink for a word of a command line: a path, a URL, `serve`, `web` or `spawn`.

    A colon and a port may follow `serve`, `web` and `spawn`. Raises `ConfigError` if `word` is no sink.
    """
    name, _, port = word.partition(":")
    if name not in _WORDS:
        return _as_sink(word)
    if port and not port.isdecimal():
        raise ConfigError(f"{word!r} should be {name!r} or {name}:<port>")
    return _WORDS[name](*([int(port)] if port else []))


def sink_of_path(path: str | os.PathLike[str]) -> Sink:
    """Return a `DirectorySink` if `path` is a str that ends with a slash, else a `FileSink`.

    Raises `ConfigError` if the sink cannot use the path.
    """
    if isinstance(path, str) and path.endswith(os.sep):
        return DirectorySink(path=path)
    return FileSink(path=path)


def _as_sink(sink: object) -> Sink:
    """Return the sink for a `Sink` object, a path or a URL.

    Raises `ConfigError` for anything else, and if the path or URL cannot be used.
    """
    if isinstance(sink, Sink):
        return sink
    if isinstance(sink, str) and "://" in sink:
        return GrpcSink(sink)
    if isinstance(sink, str | os.PathLike):
        _check_kind_of_path(os.fspath(sink))
        return sink_of_path(sink)
    raise _no_sink(sink)


def _check_kind_of_path(path: object) -> None:
    """Raise `ConfigError` if `path` is not a str, or ends neither with '/' nor with `.rrd`.

    An empty path, a device and a FIFO raise nothing here, because `FileSink` refuses them.
    """
    if not isinstance(path, str):
        raise ConfigError(f"{path!r} is no path of a sink: give a str or a pathlib.Path")
    if path.endswith(os.sep) or Path(path).suffix.lower() == ".rrd" or not path:
        return
    if Path(path).is_dir():
        raise ConfigError(f"{path!r} is a folder: give '{path}{os.sep}' for one file per task in this folder")
    if odd_kind(Path(path)):
        # `FileSink` refuses a device, and says which device it is.
        return
    word = path.partition(":")[0]
    if word in _WORDS:
        raise ConfigError(
            f"{path!r} is a word for {SINKS_VARIABLE}: in Python, give mpr.{type(_WORDS[word]()).__name__}()"
        )
    stem = path.removesuffix(Path(path).suffix)
    raise ConfigError(
        f"{path!r} does not say whether it is a file or a folder: give '{stem}.rrd' for one file with all rows, or "
        f"'{stem}{os.sep}' for a folder with one file per task (mpr.FileSink({path!r}) writes a file of any name)"
    )


def _no_sink(value: object) -> ConfigError:
    """Return the error for `value`, which is no sink. The text of the error names a sink that can be used instead."""
    # Not `isinstance` with the SDK's classes, because a wrong value must not import the SDK.
    kind = value if isinstance(value, type) else type(value)
    if kind.__module__.startswith("rerun") and kind.__name__ in _COUNTERPARTS:
        return ConfigError(
            f"a {kind.__name__} of the Rerun SDK belongs to one process: give {_COUNTERPARTS[kind.__name__]}, whose "
            "rows come from all processes"
        )
    if isinstance(value, type) and issubclass(value, Sink):
        return ConfigError(f"mpr.{value.__name__} is a class, and no sink: call it, as in mpr.{value.__name__}(...)")
    return ConfigError(f"{value!r} is no sink: give a path, a viewer's URL, or a sink such as mpr.FileSink('run.rrd')")

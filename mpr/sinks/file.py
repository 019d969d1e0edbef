"""Defines `FileSink`, which writes one `.rrd` file with the rows of all workers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from mpr.errors import ConfigError, SinkError
from mpr.files import odd_kind
from mpr.rrd.writer import FileWriter
from mpr.sinks.base import OpenContext, Sink
from mpr.sinks.decoding import DecodingWriter
from mpr.sinks.per_recording import NewFile, PerRecordingWriter


@dataclass(frozen=True, kw_only=True)
class FileSink(Sink):
    """One `.rrd` file with the rows of all workers.

    When a caller gets the result of a task, the rows of that task are in the file. Another process can then read them,
    with `rr.chunk.RrdReader(path).stream()` or the viewer. With `route="direct"`, the rows are in the file only when
    the recording is closed. The file gets its final name with the first rows. Until then it is named `.<name>.part`, so
    that an older file stays if a run fails before its first rows. If the file cannot be made, opening the recording
    raises `SinkError`. A recording that a task makes itself is in another file, for example in `run-<recording id>.rrd`
    beside `run.rrd`.

    Parameters
    ----------
    path:
        The path of the file. If its folder is missing, the folder is made. An existing file is replaced. If the path is
        a link, the file that the link leads to is replaced, and the link stays.
    write_footer:
        Whether the file ends with a manifest (a table of its chunks), as with `rr.FileSink`. A chunk is some rows of
        one entity. The manifest takes about 250 bytes of memory per chunk while the file grows, and 2 to 5 kB per chunk
        for a short time when the file is closed. Without the manifest, a program can read the file only from front to
        back, and `rerun rrd verify` refuses the file.
    compact:
        Whether `rerun rrd optimize` merges small chunks when the file is closed. This writes the file a second time.

    Raises
    ------
    ConfigError
        If `path` has a wrong type, is empty, has a null character, or is a folder, a FIFO, a device or a URL. Also if
        `compact` is true and `write_footer` is false.
    """

    path: str | os.PathLike[str] = field(kw_only=False)
    write_footer: bool = True
    compact: bool = False

    takes_direct_rows = True

    def __post_init__(self) -> None:
        if self.compact and not self.write_footer:
            raise ConfigError("a compact file has a footer: give FileSink either compact=True or write_footer=False")
        if not isinstance(self.path, str | os.PathLike) or not os.fspath(self.path):
            raise ConfigError(f"FileSink needs the path of a file such as 'run.rrd', got {self.path!r}")
        if "://" in os.fspath(self.path):
            raise ConfigError(f"{self.path!r} is a URL, and FileSink needs the path of a file")
        if "\0" in os.fspath(self.path):
            raise ConfigError(f"{self.path!r} cannot be the path of a file")
        kind = odd_kind(Path(self.path))
        if kind is not None:
            raise ConfigError(f"FileSink needs the path of a file, and {os.fspath(self.path)!r} is {kind}")

    def _places(self) -> tuple[str, ...]:
        return (os.path.realpath(self.path),)

    def open(self, context: OpenContext) -> PerRecordingWriter:
        """Open the file for a new recording, and return its writer. Only mpr itself calls this.

        Raises `SinkError` if the file or its folder cannot be made, or if a setting needs a file format that mpr does
        not know.
        """
        folder = Path(self.path).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(error.errno, f"cannot make the folder {folder}: {error.strerror}") from error
        new_file: NewFile = self._reframing
        if not context.format_is_known:
            if self.compact or not self.write_footer:
                context.check_format("compact and write_footer need")
            new_file = DecodingWriter
        main = new_file(Path(self.path), context.application_id, context.recording_id)
        return PerRecordingWriter(main, context.store, new_file)

    def _reframing(self, path: Path, _application_id: str, _recording_id: str) -> FileWriter:
        """Return a writer that copies frames, with the settings of this sink.

        The ids are not used, because the frames already have them.
        """
        return FileWriter(path, write_footer=self.write_footer, compact=self.compact)

    def check_direct(self) -> None:
        """Raise `ConfigError` if `write_footer` is false. Only mpr itself calls this.

        The reason is that mpr can put the files of the workers together only with their footers.
        """
        if not self.write_footer:
            raise ConfigError(
                "route='direct' needs a footer to put the workers' files together: leave write_footer=True"
            )

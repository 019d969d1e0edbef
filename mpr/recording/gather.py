"""Does the parent's part of `route="direct"`, with which each worker writes its rows into a file of its own.

At the end, the parent copies the frames of these files into the file of the recording. A frame is one message of the
`.rrd` format with its header. If a worker was killed, its file may end within a frame, and only the complete frames are
copied. The parent does not use the programs of the SDK for this, because `rerun rrd merge` holds the whole recording in
memory, and `rerun rrd route` fails if two files have different columns.

Covers: which sinks are refused, the folder of the workers' files, copying these files.
Does not cover: the worker's part (`producer/direct.py`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from mpr import errors
from mpr.aggregator.fanout import Fanout
from mpr.errors import ConfigError, SinkError
from mpr.rrd import checks, compat, framing
from mpr.rrd.checks import FrameCheck
from mpr.rrd.segment import Segment
from mpr.sdk import programs
from mpr.sinks.base import Sink
from mpr.transport.messages import Hello
from mpr.transport.outbox import OutboxReader

# The name of a worker's file: the number of the worker, its process id, and random characters.
_PART = re.compile(r"worker-(\d+)-(\d+)-\w+\.rrd")


def check(chosen: Sequence[Sink]) -> None:
    """Raise an error if a sink in `chosen` cannot be used with `route="direct"`.

    Raises `ConfigError` if workers cannot write to a sink themselves, or if a `FileSink` has `write_footer=False`.
    Raises `SinkError` if a sink is a file, and mpr does not know the file format of the installed SDK.
    """
    for sink in chosen:
        if not sink.takes_direct_rows:
            raise ConfigError(
                "route='direct' lets the workers write files of their own and speak to viewers, and "
                f"{sink.described()} is neither: leave route='funnel', or give sinks=['run.rrd']"
            )
    for sink in chosen:
        sink.check_direct()
    unknown = None if all(sink.is_live for sink in chosen) else compat.format_is_known()
    if unknown is not None:
        raise SinkError(f"route='direct' with a file needs to know the Rerun SDK's file format ({unknown})")


class WorkerFiles:
    """The folder `<path>.parts`, in which each worker has a file.

    Parameters
    ----------
    path:
        The path of the recording's own file.
    has_blueprint:
        True if the user has given the recording a blueprint. Frames that make a worker's blueprint the active one are
        then not copied.

    Raises
    ------
    SinkError
        If the folder cannot be made, or is not empty.
    """

    def __init__(self, path: Path, *, has_blueprint: bool) -> None:
        self.folder: Path = Path(os.path.abspath(path)).with_name(f"{path.name}.parts")
        self._has_blueprint = has_blueprint
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise SinkError(error.errno, f"cannot make the folder {self.folder}: {error.strerror}") from error
        if any(self.folder.iterdir()):
            raise SinkError(
                f"{self.folder} has what the workers of a run have left that did not come to its end: 'mpr recover "
                f"{self.folder}' makes valid files of it, 'rerun rrd merge' one of those. Move or remove the folder"
            )

    def abort(self) -> None:
        """Remove the folder, because the recording cannot start. Raises `OSError` if the folder is not empty."""
        self.folder.rmdir()

    def gather(self, fanout: Fanout) -> None:
        """Copy the workers' files to the durable sinks, which `fanout` writes to.

        Call this when no worker writes any more. If a file or the folder cannot be read, `fanout` gets a `SinkError`,
        which the end of the recording raises. The other files are still copied.
        """
        try:
            paths = sorted(self.folder.iterdir())
        except OSError as error:
            fanout.fail(SinkError(error.errno, f"what workers have written to {self.folder} is gone: {error.strerror}"))
            return
        for path in paths:
            published = _PART.fullmatch(path.name)
            if published is None:
                continue
            try:
                self._take(path, fanout, Hello("", int(published[1]), int(published[2]), "", ""))
            except (OSError, errors.FormatError) as error:
                fanout.fail(SinkError(f"what a worker has written to {path} cannot be read: {error}"))

    def _take(self, path: Path, fanout: Fanout, hello: Hello) -> None:
        reader = _WorkerFileReader(path)
        try:
            if reader.size() <= framing.HEADER_SIZE:
                # The worker was killed before the SDK wrote anything.
                return
            framing.check_header(reader.read(0, framing.HEADER_SIZE))
            frames, _ = framing.scan(reader.read, framing.HEADER_SIZE, reader.size())
            end = frames.pop() if frames and frames[-1].kind == framing.END else None
            footer = None if end is None else checks.closed_footer(reader.read, end, reader.size())
            FrameCheck().check(reader.read, frames)
            checks.check_footer(footer or b"")
            if self._has_blueprint:
                frames = [frame for frame in frames if frame.kind != framing.BLUEPRINT_ACTIVATION]
            outbox = fanout.new_outbox()
            fanout.write(Segment(outbox, reader, frames))
            if footer is not None:
                fanout.add_manifests(hello, outbox, footer)
        finally:
            reader.close()

    def remove(self, files: Sequence[Path]) -> None:
        """Remove the folder with the workers' files, if `rerun rrd verify` accepts all existing `files`.

        `files` are the files of the recording. If one of them is not valid, the folder is kept, and `SinkError` is
        raised.
        """
        for path in files:
            refused = programs.verify(path) if path.exists() else None
            if refused is not None:
                raise SinkError(f"{path} is not valid ({refused}); what the workers have written is in {self.folder}")
        shutil.rmtree(self.folder, ignore_errors=True)


class _WorkerFileReader(OutboxReader):
    """Opens and reads a worker's file, so that a `Segment` can have the file as its source."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

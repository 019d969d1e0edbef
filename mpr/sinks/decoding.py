"""Writes a file by decoding all rows and encoding them again. mpr does so if it does not know the SDK's file format.

The SDK's reader decodes every segment. The parent then sends the chunks to a recording stream, and the SDK writes them
into the file. This is slower than copying (`rrd/writer.py`): 240 to 430 MB/s were measured. Blueprints that workers
send are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mpr.errors import FormatError, SinkError
from mpr.limits import SINK_TIMEOUT_SECS
from mpr.rrd import framing
from mpr.rrd.part_file import PartFile
from mpr.rrd.segment import Segment, StandaloneStreams
from mpr.sdk import encoder, reader

if TYPE_CHECKING:
    import rerun as rr


class DecodingWriter:
    """Writes one `.rrd` file with the SDK's own file sink. The methods do the same as in a `Writer` (`base.py`).

    Parameters
    ----------
    path:
        The path of the finished file.
    application_id, recording_id:
        The ids of the only recording in the file.

    Raises
    ------
    SinkError
        If the file cannot be made, or if another recording writes it.
    """

    def __init__(self, path: Path, application_id: str, recording_id: str) -> None:
        # There is no `ByteLog`, because the SDK writes other bytes into the file than those that `accept` gets.
        self.log: None = None
        self._file = PartFile(path)
        self.path: Path = self._file.path
        self._stream: rr.RecordingStream = encoder.new_stream(application_id, recording_id)
        self._stream.save(self._file.part)

    def open(self, preamble: bytes) -> None:
        self.begin(preamble[: framing.HEADER_SIZE])
        self._send(preamble)

    def begin(self, header: bytes) -> None:
        """Keep `header`, the header of a stream, which the SDK needs before each segment."""
        self._streams = StandaloneStreams(header)

    def accept(self, segment: Segment, *, published: bool) -> None:
        """Write the chunks of `segment`. When this method returns, any process can read the chunks from the file.

        If `published` is true, the file gets its final name. Raises `SinkError` if the file cannot be written, and
        `FormatError` if the SDK cannot decode the segment.
        """
        stream = self._streams.stream(segment)
        if stream:
            self._send(stream)
        if published:
            self._file.publish()

    def _send(self, stream: bytes) -> None:
        try:
            reader.send_decoded(stream, self._stream, blueprints=False)
            self._stream.flush(timeout_sec=SINK_TIMEOUT_SECS)
        except (RuntimeError, ValueError) as error:
            if (damage := reader.damage(stream)) is not None:
                raise FormatError(f"the Rerun SDK cannot decode it: {damage}") from error
            # If the disk is full, the error is raised here, because the SDK reports it only at a flush.
            raise SinkError(f"cannot write {self.path}: {error}; what it has until here is readable") from error

    def add_manifests(self, outbox: int, footer: bytes) -> None:
        """Do nothing, because the SDK makes the manifests of this file itself."""

    def distrust(self) -> None:
        """Do nothing, because the SDK has checked all rows when it decoded them."""

    def rows_of(self, outbox: int, skip: int, *, users_only: bool = True) -> int | None:
        """Return None, because mpr cannot count rows in a format that it does not know."""
        return None

    def timed_rows(self) -> int | None:
        """Return None, because mpr cannot count rows in a format that it does not know."""
        return None

    def close(self) -> None:
        self._stream.disconnect()
        self._file.publish()
        self._file.close()

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def paths(self) -> list[Path]:
        return [self.path]

    @property
    def published(self) -> bool:
        """True if the file has got its final name. An older file with that name, if there was one, is then replaced."""
        return self._file.published

    def abort(self) -> None:
        self._stream.disconnect()
        self._file.close()

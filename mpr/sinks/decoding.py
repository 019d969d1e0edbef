"""The writer that stands in where the SDK's format is not one that `rrd/writer.py` knows: it decodes.

Every segment goes through the SDK's reader and into a recording stream of the parent with the SDK's own file sink, all
by public API. Slower (240 to 430 MB/s), and blueprints that workers send are not kept.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mpr.errors import SinkError
from mpr.limits import SINK_TIMEOUT_SECS
from mpr.rrd import framing
from mpr.rrd.part_file import PartFile
from mpr.rrd.segment import Segment, StandaloneStreams
from mpr.sdk import encoder, reader

if TYPE_CHECKING:
    import rerun as rr


class DecodingWriter:
    """Writes one `.rrd` file by way of the SDK.

    Parameters
    ----------
    path:
        The file to end up at.
    application_id, recording_id:
        Of the one recording.
    """

    def __init__(self, path: Path, application_id: str, recording_id: str) -> None:
        self.path = Path(os.path.abspath(path))
        # What the SDK has written is not what was accepted.
        self.log = None
        self._file = PartFile(self.path)
        self._stream: rr.RecordingStream = encoder.new_stream(application_id, recording_id, send_properties=False)
        self._stream.save(self._file.part)

    def open(self, preamble: bytes) -> None:
        self.begin(preamble[: framing.HEADER_SIZE])
        self._send(preamble)

    def begin(self, header: bytes) -> None:
        """Begin with nothing but a stream's header."""
        self._streams = StandaloneStreams(header)

    def accept(self, segment: Segment, *, published: bool) -> None:
        """Bring the chunks of `segment` into the file; when this returns, any process can read them."""
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
            # The SDK tells of a full disk in the flush, and only there.
            raise SinkError(f"cannot write {self.path}: {error}; what it has until here is readable") from error

    def add_manifests(self, outbox: int, footer: bytes) -> None:
        """The SDK writes its own manifest."""

    def rows_of(self, outbox: int, skip: int) -> int | None:
        """The SDK has them."""
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
        """Whether the file has its name, and a file that was there before is gone."""
        return self._file.published

    def abort(self) -> None:
        self._stream.disconnect()
        self._file.close()

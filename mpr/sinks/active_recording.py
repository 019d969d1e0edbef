"""Uses the active recording of the calling program as a sink.

The *active recording* is the one to which plain `rr.log` logs, for example after `rr.init(...)`. The *ambient
recording* is the recording that the pytest plugin makes of the running test. The ambient recording gets the rows of mpr
if the user has named no sinks, and if no active recording has the ids of mpr's recording.

The SDK's reader decodes the rows, and `rr.send_chunks` sends them. Streams of the parent and recordings that tasks make
themselves are sent by `rr.log_file_from_contents`, and keep their own ids. A separate thread does this, because the
sinks of the active recording may hang. Blueprints that workers send are left out.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpr.errors import FormatError, SinkError
from mpr.limits import SINK_TIMEOUT_SECS
from mpr.rrd import framing
from mpr.rrd.segment import PREAMBLE, Segment, StandaloneStreams
from mpr.sdk import reader
from mpr.sinks.base import OpenContext, Sink, Writer
from mpr.threads import BoundedThread
from mpr.user_code import log as _log

if TYPE_CHECKING:
    import rerun as rr


@dataclass(frozen=True, kw_only=True)
class ActiveRecordingSink(Sink):
    """Stands for the recording to which plain `rr.log` of this process logs, or for the ambient recording.

    The sink is valid only in this process.

    Attributes
    ----------
    application_id, recording_id:
        The ids of the recording of mpr whose rows the sink gets.
    """

    application_id: str
    recording_id: str
    #: Whether this is the ambient recording, which is used because the user has named no sinks.
    is_ambient: bool = False

    def _places(self) -> tuple[str, ...]:
        return (f"the active recording {self.recording_id}",)

    def open(self, context: OpenContext) -> ActiveRecordingWriter:
        """Return a new writer for this sink. Only mpr itself calls this.

        Raises `SinkError` if the active or ambient recording is gone.
        """
        return ActiveRecordingWriter(self)

    def described(self) -> str:
        return "your own active recording (rr.init)"


def find(application_id: str, recording_id: str | None) -> ActiveRecordingSink | None:
    """Return the active recording as a sink if it has these ids, else the ambient recording, else None.

    If `recording_id` is None, the active recording may have any recording id. The ambient recording may have other ids.
    """
    stands_in = current()
    found = _own(application_id, recording_id)
    if found is not None or stands_in is None:
        return found
    return ActiveRecordingSink(
        application_id=application_id,
        recording_id=recording_id or stands_in.get_recording_id() or "",
        is_ambient=True,
    )


def _own(application_id: str, recording_id: str | None) -> ActiveRecordingSink | None:
    rr: Any = sys.modules.get("rerun")
    stream = rr.get_data_recording() if rr is not None else None
    if stream is None or stream.get_recording_id() is None or rr.get_application_id(stream) != application_id:
        return None
    found = stream.get_recording_id()
    if recording_id not in (None, found):
        return None
    return ActiveRecordingSink(application_id=application_id, recording_id=found)


class ActiveRecordingWriter(Writer):
    """Sends rows to the active recording of the calling program, or to the ambient recording.

    If the sinks of that recording need more than `SINK_TIMEOUT_SECS` seconds for one segment, this writer logs a
    warning and sends nothing more. So results do not wait for these sinks. `close` logs how many chunks were not sent.

    Making a writer raises `SinkError` if the active or ambient recording is gone.
    """

    replay_hint = "the rows go to your own active recording, which can show them itself: rr.notebook_show()"

    def __init__(self, sink: ActiveRecordingSink) -> None:
        import rerun as rr

        self._name = (
            "the recording of the test that runs"
            if sink.is_ambient
            else f"the active recording of rr.init({sink.application_id!r})"
        )
        self._published = False
        self._timeout_secs = SINK_TIMEOUT_SECS
        stream = current() if sink.is_ambient else rr.get_data_recording()
        if stream is None:
            raise SinkError(f"{self._name} is gone")
        if sink.is_ambient:
            opened(self)
        self._stream: rr.RecordingStream = stream
        self._gave_up = False
        #: The number of chunks that the recording did not get.
        self.missed: int = 0
        # A separate thread calls the SDK, because such a call may never return.
        self._side = BoundedThread("mpr-active-recording")

    @property
    def name(self) -> str:
        return self._name

    @property
    def published(self) -> bool:
        return self._published

    def open(self, preamble: bytes) -> None:
        """Keep the header of `preamble`, which `accept` puts before each segment for the SDK.

        Nothing of the preamble is sent, because the active or ambient recording has its own properties.
        """
        self._streams = StandaloneStreams(preamble[: framing.HEADER_SIZE])

    def accept(self, segment: Segment, *, published: bool) -> None:
        if segment.telemetry:
            # The user chooses the views of this recording, and telemetry would change them.
            return
        self._published = self._published or published
        chunks = sum(frame.kind == framing.ARROW_MSG for frame in segment.frames)
        if self._gave_up:
            self.missed += chunks
            return
        stream = self._streams.stream(segment)
        if not stream:
            return
        # Streams that the parent makes, and recordings that tasks make themselves, keep their own ids.
        keeps_ids = segment.outbox == PREAMBLE or segment.store is not None
        self._do(lambda: self._send(stream, keeps_ids), chunks)

    def close(self) -> None:
        if not self._gave_up:
            self._do(lambda: self._stream.flush(timeout_sec=self._timeout_secs), 0)
        self._side.close()
        if self.missed:
            _log.warning("mpr: %d chunks did not get into %s", self.missed, self.name)
        closed(self)

    def abort(self) -> None:
        self._side.close()
        closed(self)

    def _do(self, step: Callable[[], None], chunks: int) -> None:
        try:
            has_returned = self._side.do(step, self._timeout_secs)
        except FormatError:
            raise
        except Exception as error:
            raise SinkError(f"cannot write to {self.name}: {error}") from error
        if not has_returned:
            self._gave_up = True
            self.missed += chunks
            _log.warning(
                "mpr: %s has taken nothing for %.0f s; results wait for it no more, and its sinks miss rows",
                self.name,
                self._timeout_secs,
            )

    def _send(self, stream: bytes, keeps_ids: bool) -> None:
        import rerun as rr

        if keeps_ids:
            rr.log_file_from_contents("mpr.rrd", stream, recording=self._stream)
        else:
            # These rows get the ids of the active recording. `log_file_from_contents` is not used for them, because it
            # starts threads of the SDK, and imports may then hang in forked processes.
            try:
                reader.send_decoded(stream, self._stream, blueprints=False)
            except (RuntimeError, ValueError) as error:
                if (damage := reader.damage(stream)) is not None:
                    raise FormatError(f"the Rerun SDK cannot decode it: {damage}") from error
                raise
        # This flush is needed because only a flush reports a full disk.
        self._stream.flush(timeout_sec=self._timeout_secs)


class _System:
    """Keeps `os.getpid` as it is when this module is imported, because a user's test may replace `os.getpid` later."""

    getpid = os.getpid


_current: rr.RecordingStream | None = None
_pid = 0
# The writers to ambient recordings: one per pool or shared recording that is not closed.
_writers: weakref.WeakSet[Any] = weakref.WeakSet()


def set_current(stream: rr.RecordingStream | None) -> None:
    """Make `stream` the ambient recording. If `stream` is None, there is no ambient recording."""
    global _current, _pid
    _current, _pid = stream, _System.getpid()


def current() -> rr.RecordingStream | None:
    """Return the ambient recording, or None if there is none.

    Returns None in a forked child, because the parent's stream does not work there.
    """
    return _current if _pid == _System.getpid() else None


def opened(writer: Any) -> None:
    """Count `writer` as an open writer to an ambient recording, until `closed` is called with this writer."""
    _writers.add(writer)


def closed(writer: Any) -> None:
    """Stop counting `writer` as open. Does nothing if `writer` is not counted."""
    _writers.discard(writer)


def open_writers() -> int:
    """Return how many open shared recordings, including the recordings of pools, write to ambient recordings."""
    return len(_writers)

"""Copies rows to the test's recording from a recording that the test has made itself, by `rr.init(...)`.

Code under test often begins with `rr.init`, which makes another recording the current one. While that recording has no
sink (a destination such as a file), the SDK keeps its rows in memory. At the end of the test, this module reads these
rows, copies them to the test's recording, and puts them back. So a later `rr.save` still finds them. If the recording
has a sink, or may have had one, its rows are not copied. A note in the test's recording says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpr.rrd import framing
from mpr.sdk import reader, recordings, sink_calls
from mpr.sdk.internal import internal
from mpr.sdk.sink_calls import SinkCall

if TYPE_CHECKING:
    import rerun as rr


# If a recording has more bytes than this at the end of a test, it is not copied, and neither is it after later tests.
_MOST_BYTES = 256 * 1024 * 1024


class RrInitRows:
    """Copies the rows of recordings made by `rr.init`, for the tests of one process.

    Parameters
    ----------
    is_ours:
        The function that says whether a recording belongs to this plugin. Its argument is the `inner` of an
        `rr.RecordingStream`.
    """

    def __init__(self, is_ours: Callable[[Any], bool]) -> None:
        self._is_ours = is_ours
        # The ids of recordings that were made after this object, and that have never had a sink. Other recordings are
        # not read, because reading takes the sink away.
        self._without_sink: set[str] = set()
        # The id of the recording that was copied last, and the ids of its chunks that are copied already.
        self._known: tuple[str, set[str]] = ("", set())
        sink_calls.watch_sinks(lambda _call: False, lambda _call: None, self._sink_changed)
        recordings.watch_new_recordings(self._made)

    def _made(self, recording_id: str | None) -> None:
        if recording_id is not None:
            self._without_sink.add(recording_id)

    def _sink_changed(self, call: SinkCall) -> None:
        if call.name != "disconnect":
            self._without_sink.discard(call.recording_id or "")

    def copy_rows(self, stream: rr.RecordingStream) -> str | None:
        """Copy the new rows of the current recording to `stream`, the stream of the test.

        Returns a note that says why, if there are rows that cannot be copied. Otherwise, returns None.
        """
        native, recording_id = recordings.current_recording()
        if native is None or recording_id is None or self._is_ours(native):
            return None
        if recording_id not in self._without_sink:
            return "the current recording is another one, with sinks of its own (rr.init): what went there is not here"
        if recording_id != self._known[0]:
            self._known = (recording_id, set())
        import rerun as rr

        with internal():
            data: bytes = recordings.encoded_rows_of(native).read(flush=True) or b""
            # Reading has given the recording a sink in memory. It is removed, so that the SDK keeps rows again.
            recordings.disconnect(native)
            if not data or len(data) == framing.HEADER_SIZE:
                return None
            chunks = list(reader.chunks_of(data, blueprints=False))
            rr.send_chunks(chunks, recording=recordings.as_stream(native))
            if len(data) > _MOST_BYTES:
                self._without_sink.discard(recording_id)
                return f"rr.init has made a recording of {len(data) / 1e6:.0f} MB: what went there is not here"
            known = self._known[1]
            rr.send_chunks([each for each in chunks if str(each.id) not in known], recording=stream)
            known.update(str(each.id) for each in chunks)
        return None

"""Copies what a test has logged to a recording that it has made current itself, by `rr.init(...)`.

Code that is to be tested often begins with that. As long as such a recording has no sink, the SDK keeps its rows; they
are read at the end of the test, and given back, so that a later `rr.save` still finds them. A recording that has a
sink, or may have got one before anybody looked, is its owner's business, and the test's recording says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpr.rrd import framing
from mpr.sdk import reader, recordings, sink_calls
from mpr.sdk.internal import internal

if TYPE_CHECKING:
    import rerun as rr


# What is copied once per test; a recording that has more by then is left alone.
_MOST_BYTES = 256 * 1024 * 1024


class RrInitRows:
    """Of the tests of one process.

    Parameters
    ----------
    is_ours:
        Whether a recording, by the SDK's handle of it, is one that tests are recorded with.
    """

    def __init__(self, is_ours: Callable[[Any], bool]) -> None:
        self._is_ours = is_ours
        # Recordings that were made since, and have no sink: reading any other one would take its sink away.
        self._without_sink: set[str] = set()
        # The recording whose rows were copied last, and the chunks of it that some test's recording has.
        self._known: tuple[str, set[str]] = ("", set())
        sink_calls.watch_sinks(lambda _call, _recording: False, lambda _call, _recording: None, self._sink_changed)
        recordings.watch_new_recordings(self._made)

    def _made(self, recording_id: str | None) -> None:
        if recording_id is not None:
            self._without_sink.add(recording_id)

    def _sink_changed(self, call: str, recording_id: str | None) -> None:
        if call != "disconnect":
            self._without_sink.discard(recording_id or "")

    def copy_rows(self, stream: rr.RecordingStream) -> str | None:
        """Copy what the current recording has to `stream`; returns what is to be said of it."""
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
            # Back to keeping its rows.
            recordings.disconnect(native)
            if not data or len(data) == framing.HEADER_SIZE:
                return None
            chunks = list(reader.chunks_of(data, blueprints=False))
            owner = rr.RecordingStream._from_native(native)
            rr.send_chunks(chunks, recording=owner)
            if len(data) > _MOST_BYTES:
                self._without_sink.discard(recording_id)
                return f"rr.init has made a recording of {len(data) / 1e6:.0f} MB: what went there is not here"
            known = self._known[1]
            rr.send_chunks([each for each in chunks if str(each.id) not in known], recording=stream)
            known.update(str(each.id) for each in chunks)
        return None

"""Lets what a test starts in other processes log into the test's recording.

| what the test starts | how its rows come |
|---|---|
| `mpr.Pool`, `mpr.SharedRecording` without sinks | the test's recording stands in for the sinks
  (`mpr/sinks/active_recording.py`) |
| `multiprocessing`, `subprocess` with functions decorated by `@mpr.task`, or `mpr.join()` | they inherit a shared
  recording that leads there; it is made as soon as the process has a decorated function, and stays |
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mpr.sinks import active_recording

if TYPE_CHECKING:
    import rerun as rr

    from mpr.producer.propagation import Propagation
    from mpr.pytest_plugin.recording.test_stream import TestStream
    from mpr.recording.shared_recording import SharedRecording


class Children:
    """Of the tests of one process."""

    def __init__(self) -> None:
        # By application id, each with the stream that it leads to.
        self._shared: dict[str, tuple[TestStream, SharedRecording]] = {}
        self._propagation: Propagation | None = None
        self._open_before = 0
        self._welcoming = False
        self._outer: rr.RecordingStream | None = None

    def welcome(self, stream: TestStream) -> None:
        """From now on children log to `stream`."""
        if not self._welcoming:
            # Of a test that runs pytest itself.
            self._outer = active_recording.current()
            self._welcoming = True
        active_recording.set_current(stream.native)
        # Who has no decorated function, and has not joined, pays for neither sockets nor threads.
        if self._propagation is None and "mpr.tasks.decorator" in sys.modules:
            from mpr.producer import propagation
            from mpr.transport import connection_info

            self._propagation = propagation.Propagation(
                connection_info.to_text(self._shared_of(stream).process_config(2))
            )
        self._open_before = active_recording.open_writers()

    def dismiss(self) -> str | None:
        """The test is over; returns what there is to say of children that are not."""
        self._welcoming = False
        active_recording.set_current(self._outer)
        if self._propagation is not None:
            self._propagation.close()
            self._propagation = None
        # Those of fixtures of a wider scope are meant to stay.
        left = active_recording.open_writers() - self._open_before
        if left > 0:
            return f"{left} pools or shared recordings of the test are still open: rows that come later are not here"
        return None

    def close(self) -> None:
        """No test comes any more."""
        shared, self._shared = self._shared, {}
        for _, recording in shared.values():
            recording.finish(failed=True)

    def _shared_of(self, stream: TestStream) -> SharedRecording:
        from mpr.recording.shared_recording import SharedRecording
        from mpr.sinks.active_recording import ActiveRecordingSink

        found = self._shared.get(stream.application_id)
        if found is None or found[0] is not stream:
            sink = ActiveRecordingSink(
                application_id=stream.application_id, recording_id=stream.recording_id, is_ambient=True
            )
            found = (stream, SharedRecording(stream.application_id, recording_id=stream.recording_id, sinks=[sink]))
            self._shared[stream.application_id] = found
        return found[1]

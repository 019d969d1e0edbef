"""Lets processes that a test starts log into the test's recording.

| the test starts | the way of the rows |
|---|---|
| `mpr.Pool`, `mpr.SharedRecording` without sinks | the test's recording takes the place of the sinks
  (`mpr/sinks/active_recording.py`) |
| `multiprocessing`, `subprocess` with functions decorated by `@mpr.task`, or `mpr.join()` | the processes inherit a
  shared recording that leads to the test's; it is made as soon as the process has a decorated function, and stays |
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
    """Leads the rows of child processes to the recording of the running test, in one process."""

    def __init__(self) -> None:
        # The shared recordings by application id, each with the stream to which it leads.
        self._shared: dict[str, tuple[TestStream, SharedRecording]] = {}
        self._propagation: Propagation | None = None
        self._open_before = 0
        self._is_attached = False
        self._outer: rr.RecordingStream | None = None

    def attach(self, stream: TestStream) -> None:
        """Lead the rows of children to `stream` from now on."""
        if not self._is_attached:
            # An outer test, if this pytest runs within a test.
            self._outer = active_recording.current()
            self._is_attached = True
        active_recording.set_current(stream.native)
        # Sockets and threads are only made for a process that has a decorated function, or has joined.
        if self._propagation is None and "mpr.tasks.decorator" in sys.modules:
            from mpr.producer import propagation
            from mpr.recording.shared_recording import runtime_of
            from mpr.transport import connection_info

            self._propagation = propagation.Propagation(
                connection_info.to_text(runtime_of(self._shared_of(stream)).connection_info(2))
            )
        self._open_before = active_recording.open_writers()

    def detach(self) -> str | None:
        """End the way of the rows with the test; return a note if children of the test still run."""
        self._is_attached = False
        active_recording.set_current(self._outer)
        if self._propagation is not None:
            self._propagation.close()
            self._propagation = None
        # Pools and recordings of fixtures with a wider scope were open before the test, and stay.
        left = active_recording.open_writers() - self._open_before
        if left > 0:
            return f"{left} pools or shared recordings of the test are still open: rows that come later are not here"
        return None

    def close(self) -> None:
        """Close the shared recordings after the last test."""
        shared, self._shared = self._shared, {}
        if shared:
            from mpr.recording.shared_recording import runtime_of

            for _, recording in shared.values():
                runtime_of(recording).close(failed=True)

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

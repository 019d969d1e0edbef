"""Lets processes that a test starts log into the test's recording.

- The test starts an `mpr.Pool`, or an `mpr.SharedRecording` without sinks: the test's recording takes the place of the
  sinks (`mpr/sinks/active_recording.py`).
- The test starts processes by `multiprocessing` or `subprocess` that use functions decorated by `@mpr.task`, or call
  `mpr.join()`: these processes inherit a shared recording, whose only sink is the test's recording. The shared
  recording is made as soon as the process of the test has a decorated function. Later tests use the same shared
  recording.
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
    """Leads the rows of the child processes of this process to the recording of the running test."""

    def __init__(self) -> None:
        # The shared recordings by application id, each with the stream that gets the rows.
        self._shared: dict[str, tuple[TestStream, SharedRecording]] = {}
        self._propagation: Propagation | None = None
        self._open_before = 0
        self._is_attached = False
        self._outer: rr.RecordingStream | None = None

    def attach(self, stream: TestStream) -> None:
        """Lead the rows of child processes to `stream` from now on."""
        if not self._is_attached:
            # The recording of an outer test. There is one if this pytest runs within a test.
            self._outer = active_recording.current()
            self._is_attached = True
        active_recording.set_current(stream.public)
        # A shared recording needs sockets and threads. So it is made only if this process has imported `@mpr.task`.
        if self._propagation is None and "mpr.tasks.decorator" in sys.modules:
            from mpr.producer import propagation
            from mpr.recording.shared_recording import runtime_of
            from mpr.transport import connection_info

            self._propagation = propagation.Propagation(
                connection_info.to_text(runtime_of(self._shared_of(stream)).connection_info(2))
            )
        self._open_before = active_recording.open_writers()

    def detach(self) -> str | None:
        """Stop leading rows to the test's recording. Return a note if children of the test still run."""
        self._is_attached = False
        active_recording.set_current(self._outer)
        if self._propagation is not None:
            self._propagation.close()
            self._propagation = None
        # Pools and recordings that were open before the test do not count, because they belong to fixtures with a wider
        # scope.
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

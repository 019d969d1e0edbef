"""Lets pools and child processes of a test log into the test's recording.

There are two cases:

- The test makes an `mpr.Pool` or an `mpr.SharedRecording`, and names no sinks (destinations of rows). The rows then go
  to the test's recording (`mpr/sinks/active_recording.py`).
- The test starts processes by `multiprocessing` or `subprocess`, and these processes call `mpr.join()` or functions
  decorated by `@mpr.task`. The processes inherit an `mpr.SharedRecording`, whose only sink is the test's recording.
  This module makes the shared recording if the process of the test has imported `@mpr.task` before the test, or in its
  setup. Otherwise, the started processes cannot log into the test's recording.

Covers: making the shared recording, and noting pools that are still open when the test ends.
Does not cover: how a child process joins the shared recording (`mpr/producer/propagation.py`).
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
    """Sends the rows of pools and child processes to the recording of the running test, from `attach` to `detach`."""

    def __init__(self) -> None:
        # For each application id: the shared recording that child processes inherit, and the stream that gets the rows.
        self._shared: dict[str, tuple[TestStream, SharedRecording]] = {}
        self._propagation: Propagation | None = None
        self._open_before = 0
        self._is_attached = False
        self._outer: rr.RecordingStream | None = None

    def attach(self, stream: TestStream) -> None:
        """Send the rows of pools and child processes to `stream`, the stream of the running test, from now on.

        Call this method at the start of the test, and again after its setup, which may have imported `@mpr.task`. The
        shared recording for child processes is made here, if this process has imported `@mpr.task`.
        """
        if not self._is_attached:
            # If this pytest runs within a test of another pytest, `_outer` is the recording of that outer test.
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
        """Stop sending rows to the test's recording. Call this method when the test has ended.

        Returns a note if more pools and shared recordings are open now than at the last `attach`, because their later
        rows are not recorded. Otherwise returns None.
        """
        self._is_attached = False
        active_recording.set_current(self._outer)
        if self._propagation is not None:
            self._propagation.close()
            self._propagation = None
        # Pools and recordings that were open before the test do not count, because they belong to fixtures that several
        # tests use.
        left = active_recording.open_writers() - self._open_before
        if left > 0:
            return f"{left} pools or shared recordings of the test are still open: rows that come later are not here"
        return None

    def close(self) -> None:
        """Close the shared recordings that this object has made. Call this method after the last test."""
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

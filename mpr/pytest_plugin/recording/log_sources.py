"""Sends the rows of a test from all sources in one process to the test's recording.

| source of the rows | how the rows get into the recording |
|---|---|
| plain `rr.log` of the test, its fixtures and threads | the test's stream is the SDK's current recording |
| plain `rr.log` after `rr.init`, without a sink | the rows are copied at the end of the test (`rr_init.py`) |
| pools and child processes of the test | see `child_processes.py` |
| records of Python's `logging` | see `logging_capture.py` |

This module is imported only when the first test is recorded, because it needs the SDK.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpr.pytest_plugin.recording import fork_warning, test_rows
from mpr.pytest_plugin.recording.child_processes import Children
from mpr.pytest_plugin.recording.logging_capture import LogCapture
from mpr.pytest_plugin.recording.rr_init import RrInitRows
from mpr.pytest_plugin.recording.test_stream import TestStream, TestStreams, is_of_tests
from mpr.sdk import recordings

if TYPE_CHECKING:
    import rerun as rr

    from mpr.pytest_plugin.recording.running_test import RunningTest


_THREAD = "thread"


class LogSources:
    """Sends rows from all sources in one process to the recording of the running test.

    Parameters
    ----------
    running:
        The function that returns the test that runs in this process, or None.
    """

    def __init__(self, running: Callable[[], RunningTest | None]) -> None:
        self._running = running
        self._forks = fork_warning.Watch(running)
        self._streams = TestStreams(self._logged)
        self._children = Children()
        # If this pytest runs within a test of another pytest, this is the recording of that outer test.
        self._outer: Any = None
        self._rr_init_rows = RrInitRows(self._streams.has)
        self._logs = LogCapture(self._native, test_rows.LOGS)

    def stream(self, application_id: str) -> TestStream:
        """Return the stream of this process for recordings with `application_id`. Make one if there is none."""
        if self._streams.knows(application_id):
            return self._streams.get(application_id)
        with warnings.catch_warnings():
            # The first stream imports the SDK, which may warn. A test that turns warnings into errors must not fail.
            warnings.simplefilter("ignore")
            found = self._streams.get(application_id)
        self._forks.threads_have_come()
        return found

    def attach(self, running: RunningTest) -> None:
        """Send the rows from all sources to the recording of the test `running` from now on."""
        self._children.attach(running.stream)
        native = running.stream.native.to_native()
        self._outer = None
        if running.options.capture == _THREAD:
            recordings.exchange_thread_recording(native)
            return
        before = recordings.exchange_global_recording(native)
        if before is None or self._streams.has(before):
            return
        if is_of_tests(before):
            self._outer = before
        else:
            # For example, a fixture that several tests use has made `before` the current recording. It stays the
            # current recording, as it would without this plugin.
            recordings.exchange_global_recording(before)

    def phase_has_ended(self, running: RunningTest) -> None:
        """Let child processes of the next phase log into the recording, too.

        `Children.attach` must be called again, because the phase may have imported `@mpr.task`.
        """
        self._children.attach(running.stream)

    def detach(self, running: RunningTest) -> None:
        """Stop sending rows to the recording of the test `running`.

        If the test has made another recording the current one, that recording stays the current one. Its rows are
        copied into the recording of the test, if this is possible.
        """
        note = self._children.detach()
        if note is not None:
            running.notes.append(note)
        exchange = recordings.exchange_global_recording
        if running.options.capture == _THREAD:
            exchange = recordings.exchange_thread_recording
        now = exchange(self._outer)
        if now is not None and not self._streams.has(now):
            exchange(now)
        note = self._rr_init_rows.copy_rows(running.stream.native)
        if note is not None:
            running.notes.append(note)

    def close(self) -> None:
        """Undo the changes that this object has made to the process. Call this after the last test."""
        self._logs.close()
        self._forks.close()
        self._children.close()

    def _native(self) -> rr.RecordingStream | None:
        running = self._running()
        return None if running is None else running.stream.native

    def _logged(self) -> None:
        running = self._running()
        if running is not None:
            running.note_rows()

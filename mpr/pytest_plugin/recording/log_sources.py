"""What a process has around its tests, so that what they log comes into their recordings.

| what logs | what brings it |
|---|---|
| plain `rr.log` of the test, its fixtures and threads | the test's stream is the current recording |
| the same after `rr.init` without a sink | what that recording has is copied at the end (`rr_init.py`) |
| pools, child processes | `child_processes.py` |
| `logging` | `logging_capture.py` |

Made with the first test that is recorded, as it needs the SDK.
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
    """Of one process.

    Parameters
    ----------
    running:
        Tells which test runs in this very process.
    """

    def __init__(self, running: Callable[[], RunningTest | None]) -> None:
        self._running = running
        self._forks = fork_warning.Watch(running)
        self._streams = TestStreams(self._logged)
        self._children = Children()
        # Of a test that runs pytest itself.
        self._outer: Any = None
        self._rr_init_rows = RrInitRows(self._streams.has)
        self._logs = LogCapture(self._native, test_rows.LOGS)

    def stream(self, application_id: str) -> TestStream:
        """The stream of this process for recordings of that application id."""
        if self._streams.knows(application_id):
            return self._streams.get(application_id)
        with warnings.catch_warnings():
            # That the SDK's own modules warn is not the doing of the test, which may take warnings for errors.
            warnings.simplefilter("ignore")
            found = self._streams.get(application_id)
        self._forks.threads_have_come()
        return found

    def attach(self, running: RunningTest) -> None:
        """What is logged from now on is of the test `running`."""
        self._children.attach(running.stream)
        native = running.stream.native.inner
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
            # A fixture of a wider scope may need it; and without us, it would be there.
            recordings.exchange_global_recording(before)

    def phase_has_ended(self, running: RunningTest) -> None:
        """It may have brought the first function that logs from other processes."""
        self._children.attach(running.stream)

    def detach(self, running: RunningTest) -> None:
        """The test is over. What it has made current stays so, as it would without us."""
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
        """No test comes any more."""
        self._logs.close()
        self._forks.close()
        self._children.close()

    def _native(self) -> rr.RecordingStream | None:
        running = self._running()
        return None if running is None else running.stream.native

    def _logged(self) -> None:
        running = self._running()
        if running is not None:
            running.logged = True

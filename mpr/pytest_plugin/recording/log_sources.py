"""Sends the rows of a test from all sources in one process to the test's recording.

| source of the rows | how the rows get into the recording |
|---|---|
| plain `rr.log` of the test, its fixtures and threads | the test's stream is the SDK's current recording |
| recordings that the test or a fixture makes | each row is logged once more (`mpr/sdk/copies.py`) |
| fixtures that an earlier test has set up | see `fixture_rows.py` |
| pools, child processes | see `child_processes.py` |
| `logging` | see `logging_capture.py` |
| output, outcome and failures of the test | see `test_rows.py` |

`recorder.py` imports this module only when a process begins to run tests that it may record, because this module needs
the SDK. This module imports everything at its top, because a test may replace even `__import__`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from mpr.pytest_plugin.options import LOGS
from mpr.pytest_plugin.recording import embedding, fork_warning, test_rows
from mpr.pytest_plugin.recording.child_processes import Children
from mpr.pytest_plugin.recording.fixture_rows import FixtureRows
from mpr.pytest_plugin.recording.logging_capture import LogCapture
from mpr.pytest_plugin.recording.running_test import SETUP
from mpr.pytest_plugin.recording.system import System
from mpr.pytest_plugin.recording.test_stream import TestStream, TestStreams, is_of_tests
from mpr.sdk import copies
from mpr.sdk.native import Native

if TYPE_CHECKING:
    import pytest

    from mpr.pytest_plugin.recording.running_test import RunningTest
    from mpr.sdk.recordings import Ids


_THREAD = "thread"


class LogSources:
    """Sends rows from all sources in one process to the recording of the running test.

    Parameters
    ----------
    config:
        The configuration of pytest.
    running:
        A function that returns the test that runs in this process, or None.

    Attributes
    ----------
    log_output, log_end:
        The functions of `test_rows.py`. `recorder.py` calls them here, because it must not import the SDK at its top.
    """

    def __init__(self, config: pytest.Config, running: Callable[[], RunningTest | None]) -> None:
        self._config = config
        self._running = running
        self._forks = fork_warning.Watch(running)
        self._streams = TestStreams()
        self._children = Children()
        # If this pytest runs within a test of another pytest, `_outer` is the recording of that outer test.
        self._outer: Any = None
        # The thread whose rows are recorded; None if the rows of all threads are.
        self._thread: int | None = None
        self._logs = LogCapture(config, running, LOGS)
        self._fixtures = FixtureRows(running)
        config.pluginmanager.register(self._fixtures, "mpr-fixture-rows")
        copies.copy_to(self)
        self.log_output: Final = test_rows.log_output
        self.log_end: Final = test_rows.log_end

    def make_streams(self, application_ids: Iterable[str]) -> None:
        """Make a stream for each of `application_ids`, so that no test has to wait until its stream is made."""
        with warnings.catch_warnings():
            # Warnings of the SDK's own modules must not fail a test that turns warnings into errors.
            warnings.simplefilter("ignore")
            for application_id in application_ids:
                self.stream(application_id)

    def stream(self, application_id: str) -> TestStream:
        """Return the stream for `application_id`. Make a new stream if there is none that this process can use."""
        if self._streams.knows(application_id):
            return self._streams.get(application_id)
        found = self._streams.get(application_id)
        self._forks.threads_have_come()
        return found

    def attach(self, running: RunningTest) -> None:
        """Send the rows from all sources to the recording of the test `running` from now on.

        The test's recording becomes the SDK's current recording, unless other code has made a recording of its own the
        current one. The rows of that recording are then copied. If the test's option `capture` is "thread", `rr.log` is
        recorded only in the calling thread.
        """
        self._children.attach(running.stream)
        self._fixtures.begin(running)
        copies.forget_times(running.stream.ids)
        handle = running.stream.handle
        self._outer = None
        self._thread = System.thread_id() if running.options.capture == _THREAD else None
        before = self._current()
        # A thread without a recording of its own uses the one of the process.
        used = before if self._thread is None else Native.current()
        ids = None if used is None else Native.ids(used)
        # A disabled recording has no ids. An earlier test may have left it behind (`rr.init(default_enabled=False)`).
        if ids is None or is_of_tests(ids):
            self._outer = None if before is None or self._streams.has(before) else before
            self._set_current(handle)
        # If other code has made `used`, it stays the current recording, because a fixture with a wider scope may need
        # it. Without mpr, `used` would be the current recording too. Its rows are copied into the test's recording.

    def phase_has_ended(self, running: RunningTest, phase: str) -> None:
        """Write the rows of fixtures that the test `running` has requested in `phase`, which is "setup" or "call".

        Writing rows of fixtures removes the times that the test has set. These times are set again before the next row.
        After the setup, `Children.attach` is called again, because the setup may have imported `@mpr.task`.
        """
        self._fixtures.phase_has_ended(running)
        copies.show_times_again(running.stream.ids)
        if phase == SETUP:
            self._children.attach(running.stream)

    def detach(self, running: RunningTest) -> None:
        """Stop sending rows to the recording of the test `running`.

        If the test has made another recording the SDK's current one, that recording stays the current one. If pools or
        shared recordings of the test are still open, a note is added to `running.notes`.
        """
        self._logs.forget()
        note = self._children.detach()
        if note is not None:
            running.notes.append(note)
        if self._is_free(self._current()):
            self._set_current(self._outer)
        self._thread = None

    def close(self) -> None:
        """Stop copying rows and capturing `logging` records, and close the shared recordings.

        Call this method after the last test. If the process goes on after pytest, the streams are ended, too.
        """
        copies.stop(self)
        self._config.pluginmanager.unregister(self._fixtures)
        self._logs.close()
        self._forks.close()
        self._children.close()
        if embedding.process_goes_on(self._config):
            self._streams.close()

    # --- the target of `copies` -------------------------------------------------------------------------------------

    def handle(self) -> Any:
        """Return the handle of the running test's recording, for rows that the calling thread logs.

        Returns None if no test runs. Also returns None if only the thread of the test is recorded (option
        `capture="thread"`), and another thread calls this method.
        """
        if self._thread is not None and self._thread != System.thread_id():
            return None
        return self._handle_of_running()

    def is_ours(self, ids: Ids | None) -> bool:
        """Return True if the recording with the ids `ids` belongs to the plugin."""
        return is_of_tests(ids)

    def logged(self) -> None:
        """Note that rows were logged to the recording of the running test, so that the end of the phase flushes them.

        Does nothing if no test runs.
        """
        running = self._running()
        if running is not None:
            running.note_rows()

    def _current(self) -> Any:
        """Return the handle of the current recording of the process; None if there is none.

        With the option `capture="thread"`, return the current recording of the calling thread instead.
        """
        return Native.current_of_process() if self._thread is None else Native.current_of_thread()

    def _set_current(self, handle: Any) -> None:
        if self._thread is None:
            Native.set_current_of_process(handle)
        else:
            Native.set_current_of_thread(handle)

    def _is_free(self, current: Any) -> bool:
        """Return True if `current`, the handle of the current recording, is None or belongs to a stream of this object.

        The test has then made no other recording the current one.
        """
        return current is None or self._streams.has(current)

    def _handle_of_running(self) -> Any:
        running = self._running()
        return None if running is None else running.stream.handle

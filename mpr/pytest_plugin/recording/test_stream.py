"""Writes the recordings of all tests of a process with one stream of the SDK, one file after the other.

Covers: making the stream, the file that it writes now, the recording id of each file, and streams that hang.
Does not cover: the name of the file, the rows about the test in the file, and whether the file is kept.

A stream of the SDK has two threads that never end. So tests do not get a stream each: all tests with one application id
share a stream. For each test, the stream gets another file sink of the SDK. A thread of the SDK writes the file,
without Python. So rows that were logged some milliseconds before a crash of the process are in the file. All rows have
the stream's recording id. When a file is closed, this id is replaced in the file by a new one of the same length.

Measured: with this one stream, a test takes 1.0 to 1.2 times as long as with a new stream for each test. If Python
fetched the rows by `rr.binary_stream`, a test would take 2 to 3 times as long.

If a file cannot be written any more, for example because the disk is full, the SDK's threads may wait for each other
for ever. In release 0.41, a flush of the SDK never returns if an earlier row could not be written. Such a stream is not
used again, and a new stream is made.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr import errors
from mpr.rrd import framing, relabel, store_id
from mpr.sdk import log_calls, recordings

if TYPE_CHECKING:
    import rerun as rr


#: The longest time in seconds that a flush waits for the disk if no other time is given.
FLUSH_TIMEOUT_SECS = 5.0
# The longest time in seconds that the end of a test waits for the SDK if a flush of the file has failed.
_CLOSE_TIMEOUT_SECS = 10.0


# Streams whose threads wait for ever. They are kept here so that Python never deletes them: the deletion of a stream
# waits for its threads.
_stuck: list[Any] = []
# The recording ids of all streams that `TestStream` has made in this process. Not all belong to one run of pytest,
# because a test may itself run pytest in this process.
_every: set[str] = set()


def is_of_tests(native: Any) -> bool:
    """Return whether any `TestStream` uses the stream `native`, which is the `inner` of an `rr.RecordingStream`."""
    return recordings.recording_id_of(native) in _every


class TestStream:
    """Writes the recordings of tests with one application id in this process, one file after the other."""

    __test__ = False

    def __init__(self, application_id: str) -> None:
        import rerun as rr

        self.pid: int = os.getpid()
        self.application_id = application_id
        self.recording_id: str = uuid.uuid4().hex
        self.native: rr.RecordingStream = rr.RecordingStream(
            application_id,
            recording_id=self.recording_id,
            send_properties=False,
            batcher_config=rr.ChunkBatcherConfig.LOW_LATENCY(),
        )
        _every.add(self.recording_id)
        self.path: Path | None = None
        # `_failed`: whether a flush of the present file has failed. `stuck`: whether the threads of the stream wait for
        # ever, so that the stream cannot be used any more.
        self._failed = False
        self.stuck: bool = False

    def open(self, path: Path) -> None:
        """Write rows to the file `path` from now on. Times that earlier tests have set no longer count.

        Raises the SDK's error if the file cannot be opened.
        """
        self.native.save(path)
        self.path = path
        self._failed = False
        self.native.reset_time()

    def flush(self, timeout_secs: float = FLUSH_TIMEOUT_SECS) -> None:
        """Wait up to `timeout_secs` until all rows are in the file.

        Raises `RuntimeError` if this fails. After a failure, this method does nothing until the next file is opened.
        """
        if self._failed:
            return
        try:
            self.native.flush(timeout_sec=timeout_secs)
        except RuntimeError:
            self._failed = True
            raise

    def is_taken(self) -> bool:
        """Return whether other code has given the stream another sink, for example by `rr.save`.

        The SDK has then finished the file of the test already.
        """
        assert self.path is not None
        return not self.path.exists() or framing.is_finished(self.path)

    def close(self) -> bool:
        """Finish the file, and give its recording a new id. Return whether this succeeded, so that it has a footer."""
        assert self.path is not None
        path, self.path = self.path, None
        # `disconnect` of the SDK may wait for ever. So the file is flushed before, for a limited time. If the flush
        # fails, `disconnect` is called in another thread.
        with contextlib.suppress(RuntimeError):
            self.flush()
        if self._failed:
            closing = threading.Thread(target=self.native.disconnect, name="mpr-close", daemon=True)
            closing.start()
            closing.join(_CLOSE_TIMEOUT_SECS)
            self.stuck = closing.is_alive()
        else:
            self.native.disconnect()
        if self.stuck:
            _leave_alone(self.native)
            return False
        old = store_id.store_id(self.application_id, self.recording_id)
        new = store_id.store_id(self.application_id, uuid.uuid4().hex)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return relabel.rename_in_place(fd, old, new)
        except (errors.FormatError, OSError):
            return False
        finally:
            os.close(fd)


def _leave_alone(native: Any) -> None:
    """Make sure that this process never waits for the stream `native`, whose threads wait for each other for ever.

    The SDK's exit handler is removed, because it would wait for all streams. Another exit handler finishes the global
    recording of the SDK instead, unless that is such a stream too.
    """
    import rerun as rr

    def finish_global_recording() -> None:
        recording = rr.get_global_data_recording()
        if recording is not None and recording.get_recording_id() not in {each.get_recording_id() for each in _stuck}:
            recording.flush(timeout_sec=FLUSH_TIMEOUT_SECS)
            recording.disconnect()

    if not _stuck:
        rr.unregister_shutdown()
        atexit.register(finish_global_recording)
    _stuck.append(native)


class TestStreams:
    """The streams of this process by application id. A forked process does not use the streams of its parent.

    Parameters
    ----------
    logged:
        The function that is called whenever this process logs rows.
    """

    __test__ = False

    def __init__(self, logged: Callable[[], object]) -> None:
        self._streams: dict[str, TestStream] = {}

        # Logging calls are watched, because a flush is needed only after new rows.
        def entered(_size: int, _rows: int, _recording: Any) -> None:
            logged()

        log_calls.install_entries(entered, lambda _rows, _recording: None)

    def has(self, native: Any) -> bool:
        """Return whether `native`, which is the `inner` of an `rr.RecordingStream`, belongs to one of these streams."""
        recording_id = recordings.recording_id_of(native)
        return any(each.recording_id == recording_id for each in self._streams.values())

    def knows(self, application_id: str) -> bool:
        """Return whether this process has a stream for `application_id` that can be used."""
        found = self._streams.get(application_id)
        return found is not None and found.pid == os.getpid() and not found.stuck

    def get(self, application_id: str) -> TestStream:
        """Return the stream for `application_id`. Make a new stream if there is none that can be used."""
        if not self.knows(application_id):
            self._streams[application_id] = TestStream(application_id)
        return self._streams[application_id]

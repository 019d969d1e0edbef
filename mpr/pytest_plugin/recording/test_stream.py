"""Writes the recordings of tests with one stream per process, one file after the other.

Covers: the stream's life, the file that it writes now, and the recording id of each file.
Does not cover: the name of the file, the rows about the test in it, and whether it is kept.

A stream of the SDK costs two threads that never end. So each process has one stream for all its tests, and each test
has a file sink of the SDK. The sink writes from a thread without Python, so rows that were logged some milliseconds
before a crash of the process are in the file. All rows have the stream's recording id; when a file is closed, the id in
it is replaced by another one of the same length.

Measured: a test takes 1.0 to 1.2 times as long as with a stream of its own, whose threads would have to be ended. With
rows that Python fetches by `rr.binary_stream`, it takes 2 to 3 times as long.

If a file cannot be written any more, as on a full disk, the SDK's threads may wait for each other for ever. In release
0.41 a flush after a row that failed is never answered. Such a stream is not used again, and a new one is made.
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


#: The time in seconds that the end of a phase waits for the disk, and that the end of a test waits if that was too
#: short.
FLUSH_TIMEOUT_SECS = 5.0
_CLOSE_TIMEOUT_SECS = 10.0


# Streams whose threads wait for ever. They are kept, because the SDK would wait with them when they are collected.
_stuck: list[Any] = []
# The recording ids of all streams of this class in this process. There may be several plugins, if pytest runs in a
# test.
_every: set[str] = set()


def is_of_tests(native: Any) -> bool:
    """Return whether the SDK's handle is that of a recording of any `TestStream`."""
    return recordings.recording_id_of(native) in _every


class TestStream:
    """The stream of one application id in this process."""

    __test__ = False

    def __init__(self, application_id: str) -> None:
        import rerun as rr

        self.pid = os.getpid()
        self.application_id = application_id
        self.recording_id = uuid.uuid4().hex
        self.native: rr.RecordingStream = rr.RecordingStream(
            application_id,
            recording_id=self.recording_id,
            send_properties=False,
            batcher_config=rr.ChunkBatcherConfig.LOW_LATENCY(),
        )
        _every.add(self.recording_id)
        self.path: Path | None = None
        # Whether a flush of the present file has failed, and whether the stream cannot be used any more.
        self._failed = False
        self.stuck = False

    def open(self, path: Path) -> None:
        """Write to `path` from now on, without any time set. Raises the SDK's error if it cannot open the file."""
        self.native.save(path)
        self.path = path
        self._failed = False
        self.native.reset_time()

    def flush(self, timeout_secs: float = FLUSH_TIMEOUT_SECS) -> None:
        """Wait until all rows are in the file; raises `RuntimeError` if that fails, but only once for each file."""
        if self._failed:
            return
        try:
            self.native.flush(timeout_sec=timeout_secs)
        except RuntimeError:
            self._failed = True
            raise

    def is_taken(self) -> bool:
        """Return whether other code has given the stream another sink; the file is finished then."""
        assert self.path is not None
        return not self.path.exists() or framing.is_finished(self.path)

    def close(self) -> bool:
        """Finish the file, give its recording a new id, and return whether the file is whole."""
        assert self.path is not None
        path, self.path = self.path, None
        # The SDK's `disconnect` waits without a bound, so the file is flushed before it, with a bound.
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
    """Never wait for this stream again: at exit, only the global recording is finished, and not all of the SDK."""
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
    """The streams of this process, by application id; a forked child does not use those of its parent."""

    __test__ = False

    def __init__(self, logged: Callable[[], object]) -> None:
        self._streams: dict[str, TestStream] = {}

        # Logging calls are watched to know whether there are rows to flush.
        def entered(_size: int, _rows: int, _recording: Any) -> None:
            logged()

        log_calls.install_entries(entered)

    def has(self, native: Any) -> bool:
        """Return whether the SDK's handle is that of one of these streams."""
        recording_id = recordings.recording_id_of(native)
        return any(each.recording_id == recording_id for each in self._streams.values())

    def knows(self, application_id: str) -> bool:
        """Return whether this process has a usable stream of that application id."""
        found = self._streams.get(application_id)
        return found is not None and found.pid == os.getpid() and not found.stuck

    def get(self, application_id: str) -> TestStream:
        """Return the stream of that application id; make one if there is none."""
        if not self.knows(application_id):
            self._streams[application_id] = TestStream(application_id)
        return self._streams[application_id]

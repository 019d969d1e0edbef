"""The stream that a process logs its tests with, one file after the other.

Covers: the stream's life, the file that it writes now, and that file's own recording id.
Does not cover: which file, what is said of the test in it, and what becomes of it.

A stream of the SDK costs two threads that never end, so each process has one for all its tests, and each test has a
file sink of the SDK's own. That writes from a thread without Python, so that what was logged some milliseconds before a
crash of the process is in the file. The rows carry the stream's recording id; when a file is closed, its ids are
replaced by others of the same length. (Measured: this costs 1.0 to 1.2 times what a stream per test costs, whose
threads would have to be cleaned up; rows that Python fetches by `rr.binary_stream` cost 2 to 3 times as much.)

Where a file cannot be written any more, as on a full disk, the SDK's threads may wait for each other for ever (0.41: a
flush that stands behind the row that failed is never answered). Such a stream is left alone, and another one is begun.
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


#: For how long a phase's end waits for the disk, and for how long the end of a test does once that was too short.
FLUSH_TIMEOUT_SECS = 5.0
_CLOSE_TIMEOUT_SECS = 10.0


# Streams whose threads wait for ever: the SDK would wait with them when they are collected.
_stuck: list[Any] = []
# The recording ids of all streams that tests of this process are recorded with: pytest may run within a test.
_every: set[str] = set()


def is_of_tests(native: Any) -> bool:
    """Whether a recording, given by the SDK's handle of it, is one that tests are recorded with."""
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
        # Whether a flush of the file that it writes has failed; and whether the stream is of no use any more.
        self._failed = False
        self.stuck = False

    def open(self, path: Path) -> None:
        """Write to `path` from now on, without any time set. Raises what the SDK raises for a file it cannot have."""
        self.native.save(path)
        self.path = path
        self._failed = False
        self.native.reset_time()

    def flush(self, timeout_secs: float = FLUSH_TIMEOUT_SECS) -> None:
        """Wait until all rows are in the file; raises `RuntimeError` where they cannot be, once for each file."""
        if self._failed:
            return
        try:
            self.native.flush(timeout_sec=timeout_secs)
        except RuntimeError:
            self._failed = True
            raise

    def is_taken(self) -> bool:
        """Whether somebody else has given the stream another sink: then the file has been finished already."""
        assert self.path is not None
        return not self.path.exists() or framing.is_finished(self.path)

    def close(self) -> bool:
        """Finish the file; returns whether it is whole. The recording in it has an id that no other has."""
        assert self.path is not None
        path, self.path = self.path, None
        # The SDK's own waits here have no bound.
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
    """Never wait for this stream again: what the SDK does at exit for all streams is done for the global one only."""
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
    """Those of this process, by application id; a forked child has none of its parent's."""

    __test__ = False

    def __init__(self, logged: Callable[[], object]) -> None:
        self._streams: dict[str, TestStream] = {}

        # To know whether there is anything to flush.
        def entered(_size: int, _rows: int, _recording: Any) -> None:
            logged()

        log_calls.install_entries(entered)

    def has(self, native: Any) -> bool:
        """Whether a recording, given by the SDK's handle of it, is one of these."""
        recording_id = recordings.recording_id_of(native)
        return any(each.recording_id == recording_id for each in self._streams.values())

    def knows(self, application_id: str) -> bool:
        """Whether there is a stream of that application id, of this very process."""
        found = self._streams.get(application_id)
        return found is not None and found.pid == os.getpid() and not found.stuck

    def get(self, application_id: str) -> TestStream:
        """The stream of that application id, which may be a new one."""
        if not self.knows(application_id):
            self._streams[application_id] = TestStream(application_id)
        return self._streams[application_id]

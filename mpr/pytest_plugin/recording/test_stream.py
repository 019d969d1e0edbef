"""Writes the recordings of many tests with one stream of the SDK, one file after the other.

The tests of a process with the same application id share a stream, because a new stream takes time and has threads. For
each test, the stream gets another file sink of the SDK. A native thread of the SDK writes the file after a short time,
even while the test runs. So after a crash of the process, usually only the rows of the last moments are missing.

The SDK writes the rows with the stream's recording id. `TestStream.close` replaces this id in the file by a new one of
the same length.

If a file cannot be written any more, for example because the disk is full, the SDK's threads may wait for each other
forever. Such a stream is called stuck. A stuck stream is not used again, and a new stream is made.

Covers: making streams, the file that a stream writes now, the recording id of each file, and stuck streams.
Does not cover: the name of the file, the rows about the test in the file, and whether the file is kept.
"""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mpr import errors
from mpr.pytest_plugin.recording import system
from mpr.pytest_plugin.recording.system import System
from mpr.rrd import framing, relabel, store_id
from mpr.sdk import native
from mpr.sdk.native import Native

if TYPE_CHECKING:
    import rerun as rr

    from mpr.sdk.recordings import Ids


#: The longest time in seconds that a flush waits for the disk if no other time is given.
FLUSH_TIMEOUT_SECS = 5.0
# The longest time in seconds that the end of a test waits for the SDK if a flush of the file has failed.
_CLOSE_TIMEOUT_SECS = 10.0


# Streams whose threads wait forever. They are kept here so that Python never deletes them: the deletion of a stream
# waits for its threads.
_stuck: list[Any] = []
# All streams of this process. They may belong to several plugins, because a test may run pytest, and because a process
# may run pytest several times.
_every: list[TestStream] = []


# The first call imports the hash function of footers.
framing.stream_footer(0, b"")


def is_of_tests(ids: Ids | None) -> bool:
    """Return True if the recording with the ids `ids` belongs to any `TestStream` of this process."""
    return any(each.ids == ids for each in _every)


class TestStream:
    """Writes the recordings of one application id in this process, one file after the other.

    Attributes
    ----------
    handle, public:
        The native object of the SDK that stands for the stream, and the stream as an `rr.RecordingStream`.
    path:
        The path of the present file; None if there is none.
    stuck:
        True if the stream cannot be used any more, because the SDK has not finished a file within 10 s.
    pid:
        The id of the process that has made the stream.
    """

    __test__ = False

    def __init__(self, application_id: str) -> None:
        self.pid: int = System.getpid()
        self.application_id = application_id
        self.recording_id: str = system.new_id()
        self.handle: Any = system.without_signals(lambda: native.new_recording(application_id, self.recording_id))
        self.public: rr.RecordingStream = Native.stream_of(self.handle)
        self.path: str | None = None
        self.stuck: bool = False
        # True if a flush of the present file has failed.
        self._failed = False
        _every.append(self)

    @property
    def ids(self) -> Ids:
        """The application id and the recording id of the stream."""
        return self.application_id, self.recording_id

    @property
    def is_usable(self) -> bool:
        """True if this process has made the stream, and the stream is not stuck."""
        return self.pid == System.getpid() and not self.stuck

    def open(self, path: str) -> None:
        """Write rows to the file `path` from now on. Forget the times that the calling thread has set for earlier rows.

        Raises the SDK's `RuntimeError` if the file cannot be opened.
        """
        system.without_signals(lambda: Native.save(path, None, self.handle))
        self.path = path
        self._failed = False
        Native.reset_time(self.handle)

    def flush(self, timeout_secs: float = FLUSH_TIMEOUT_SECS) -> None:
        """Wait up to `timeout_secs` seconds until all logged rows are in the file. Raises `RuntimeError` if this fails.

        After a failure, this method returns at once until the next file is opened, because another flush might never
        return. So a return is no proof that the rows are in the file if an earlier flush of this file has failed.
        """
        if self._failed:
            return
        try:
            Native.flush(timeout_sec=timeout_secs, recording=self.handle)
        except RuntimeError:
            self._failed = True
            raise

    def is_taken(self) -> bool:
        """Return True if other code has ended the test's file, for example by `rr.save`.

        Also returns True if the file cannot be opened. Call this method only while a file is open.
        """
        assert self.path is not None
        try:
            fd = System.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            size = System.fstat(fd).st_size
            closing = framing.CLOSING
            return size > len(closing) and System.pread(fd, len(closing), size - len(closing)) == closing
        finally:
            System.close(fd)

    def close(self, recording_id: str | None = None) -> bool:
        """Finish the file, and give its recording the id `recording_id`, or a new id if `recording_id` is None.

        Call this method only while a file is open. `recording_id` must have 32 characters. Returns True if the file is
        complete, with its footer (the index at the end of an `.rrd` file), and has the new id. Otherwise returns False.
        """
        assert self.path is not None
        path = self.path
        self.finish(has_rows=True)
        if self.stuck:
            return False
        old = store_id.store_id(self.application_id, self.recording_id)
        new = store_id.store_id(self.application_id, recording_id or system.new_id())
        try:
            fd = System.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return relabel.rename_in_place(fd, old, new)
        except (errors.FormatError, OSError):
            return False
        finally:
            System.close(fd)

    def finish(self, *, has_rows: bool) -> None:
        """Finish the file. Its recording keeps the id of the stream, which is enough for a file that is removed.

        `has_rows` must be True if rows were logged since the last flush. If the disk accepts no rows, this takes up to
        15 s, and `stuck` may be True afterwards.
        """
        self.path = None
        # `disconnect` of the SDK may wait forever for rows. So they are flushed before, for a limited time, and
        # `disconnect` is called in another thread.
        if has_rows:
            with suppress(RuntimeError):
                self.flush()
        self.stuck = not system.run_bounded(lambda: Native.disconnect(self.handle), _CLOSE_TIMEOUT_SECS)
        if self.stuck:
            _leave_alone(self)

    def drop_rows(self) -> None:
        """Drop the rows that were logged after the end of the file. The SDK would write them to the next file."""
        system.without_signals(lambda: Native.save(os.devnull, None, self.handle))
        Native.disconnect(self.handle)

    def end(self) -> None:
        """Release the objects of the SDK. Afterwards, this object cannot be used any more."""
        self.handle = None
        del self.public
        _every.remove(self)


def _leave_alone(stream: TestStream) -> None:
    """Keep the stuck `stream` until this process ends, and let the process exit without a wait for `stream`.

    This function removes the SDK's exit handler, because that handler would wait for all streams. Another exit handler
    then finishes the SDK's global recording, unless the global recording is stuck.
    """

    def finish_global_recording() -> None:
        handle = Native.current_of_process()
        stuck_ids = {each.ids for each in _stuck}
        if handle is not None and Native.ids(handle) not in stuck_ids:
            Native.flush(timeout_sec=FLUSH_TIMEOUT_SECS, recording=handle)
            Native.disconnect(handle)

    if not _stuck:
        Native.unregister_shutdown()
        atexit.register(finish_global_recording)
    _stuck.append(stream)


class TestStreams:
    """Holds the streams that one run of pytest uses in this process, by application id.

    A forked process does not use the streams of its parent, but makes its own.
    """

    __test__ = False

    def __init__(self) -> None:
        self._streams: dict[str, TestStream] = {}

    def has(self, handle: Any) -> bool:
        """Return True if `handle`, a handle of the SDK, belongs to a stream of this object."""
        ids = Native.ids(handle)
        return any(each.ids == ids for each in self._streams.values())

    def knows(self, application_id: str) -> bool:
        """Return True if there is a stream for `application_id` that this process can use."""
        found = self._streams.get(application_id)
        return found is not None and found.is_usable

    def get(self, application_id: str) -> TestStream:
        """Return the stream for `application_id`. Make a new stream if there is none that this process can use."""
        if not self.knows(application_id):
            self._streams[application_id] = TestStream(application_id)
        return self._streams[application_id]

    def close(self) -> None:
        """Release the streams, and let the SDK end the threads of streams that nothing uses any more.

        A process may run pytest often, and must not get more threads each time. The threads stay if a stream of this
        process is stuck, or if the SDK has no function that ends threads.
        """
        ended = [each for each in self._streams.values() if each.is_usable]
        self._streams.clear()
        for each in ended:
            each.end()
        if ended and not _stuck and Native.clean_up is not None:
            system.run_bounded(_end_threads, _CLOSE_TIMEOUT_SECS)


def _end_threads() -> None:
    """Let the SDK end the threads of streams that nothing uses any more.

    The SDK then forgets the current recording of the process. This function sets that recording again.
    """
    current = Native.current_of_process()
    try:
        Native.clean_up()
    finally:
        if current is not None:
            Native.set_current_of_process(current)
